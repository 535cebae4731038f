"""The device of a rank."""

from __future__ import annotations

import torch

from lavis_emovit.distributed.processes import Launch, read_launch
from lavis_emovit.errors import ConfigError

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str, launch: Launch | None = None) -> torch.device:
    """The device of a setting; `cuda` is the GPU with the local rank's number, `auto` uses it if available.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:<number>`.
        launch: None reads the environment.

    Raises:
        ConfigError: the GPU is missing, or there are more processes than GPUs.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not found):
        return torch.device("cpu")
    launch = launch or read_launch()
    own = torch.device(name).index if name.startswith("cuda:") else None
    if own is not None and launch.local_world_size > 1:
        raise ConfigError(
            [
                f"run.device: {name} is asked for by {launch.local_world_size} processes of one machine; set "
                "run.device=cuda, and each takes the GPU of its own number"
            ]
        )
    # Slurm may show each task only its own GPU.
    number = own if own is not None else (0 if found == 1 and launch.launcher == "slurm" else launch.local_rank)
    if number < found:
        return torch.device("cuda", number)
    if launch.local_world_size > 1 and found:
        raise ConfigError(
            [
                f"run.device: {launch.local_world_size} processes on this machine, torch sees {found} GPUs; start one "
                "process for each GPU, or set run.device=cpu"
            ]
        )
    raise ConfigError([f"run.device: {name} is asked for, torch sees {found} GPUs; set run.device=cpu or auto"])
