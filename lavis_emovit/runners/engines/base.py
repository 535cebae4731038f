"""The protocol between the runner and its engines.

The runner knows the data, the schedule, evaluation, saving and logs. The engine knows devices, precision, processes and
the optimizer. The state that they exchange does not depend on the number of ranks, so a resumed run may use another
engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

from lavis_emovit.checkpoints.training_state import EngineState
from lavis_emovit.errors import UserError
from lavis_emovit.models.lengths import PassSizes
from lavis_emovit.models.protocol import Batch

T = TypeVar("T")


class NonFiniteError(UserError):
    """Loss or gradient norm is NaN or infinite; raised before the optimizer changes the weights."""


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step measured.

    Attributes:
        loss: sum of the global batch's losses over `weight`; for answers the mean over their tokens (natural log).
        weight: sum of `StepLoss.weight` over the global batch.
        grad_norm: norm of the gradient of that loss, before clipping.
        applied: False if fp16 gradients overflowed, so that the step was skipped to lower the loss scale.
        noted: name of a count -> instance ids of the pairs that it counts, such as `num_truncated_answers`.
        sizes: what the forward passes of this rank ran over, or None if the model does not measure it.
        measures: `StepLoss.measures`, summed over the global batch.
    """

    loss: float
    weight: int
    grad_norm: float
    applied: bool = True
    noted: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sizes: PassSizes | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """Runs the steps on one process or several, with whole or sharded state.

    All ranks call every method but `to_device` and `autocast` together, the same number of times.

    Attributes:
        rank, world_size: which process of how many.
        device: where this rank computes.
        in_step: whether all ranks must call `run` equally often, because each call gathers sharded weights.
    """

    rank: int
    world_size: int
    device: torch.device
    in_step: bool

    def prepare(self, micro_batches: Sequence[Batch]) -> Sequence[Batch]:
        """The micro-batches of a step as the task's `prepare_step` returns them."""
        ...

    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """Gradients of all micro-batches of this rank, then one optimizer step over all ranks.

        Ranks have the same number of micro-batches; some may be empty. The result is the same on all ranks.

        Raises:
            NonFiniteError: on all ranks, before the weights change.
        """
        ...

    def run(self, function: Callable[[], T]) -> T:
        """Call a function that uses the model without gradients, with autocast and all weights available."""
        ...

    def to_device(self, batch: Batch) -> dict[str, Any]:
        """The batch with its tensors on the engine's device."""
        ...

    def autocast(self) -> Any:
        """Context in which forward passes run, in training and in evaluation."""
        ...

    def trained_state(self) -> dict[str, torch.Tensor]:
        """The whole trained tensors, by the model's names; may be empty on ranks other than 0."""
        ...

    def load_trained(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what `trained_state` returned on rank 0; every rank passes all of it."""
        ...

    def state(self) -> EngineState:
        """Optimizer state, by parameter name; may lack its tensors on ranks other than 0."""
        ...

    def load_state(self, state: EngineState) -> None:
        """Restore what `state` returned, here or on another engine."""
        ...

    def close(self) -> None:
        """Remove the engine's hooks from the model; nothing can be trained afterwards."""
        ...


def is_empty(batch: Batch) -> bool:
    """Whether a micro-batch has no samples, because the last step of an epoch is too short for all ranks."""
    return not batch.get("record_id", True)


def to_device(batch: Batch, device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on a device."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }
