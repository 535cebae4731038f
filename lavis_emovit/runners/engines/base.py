"""The protocol between the runner and what carries out its steps.

The runner knows the data, the schedule, evaluation, saving and logs; an engine knows devices, precision, processes and
the optimizer. Everything that crosses the line is free of rank layout, so a run may change engine between two starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from lavis_emovit.errors import UserError
from lavis_emovit.runners.training_state import EngineState

Batch = Mapping[str, Any]


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
    """

    loss: float
    num_tokens: int
    grad_norm: float
    applied: bool = True
    noted: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Engine(Protocol):
    """One way of training: a process with a device, later several processes with or without sharded state."""

    rank: int
    world_size: int
    device: torch.device

    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """Gradients of all micro-batches of this rank, then one optimizer step over all ranks.

        Raises:
            NonFiniteError: before the weights are touched.
        """
        ...

    def to_device(self, batch: Batch) -> dict[str, Any]:
        """The batch with its tensors on the engine's device."""
        ...

    def autocast(self) -> Any:
        """Context in which forward passes run, in training and in evaluation."""
        ...

    def state(self) -> EngineState:
        """Optimizer state, by parameter name."""
        ...

    def load_state(self, state: EngineState) -> None:
        """Put back what `state` gave, here or on another engine."""
        ...
