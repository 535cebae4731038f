"""The protocol between the runner and what carries out its steps.

The runner knows the data, the schedule, evaluation, saving and logs; an engine knows devices, precision, processes and
the optimizer. Everything that crosses the line is free of rank layout, so a run may change engine between two starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

from lavis_emovit.checkpoints.training_state import EngineState
from lavis_emovit.errors import UserError
from lavis_emovit.models.lengths import PassSizes

Batch = Mapping[str, Any]
T = TypeVar("T")


class NonFiniteError(UserError):
    """Loss or gradient norm is NaN or infinite; raised before the optimizer could spread it into the weights."""


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step measured.

    Attributes:
        loss: mean over the answer tokens of the global batch (natural log).
        num_tokens: answer tokens of the global batch.
        grad_norm: norm of the gradient of that loss, before clipping.
        applied: False where fp16 gradients overflowed and the step was left out to lower the loss scale.
        noted: name of a count -> instance ids of the pairs that it counts, such as `num_truncated_answers`.
        sizes: what the forward passes of this rank ran over, or None if the model does not measure it.
    """

    loss: float
    num_tokens: int
    grad_norm: float
    applied: bool = True
    noted: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sizes: PassSizes | None = None


class Engine(Protocol):
    """One way of training: on one process or several, with whole or sharded state.

    Every method but `to_device` and `autocast` is called by all ranks together, the same number of times.

    Attributes:
        rank, world_size: which process of how many.
        device: where this rank computes.
        in_step: whether `run` has to be called equally often by all ranks, since each call fetches sharded weights.
    """

    rank: int
    world_size: int
    device: torch.device
    in_step: bool

    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """Gradients of all micro-batches of this rank, then one optimizer step over all ranks.

        Ranks have the same number of micro-batches; some may be empty. The result is the same on all ranks.

        Raises:
            NonFiniteError: on all ranks, before the weights are touched.
        """
        ...

    def run(self, function: Callable[[], T]) -> T:
        """Call something that uses the model without learning, with autocast and with weights at hand."""
        ...

    def to_device(self, batch: Batch) -> dict[str, Any]:
        """The batch with its tensors on the engine's device."""
        ...

    def autocast(self) -> Any:
        """Context in which forward passes run, in training and in evaluation."""
        ...

    def trained_state(self) -> dict[str, torch.Tensor]:
        """The tensors that learn, whole, by the model's names; on ranks other than 0 it may be empty."""
        ...

    def load_trained(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back what `trained_state` gave on rank 0; every rank has it whole."""
        ...

    def state(self) -> EngineState:
        """Optimizer state, by parameter name; on ranks other than 0 its tensors may be left out."""
        ...

    def load_state(self, state: EngineState) -> None:
        """Put back what `state` gave, here or on another engine."""
        ...

    def close(self) -> None:
        """Take what the engine has put onto the model off again; nothing is trained afterwards."""
        ...


def is_empty(batch: Batch) -> bool:
    """Whether a micro-batch holds no sample: a rank's share where the last step of an epoch does not go round."""
    return not batch.get("record_id", True)


def to_device(batch: Batch, device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on a device."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }
