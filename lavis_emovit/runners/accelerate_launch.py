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
# Stage, and the devices that hold the optimizer and the parameters -> the file here.
_FILES = {
    ("0", "none", "none"): "zero0",
    ("1", "none", "none"): "zero1",
    ("2", "none", "none"): "zero2",
    ("2", "cpu", "none"): "zero2_offload",
    ("3", "none", "none"): "zero3",
    ("3", "cpu", "cpu"): "zero3_offload",
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
        asked = {"engine": "deepspeed"}
        if "deepspeed_config" not in run:
            asked["deepspeed_config"] = _zero_file(environment, problems)
        if (engine := run.get("engine", "deepspeed")) != "deepspeed":
            problems.append(f"{place} asks for DeepSpeed, the recipe for run.engine={engine}; leave out one of the two")
        norm = environment.get("ACCELERATE_GRADIENT_CLIPPING", "none")
        try:
            asked |= {} if norm == "none" else {"max_grad_norm": float(norm)}
        except ValueError:
            problems.append(f"{place} clips gradients at '{norm}', which is no number; set run.max_grad_norm")
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


def _zero_file(environment: Mapping[str, str], problems: list[str]) -> str | None:
    """DeepSpeed's own file if accelerate has one, else ours for the same stage and offloading; None with a problem."""
    own = environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if own != "none":
        return own
    stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    optimizer, parameters = (environment.get(name, "none") for name in _OFFLOADS)
    if (name := _FILES.get((stage, optimizer, parameters))) is not None:
        return f"projects/emovit/deepspeed/{name}.json"
    problems.append(
        f"accelerate launch asks for ZeRO {stage} with the optimizer offloaded to {optimizer} and parameters to "
        f"{parameters}, for which there is no file in projects/emovit/deepspeed; give your own in "
        "--deepspeed_config_file, or set run.deepspeed_config"
    )
    return None
