"""What `accelerate launch` asks of a run, by environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What accelerate calls other ways to spread a model, by the variable that asks for it.
_OTHERS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}
_OFFLOADS = ("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE")


def with_accelerate(run: Mapping[str, Any], environment: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    """The `run` node of a recipe, with what the launch asks for in keys that the recipe leaves out.

    Args:
        problems: gets what a run cannot do.
    """
    asked: dict[str, Any] = {}
    place = "accelerate launch"
    for variable, name in _OTHERS.items():
        if environment.get(variable, "").lower() == "true":
            problems.append(
                f"{place} asks for {name}; models are spread by ZeRO here: accelerate launch --use_deepspeed"
            )
    if environment.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        asked = {"engine": "deepspeed", "deepspeed_config": _zero_file(environment)}
        if (engine := run.get("engine", "deepspeed")) != "deepspeed":
            problems.append(f"{place} asks for DeepSpeed, the recipe for run.engine={engine}; leave out one of the two")
        if (norm := environment.get("ACCELERATE_GRADIENT_CLIPPING", "none")) != "none":
            asked["max_grad_norm"] = float(norm)
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision in ("bf16", "fp16"):
        asked["amp"] = precision
    elif precision != "no":
        problems.append(f"{place} asks for mixed precision in {precision}; choose bf16, fp16 or no")
    if environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") not in ("1", "auto"):
        problems.append(
            f"{place} asks for gradient accumulation; run.global_batch_size and run.micro_batch_size decide that here"
        )
    return {**asked, **run}


def _zero_file(environment: Mapping[str, str]) -> str:
    """DeepSpeed's own file if accelerate has one, else ours of the same stage."""
    own = environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if own != "none":
        return own
    stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    offloads = any(environment.get(name, "none") != "none" for name in _OFFLOADS)
    return f"projects/emovit/deepspeed/zero{f'{max(2, int(stage))}_offload' if offloads else stage}.json"
