"""The state of AdamW in DeepSpeed's partitions, by parameter name.

Stages 1 and 2 keep the state as one flat vector per parameter group and rank, stage 3 as one per sub-group. A vector
has one count of steps; with learning rates by part, parts have groups of their own. Checkpoints have whole tensors by
name, so a resumed run may use another stage and another number of ranks.
"""

from __future__ import annotations

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

    counts = {
        id(parameter): int(state["step"])
        for vector, parameters in _flat_vectors(optimizer)
        if (state := optimizer.optimizer.state.get(vector))
        for parameter in parameters
    }
    steps = {name: counts[id(parameter)] for name, parameter in trained.items() if id(parameter) in counts}
    if steps:
        _map_parameters(optimizer)
    tensors: dict[str, torch.Tensor] = {}
    for name in steps:
        parameter = trained[name]
        # Stage 3 has no answer about a parameter without a gradient, such as that of a part that rests.
        learns = parameter.requires_grad
        parameter.requires_grad_(True)
        for moment in MOMENTS:
            whole = safe_get_full_optimizer_state(parameter, moment)
            if processes.is_main():
                tensors[f"{moment}.{name}"] = whole.detach().cpu()
        parameter.requires_grad_(learns)
    return EngineState(tensors, {"adamw_steps": steps})


def load_partitioned_state(optimizer: Any, trained: dict[str, nn.Parameter], saved: EngineState) -> None:
    """Restore what `partitioned_state` or another engine returned; every rank passes all of it.

    WeightsError if other parameters are trained, or those of a vector differ in their number of steps.
    """
    steps = saved.values["adamw_steps"]
    _check(optimizer, trained, saved)
    names = {id(parameter): name for name, parameter in trained.items()}
    for vector, parameters in _flat_vectors(optimizer):
        step = steps.get(names[id(parameters[0])])
        if step is None:
            optimizer.optimizer.state.pop(vector, None)
        else:
            _make_state(optimizer, vector, step)
    if steps:
        _map_parameters(optimizer)
    for name in steps:
        for moment in MOMENTS:
            _set(trained[name], saved.tensors[f"{moment}.{name}"], moment)


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


def _make_state(optimizer: Any, vector: torch.Tensor, step: int) -> None:
    """Create the state that AdamW creates at its first step."""
    inner = optimizer.optimizer
    state = inner.state[vector]
    if "exp_avg" not in state:
        state |= {moment: torch.zeros_like(vector.detach()) for moment in MOMENTS}
    counts = state.get("step")
    if isinstance(counts, int) or type(inner).__name__ == "DeepSpeedCPUAdam":
        state["step"] = step
    else:
        on_device = inner.defaults.get("fused") or inner.defaults.get("capturable")
        state["step"] = torch.tensor(float(step), device=vector.device if on_device else None)


def _map_parameters(optimizer: Any) -> None:
    """Let stages 1 and 2 find the state of each parameter.

    DeepSpeed does this once, after the step of its first group, when the other groups have no state yet.
    """
    if hasattr(optimizer, "_lazy_init_hp_params_optimizer_state"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def _flat_vectors(optimizer: Any) -> list[tuple[torch.Tensor, list[nn.Parameter]]]:
    """The vectors of this rank that the inner optimizer updates, each with the parameters that it has pieces of."""
    vectors = getattr(optimizer, "single_partition_of_fp32_groups", None)
    if vectors is not None:
        return list(zip(vectors, optimizer.bit16_groups, strict=True))
    return list(zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True))


def _check(optimizer: Any, trained: dict[str, nn.Parameter], saved: EngineState) -> None:
    steps = saved.values["adamw_steps"]
    unknown = [name for name in steps if name not in trained]
    if unknown:
        raise WeightsError(f"the checkpoint has optimizer state for '{unknown[0]}', which is not trained in this model")
    names = {id(parameter): name for name, parameter in trained.items()}
    for _, parameters in _flat_vectors(optimizer):
        counts = {steps.get(name, 0): name for name in (names[id(parameter)] for parameter in parameters)}
        if len(counts) > 1:
            raise WeightsError(
                f"'{counts[min(counts)]}' has done {min(counts)} optimizer steps, others {max(counts)}, but DeepSpeed "
                "has one count for both. Resume with run.engine=torch."
            )
    for name in steps:
        parameter = trained[name]
        moments_of(saved, name, getattr(parameter, "ds_shape", parameter.shape))
