"""The device of a rank."""

from __future__ import annotations

import re

import torch

from lavis_emovit.distributed.processes import Launch, read_launch
from lavis_emovit.errors import ConfigError, UserError

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def amp_dtype(name: str) -> torch.dtype | None:
    """The type of mixed precision by its name, None for `off`; UserError for any other name."""
    if name not in ("off", *AMP_DTYPES):
        raise UserError(f"amp '{name}': choose off, {' or '.join(AMP_DTYPES)}")
    return AMP_DTYPES.get(name)


def choose_device(name: str, launch: Launch | None = None) -> torch.device:
    """The device of a setting: `cpu`, `cuda:<number>`, `cuda` for the GPU with the number of the local rank, or `auto`
    for that GPU if there is one.

    Raises:
        UserError: there is no such name.
        ConfigError: the GPU is missing, or there are more processes than GPUs.
    """
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", name) is None:
        raise UserError(f"device '{name}': choose auto, cpu, cuda or cuda:<number>")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not found):
        return torch.device("cpu")
    launch = launch or read_launch()
    own = torch.device(name).index if name.startswith("cuda:") else None
    if own is not None and launch.local_world_size > 1:
        problem = f"{launch.local_world_size} processes on this machine cannot share {name}"
        raise ConfigError([f"run.device: {problem}; set run.device=cuda, and each takes the GPU of its local rank"])
    # Slurm may show each task only its own GPU.
    number = own if own is not None else (0 if found == 1 and launch.launcher == "slurm" else launch.local_rank)
    if number < found:
        return torch.device("cuda", number)
    if launch.local_world_size > 1 and found:
        problem = f"{launch.local_world_size} processes on this machine, torch sees {found} GPUs"
        raise ConfigError([f"run.device: {problem}; start one process for each GPU, or set run.device=cpu"])
    raise ConfigError([f"device {name}: not available, torch sees {found} GPUs; choose cpu or auto"])
