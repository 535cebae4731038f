"""DeepSpeed's JSON file: checked, and completed from the recipe.

The recipe decides what a run computes, the file how its state is partitioned. A file with batch sizes, optimizer,
clipping or precision is refused. `"auto"`, which other programs fill in, counts as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis_emovit.errors import ConfigError
from lavis_emovit.files import load_json, read_file
from lavis_emovit.paths import find_recipe
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import nearest_name

# Key of DeepSpeed -> the setting of the recipe that decides it.
DECIDED_BY_RECIPE = {
    "train_batch_size": "run.global_batch_size",
    "train_micro_batch_size_per_gpu": "run.micro_batch_size",
    "gradient_accumulation_steps": "run.global_batch_size and run.micro_batch_size",
    "managed_gradient_accumulation": "run.global_batch_size and run.micro_batch_size",
    "optimizer": "run.init_lr, run.weight_decay, run.beta1, run.beta2 and run.adam_epsilon",
    "scheduler": "run.lr_sched and related keys",
    "gradient_clipping": "run.max_grad_norm",
    "fp16": "run.amp",
    "bf16": "run.amp",
    "bfloat16": "run.amp",
    "amp": "run.amp",
    "torch_autocast": "run.amp",
    "data_types": "run.amp and model.frozen_precision",
    "seed": "run.seed",
    "checkpoint": "run.save_every_steps and run.resume",
    "tensorboard": "run.tensorboard",
    "zero_force_ds_cpu_optimizer": "the availability of DeepSpeed's optimizer for CPUs",
}
ALLOWED = (
    "zero_optimization",
    "communication_data_type",
    "comms_logger",
    "dump_state",
    "flops_profiler",
    "memory_breakdown",
    "steps_per_print",
    "wall_clock_breakdown",
)
STAGES = (0, 1, 2, 3)
_NEVER = 10**9


def read_deepspeed_config(location: str) -> dict[str, Any]:
    """The content of a file without `"auto"`; ConfigError lists everything that is wrong with it.

    `location` is the file, or `projects/emovit/deepspeed/...` for one that ships with the package.
    """
    path = find_recipe(location)
    if path is None:
        raise ConfigError([f"run.deepspeed_config: no file {location}"])
    try:
        values = load_json(read_file(path))
    except (OSError, ValueError) as error:
        raise ConfigError([f"run.deepspeed_config: {path} cannot be read as JSON: {error}"]) from None
    if not isinstance(values, dict):
        raise ConfigError([f"run.deepspeed_config: {path}: expected an object with the key zero_optimization"])
    content = _without_auto(values)
    problems = [
        f"{key}: the recipe decides it with {DECIDED_BY_RECIPE[key]}; remove it from the file"
        for key in content
        if key in DECIDED_BY_RECIPE
    ]
    problems += [
        f"{key}: not a key that can be set here{nearest_name(key, list(ALLOWED))}"
        for key in content
        if key not in DECIDED_BY_RECIPE and key not in ALLOWED
    ]
    problems += _zero_problems(content.get("zero_optimization"))
    if problems:
        raise ConfigError(problems, str(path))
    return content


def full_config(content: Mapping[str, Any], settings: RunSettings, world_size: int) -> dict[str, Any]:
    """The configuration for DeepSpeed.

    It stays in float32, so that DeepSpeed does not convert the weights; the engine does the autocast. The engine also
    decides which micro-batch is the last of a step, so DeepSpeed's batch sizes have no meaning.
    """
    zero = dict(content["zero_optimization"])
    return {
        "steps_per_print": _NEVER,
        **content,
        "zero_optimization": zero,
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Without ZeRO the engine clips, because it needs the norm before the step.
        "gradient_clipping": (settings.max_grad_norm or 0.0) if zero["stage"] else 0.0,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }


def offloads_optimizer(content: Mapping[str, Any]) -> bool:
    """Whether the optimizer's state and step are on the CPU."""
    return (content["zero_optimization"].get("offload_optimizer") or {}).get("device") == "cpu"


def offloads_weights(content: Mapping[str, Any]) -> bool:
    """Whether the partitioned weights are in host memory."""
    return (content["zero_optimization"].get("offload_param") or {}).get("device") == "cpu"


def _zero_problems(zero: Any) -> list[str]:
    if not isinstance(zero, Mapping):
        return ['zero_optimization: missing; the minimum is {"zero_optimization": {"stage": 2}}']
    stage = zero.get("stage")
    if stage not in STAGES or isinstance(stage, bool):
        return [f"zero_optimization.stage: expected 0, 1, 2 or 3 (got {stage!r})"]
    problems = []
    for key in ("offload_optimizer", "offload_param"):
        node = zero.get(key)
        if node is None:
            continue
        device = node.get("device", "none") if isinstance(node, Mapping) else node
        if device not in ("cpu", "none"):
            problems.append(f"zero_optimization.{key}.device: cpu or none (got {device!r})")
        elif device == "cpu" and key == "offload_optimizer" and stage == 0:
            problems.append("zero_optimization.offload_optimizer: needs stage 1, 2 or 3")
        elif device == "cpu" and key == "offload_param" and stage != 3:
            problems.append("zero_optimization.offload_param: needs stage 3")
    return problems


def _without_auto(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without `"auto"`, and without nodes that contain nothing else."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if value == "auto":
            continue
        if isinstance(value, Mapping) and value:
            inner = _without_auto(value)
            if inner and not (key in ("fp16", "bf16", "amp") and inner.get("enabled") is False):
                kept[key] = inner
            continue
        kept[key] = value
    return kept
