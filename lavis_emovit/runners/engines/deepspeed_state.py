"""AdamW's state in and out of DeepSpeed's partitions, by parameter name.

Stages 1 and 2 keep the state of one flat vector a group of parameters and rank, stage 3 of one flat vector a sub-group.
DeepSpeed maps a parameter to its piece of them. Whole tensors by name are what goes into a checkpoint, so the stage and
the number of ranks may change between two starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lavis_emovit.checkpoints.training_state import EngineState
from lavis_emovit.distributed import processes
from lavis_emovit.errors import WeightsError

_MOMENTS = ("exp_avg", "exp_avg_sq")


def partitioned_state(optimizer: Any, trained: dict[str, nn.Parameter]) -> EngineState:
    """Moments and step counts of a ZeRO optimizer; all ranks call it, the tensors come on rank 0 alone.

    Args:
        optimizer: DeepSpeed's wrapper of stage 1, 2 or 3.
        trained: name -> parameter, those that learn.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    steps = {int(state["step"]) for state in _flat_states(optimizer)}
    if not steps:
        return EngineState({}, {"adamw_steps": {}})
    (step,) = steps  # ZeRO steps all of its vectors or none
    _map_parameters(optimizer)
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trained.items():
        for moment in _MOMENTS:
            whole = safe_get_full_optimizer_state(parameter, moment)
            if processes.is_main():
                tensors[f"{moment}.{name}"] = whole.detach().cpu()
    return EngineState(tensors, {"adamw_steps": dict.fromkeys(trained, step)})


def load_partitioned_state(optimizer: Any, trained: dict[str, nn.Parameter], saved: EngineState) -> None:
    """Put back what `partitioned_state`, or another engine, gave; every rank has it whole.

    Raises:
        WeightsError: the state is of a model with other trained parameters, or some have done more steps than others,
            which one count for a whole vector cannot hold.
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
        for moment in _MOMENTS:
            _put(optimizer, parameter, saved.tensors[f"{moment}.{name}"], moment)


def _put(optimizer: Any, parameter: nn.Parameter, value: torch.Tensor, moment: str) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if not hasattr(parameter, "ds_id"):
        safe_set_full_optimizer_state(parameter, value.float(), moment)
        return
    # Stage 3 pads a parameter so that all ranks have pieces of one size.
    size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
    padded = torch.zeros(size * processes.world_size())
    padded[: value.numel()] = value.flatten().float()
    piece = padded.narrow(0, size * processes.rank(), size)
    safe_set_local_optimizer_state(parameter, piece, moment)


def _make_states(optimizer: Any, step: int) -> None:
    """The state that AdamW makes at its first step, with a count of its own, ready to be filled."""
    inner = optimizer.optimizer
    for vector in _flat_vectors(optimizer):
        state = inner.state[vector]
        if "exp_avg" not in state:
            state |= {moment: torch.zeros_like(vector.detach()) for moment in _MOMENTS}
        counts = state.get("step")
        if isinstance(counts, int) or type(inner).__name__ == "DeepSpeedCPUAdam":
            state["step"] = step
        else:
            on_device = inner.defaults.get("fused") or inner.defaults.get("capturable")
            state["step"] = torch.tensor(float(step), device=vector.device if on_device else None)
    _map_parameters(optimizer)


def _map_parameters(optimizer: Any) -> None:
    """Let stages 1 and 2 find each parameter's piece of the state.

    DeepSpeed does this once, when its first group has been stepped and the others have no state yet; so it is done
    again when all have.
    """
    if hasattr(optimizer, "_lazy_init_hp_params_optimizer_state"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def _flat_vectors(optimizer: Any) -> list[torch.Tensor]:
    """The vectors that the inner optimizer steps, of this rank."""
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
        raise WeightsError(f"the checkpoint has optimizer state for '{unknown[0]}', which does not learn in this model")
    behind = [name for name in trained if steps.get(name) != max(steps.values())]
    if behind:
        raise WeightsError(
            f"'{behind[0]}' has done {steps.get(behind[0], 0)} optimizer steps, others {max(steps.values())}; "
            "DeepSpeed counts for all at once. Go on with run.engine=torch."
        )
    for name, parameter in trained.items():
        shape = getattr(parameter, "ds_shape", parameter.shape)
        for moment in _MOMENTS:
            value = saved.tensors[f"{moment}.{name}"]
            if value.shape != shape:
                raise WeightsError(
                    f"optimizer state {moment} of '{name}': shape {list(value.shape)}, expected {list(shape)}"
                )
