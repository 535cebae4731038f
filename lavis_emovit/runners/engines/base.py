"""The base of the engines, and what they exchange with the runner.

The runner knows the data, the schedule, evaluation, saving and logs. The engine knows devices, precision, processes and
the optimizer. The state that they exchange does not depend on the number of ranks, so a resumed run may use another
engine.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch

from lavis_emovit.checkpoints.training_state import EngineState
from lavis_emovit.distributed import processes
from lavis_emovit.distributed.devices import AMP_DTYPES, choose_device
from lavis_emovit.errors import UserError
from lavis_emovit.models.lengths import PassSizes
from lavis_emovit.models.protocol import Batch, EmotionModel
from lavis_emovit.runners.optimizer import set_rates
from lavis_emovit.runners.part_rates import Rates, has_part_rates
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.tasks.base import EmotionTask, PairValues

T = TypeVar("T")

# A loss scale is halved at every overflow; from 65536 it is uselessly small long before this many in a row.
MAX_SKIPPED_IN_A_ROW = 32


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
        pair_values: `StepLoss.pair_values` of this rank's micro-batches.
    """

    loss: float
    weight: int
    grad_norm: float
    applied: bool = True
    noted: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sizes: PassSizes | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    pair_values: Sequence[PairValues] = ()


class Engine(ABC):
    """Runs the steps on one process or several, with whole or sharded state.

    All ranks call every method but `to_device` and `autocast` together, the same number of times.

    Attributes:
        rank, world_size: which process of how many.
        device: where this rank computes.
        in_step: whether all ranks must call `run` equally often, because each call gathers sharded weights.
    """

    in_step = False

    def __init__(self, model: EmotionModel, task: EmotionTask, settings: RunSettings):
        self.rank, self.world_size = processes.rank(), processes.world_size()
        self.device = choose_device(settings.device)
        self.model, self._task, self._settings = model, task, settings
        # The part of each trained parameter, if parts have learning rates of their own.
        self._parts = model.trained_parameter_parts() if has_part_rates(settings) else None
        self._resting: frozenset[str] = frozenset()
        self._skipped_in_a_row = 0

    def prepare(self, micro_batches: Sequence[Batch]) -> Sequence[Batch]:
        """The micro-batches of a step as the task's `prepare_step` returns them."""
        if not self._task.prepares_steps:
            return micro_batches
        batches = [self.to_device(batch) for batch in micro_batches]
        return self.run(partial(self._task.prepare_step, self.model, batches))

    @abstractmethod
    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float | Rates) -> StepResult:
        """Gradients of all micro-batches of this rank, then one optimizer step over all ranks.

        Ranks have the same number of micro-batches; some may be empty. The result is the same on all ranks. Parts
        without a learning rate rest: they compute and stay as if they were frozen.

        Raises:
            NonFiniteError: on all ranks, before the weights change.
        """

    @abstractmethod
    def run(self, function: Callable[[], T]) -> T:
        """Call a function that uses the model without gradients, with autocast and all weights available."""

    def to_device(self, batch: Batch) -> dict[str, Any]:
        """The batch with its tensors on the engine's device."""
        return {
            key: value.to(self.device, non_blocking=True) if hasattr(value, "to") else value
            for key, value in batch.items()
        }

    def autocast(self) -> Any:
        """Context in which forward passes run, in training and in evaluation."""
        dtype = AMP_DTYPES.get(self._settings.amp)
        return torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext()

    @abstractmethod
    def trained_state(self) -> dict[str, torch.Tensor]:
        """The whole trained tensors, by the model's names; may be empty on ranks other than 0."""

    @abstractmethod
    def load_trained(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what `trained_state` returned on rank 0; every rank passes all of it."""

    @abstractmethod
    def state(self) -> EngineState:
        """Optimizer state, by parameter name; may lack its tensors on ranks other than 0."""

    @abstractmethod
    def load_state(self, state: EngineState) -> None:
        """Restore what `state` returned, here or on another engine."""

    def close(self) -> None:  # noqa: B027, not every engine has hooks
        """Remove the engine's hooks from the model, if any; nothing can be trained afterwards."""

    def _set_rates(self, optimizer: torch.optim.Optimizer, learning_rate: float | Rates) -> None:
        """Before the forward pass, because parts that rest need no gradient."""
        resting = set_rates(optimizer, learning_rate)
        if resting != self._resting:
            self.model.rest(resting)
            self._resting = resting

    def _is_applied(self, loss: float, grad_norm: float) -> bool:
        """Whether the optimizer updates the weights: a step whose fp16 gradients overflow is skipped."""
        applied = math.isfinite(grad_norm)
        self._skipped_in_a_row = 0 if applied else self._skipped_in_a_row + 1
        may_skip = self._settings.amp == "fp16" and self._skipped_in_a_row <= MAX_SKIPPED_IN_A_ROW
        if not math.isfinite(loss) or not (applied or may_skip):
            raise NonFiniteError(f"loss is {loss:g} and the gradient's norm {grad_norm:g}")
        return applied


def is_empty(batch: Batch) -> bool:
    """Whether a micro-batch has no samples, because the last step of an epoch is too short for all ranks."""
    return not batch.get("record_id", True)
