"""DeepSpeed's JSON: what the recipe decides, what the file may say, and the two put together.

A recipe says what a run computes, the file how its state is spread over the processes. So batch sizes, optimizer,
clipping and precision are the recipe's alone; a file that gives one of them a value of its own is refused. `"auto"`,
which other programs fill in, counts as not said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lavis_emovit.errors import ConfigError
from lavis_emovit.paths import find_recipe
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import nearest_name

# Key of DeepSpeed -> where the recipe says it.
DECIDED_BY_RECIPE = {
    "train_batch_size": "run.global_batch_size",
    "train_micro_batch_size_per_gpu": "run.micro_batch_size",
    "gradient_accumulation_steps": "run.global_batch_size and run.micro_batch_size",
    "managed_gradient_accumulation": "run.global_batch_size and run.micro_batch_size",
    "optimizer": "run.init_lr, run.weight_decay, run.beta1, run.beta2 and run.adam_epsilon",
    "scheduler": "run.lr_sched and the keys beside it",
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
    "zero_force_ds_cpu_optimizer": "whether DeepSpeed's optimizer for CPUs can be built",
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
    """Read a file and check it against what the recipe decides.

    Args:
        location: the file, or `projects/emovit/deepspeed/...` for one that ships with the package.

    Returns:
        what the file says, without `"auto"`.

    Raises:
        ConfigError: everything that is wrong with it.
    """
    path = find_recipe(location)
    if path is None:
        raise ConfigError([f"run.deepspeed_config: no file {location}"])
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"run.deepspeed_config: {path} is no JSON that can be read: {error}"]) from None
    if not isinstance(values, dict):
        raise ConfigError([f"run.deepspeed_config: {path}: expected an object with the key zero_optimization"])
    said = _without_auto(values)
    problems = [
        f"{key}: the recipe decides it with {DECIDED_BY_RECIPE[key]}; take it out of the file"
        for key in said
        if key in DECIDED_BY_RECIPE
    ]
    problems += [
        f"{key}: not a key that can be set here{nearest_name(key, list(ALLOWED))}"
        for key in said
        if key not in DECIDED_BY_RECIPE and key not in ALLOWED
    ]
    problems += _zero_problems(said.get("zero_optimization"))
    if problems:
        raise ConfigError(problems, str(path))
    return said


def full_config(said: Mapping[str, Any], settings: RunSettings, world_size: int) -> dict[str, Any]:
    """The configuration that DeepSpeed gets.

    DeepSpeed stays in float32, so that it keeps the weights in the types that they have: what is frozen may be in half
    precision, what learns is float32, and autocast is the engine's. The engine tells it which micro-batch is a step's
    last, so its own counts of batches mean nothing.
    """
    zero = dict(said["zero_optimization"])
    return {
        "steps_per_print": _NEVER,
        **said,
        "zero_optimization": zero,
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Without ZeRO the engine clips, since it has to see the norm before the step.
        "gradient_clipping": (settings.max_grad_norm or 0.0) if zero["stage"] else 0.0,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }


def offloads_optimizer(said: Mapping[str, Any]) -> bool:
    """Whether the optimizer's state and step are on the CPU."""
    device = (said["zero_optimization"].get("offload_optimizer") or {}).get("device", "none")
    return device == "cpu"


def _zero_problems(zero: Any) -> list[str]:
    if not isinstance(zero, Mapping):
        return ['zero_optimization: missing; the least is {"zero_optimization": {"stage": 2}}']
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
    """The values without `"auto"`, and without nodes in which nothing else stood."""
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
