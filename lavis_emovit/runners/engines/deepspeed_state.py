"""The state of AdamW in DeepSpeed's partitions, by parameter name.

Stages 1 and 2 keep the state as one flat vector per parameter group and rank, stage 3 as one per sub-group. Checkpoints
have whole tensors by name, so a resumed run may use another stage and another number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lavis_emovit.checkpoints.training_state import EngineState
from lavis_emovit.distributed import processes
from lavis_emovit.errors import WeightsError
from lavis_emovit.runners.optimizer import MOMENTS, moments_of


def partitioned_state(optimizer: Any, trained: dict[str, nn.Parameter]) -> EngineState:
    """Moments and step counts of a ZeRO optimizer of DeepSpeed; all ranks call it, only rank 0 gets the tensors."""
    from deepspeed.utils import safe_get_full_optimizer_state

    steps = {int(state["step"]) for state in _flat_states(optimizer)}
    if not steps:
        return EngineState({}, {"adamw_steps": {}})
    (step,) = steps  # ZeRO steps all of its vectors or none
    _map_parameters(optimizer)
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trained.items():
        for moment in MOMENTS:
            whole = safe_get_full_optimizer_state(parameter, moment)
            if processes.is_main():
                tensors[f"{moment}.{name}"] = whole.detach().cpu()
    return EngineState(tensors, {"adamw_steps": dict.fromkeys(trained, step)})


def load_partitioned_state(optimizer: Any, trained: dict[str, nn.Parameter], saved: EngineState) -> None:
    """Restore what `partitioned_state` or another engine returned; every rank passes all of it.

    WeightsError if other parameters are trained or differ in their number of steps, which DeepSpeed cannot represent.
    """
    steps = saved.values["adamw_steps"]
    if not steps:
        for vector in _flat_vectors(optimizer):
            optimizer.optimizer.state.pop(vector, None)
        return
    _check(trained, saved)
    step = next(iter(steps.values()))
    _make_states(optimizer, step)
    for name, parameter in trained.items():
        for moment in MOMENTS:
            _set(parameter, saved.tensors[f"{moment}.{name}"], moment)


def _set(parameter: nn.Parameter, value: torch.Tensor, moment: str) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if not hasattr(parameter, "ds_id"):
        safe_set_full_optimizer_state(parameter, value.float(), moment)
        return
    # Stage 3 pads a parameter so that the pieces of all ranks have the same size.
    size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
    padded = torch.zeros(size * processes.world_size())
    padded[: value.numel()] = value.flatten().float()
    piece = padded.narrow(0, size * processes.rank(), size)
    safe_set_local_optimizer_state(parameter, piece, moment)


def _make_states(optimizer: Any, step: int) -> None:
    """Create the state that AdamW creates at its first step."""
    inner = optimizer.optimizer
    for vector in _flat_vectors(optimizer):
        state = inner.state[vector]
        if "exp_avg" not in state:
            state |= {moment: torch.zeros_like(vector.detach()) for moment in MOMENTS}
        counts = state.get("step")
        if isinstance(counts, int) or type(inner).__name__ == "DeepSpeedCPUAdam":
            state["step"] = step
        else:
            on_device = inner.defaults.get("fused") or inner.defaults.get("capturable")
            state["step"] = torch.tensor(float(step), device=vector.device if on_device else None)
    _map_parameters(optimizer)


def _map_parameters(optimizer: Any) -> None:
    """Let stages 1 and 2 find the state of each parameter.

    DeepSpeed does this once, after the step of its first group, when the other groups have no state yet.
    """
    if hasattr(optimizer, "_lazy_init_hp_params_optimizer_state"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def _flat_vectors(optimizer: Any) -> list[torch.Tensor]:
    """The vectors of this rank that the inner optimizer updates."""
    vectors = getattr(optimizer, "single_partition_of_fp32_groups", None)
    return list(vectors if vectors is not None else optimizer.fp32_partitioned_groups_flat)


def _flat_states(optimizer: Any) -> Iterator[dict[str, Any]]:
    for vector in _flat_vectors(optimizer):
        state = optimizer.optimizer.state.get(vector)
        if state:
            yield state


def _check(trained: dict[str, nn.Parameter], saved: EngineState) -> None:
    steps = saved.values["adamw_steps"]
    unknown = [name for name in steps if name not in trained]
    if unknown:
        raise WeightsError(f"the checkpoint has optimizer state for '{unknown[0]}', which is not trained in this model")
    behind = [name for name in trained if steps.get(name) != max(steps.values())]
    if behind:
        raise WeightsError(
            f"'{behind[0]}' has done {steps.get(behind[0], 0)} optimizer steps, others {max(steps.values())}, but "
            "DeepSpeed has one count for all parameters. Resume with run.engine=torch."
        )
    for name, parameter in trained.items():
        moments_of(saved, name, getattr(parameter, "ds_shape", parameter.shape))
