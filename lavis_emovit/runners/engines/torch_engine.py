"""Plain torch on CPU or GPU: one process, or several that each hold the model and share a global batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from lavis_emovit.checkpoints.training_state import EngineState
from lavis_emovit.distributed import processes
from lavis_emovit.distributed.devices import AMP_DTYPES, choose_device
from lavis_emovit.errors import DataError
from lavis_emovit.models.protocol import Batch, EmotionModel
from lavis_emovit.runners.engines.base import NonFiniteError, StepResult, T, is_empty, to_device
from lavis_emovit.runners.engines.sums import StepSums, broadcast_parameters, sum_gradients
from lavis_emovit.runners.optimizer import adamw_state, build_adamw, load_adamw_state
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.tasks.base import EmotionTask

# A loss scale is halved at every overflow; from 65536 it is uselessly small long before this many in a row.
MAX_SKIPPED_IN_A_ROW = 32


class TorchEngine:
    """See `lavis_emovit.runners.engines.base.Engine`."""

    def __init__(self, model: EmotionModel, task: EmotionTask, settings: RunSettings):
        self.rank, self.world_size = processes.rank(), processes.world_size()
        self.in_step = False
        self.device = choose_device(settings.device)
        self.model = model.to(self.device)
        self._task = task
        self._settings = settings
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        broadcast_parameters(self._parameters)
        self._optimizer = build_adamw(model.named_parameters(), settings, self.device)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=settings.amp == "fp16")
        self._skipped_in_a_row = 0

    def prepare(self, micro_batches: Sequence[Batch]) -> Sequence[Batch]:
        if not self._task.prepares_steps:
            return micro_batches
        batches = [self.to_device(batch) for batch in micro_batches]
        return self.run(partial(self._task.prepare_step, self.model, batches))

    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """Accumulate sums and divide once, so that any cut into micro-batches and ranks gives the mean over all."""
        sums = self._accumulate(micro_batches)
        facts = sums.joined([parameter.grad is not None for parameter in self._parameters])
        if facts.weight == 0:
            raise DataError("a batch has no answer token to learn from")
        loss = facts.loss_sum / facts.weight
        sum_gradients([parameter for parameter, present in zip(self._parameters, facts.present) if present])
        # From here on all ranks have the same numbers, so all of them stop, skip or step.
        self._scaler.unscale_(self._optimizer)
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.div_(facts.weight)
        max_norm = self._settings.max_grad_norm or math.inf
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, max_norm).item()
        applied = math.isfinite(grad_norm)
        self._skipped_in_a_row = 0 if applied else self._skipped_in_a_row + 1
        may_skip = self._scaler.is_enabled() and self._skipped_in_a_row <= MAX_SKIPPED_IN_A_ROW
        if not math.isfinite(loss) or not (applied or may_skip):
            raise NonFiniteError(f"loss is {loss:g} and the gradient's norm {grad_norm:g}")
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        # With fp16, the scaler skips the step if a gradient overflowed, and lowers its scale.
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return StepResult(loss, facts.weight, grad_norm, applied, facts.noted, sums.sizes, facts.measures)

    def _accumulate(self, micro_batches: Sequence[Batch]) -> StepSums:
        """Run this rank's micro-batches forward and backward."""
        sums = StepSums(self.device, self._task.measure_names)
        self._optimizer.zero_grad(set_to_none=True)
        for batch in micro_batches:
            if is_empty(batch):
                continue
            with self.autocast():
                loss = self._task.step_loss(self.model, self.to_device(batch))
            self._scaler.scale(loss.loss_sum).backward()
            sums.add(loss)
        if self._scaler.is_enabled() and not sums.weight:
            self._scaler.scale(sums.loss_sum)  # creates the scale, which `unscale_` needs
        return sums

    def run(self, function: Callable[[], T]) -> T:
        with torch.no_grad(), self.autocast():
            return function()

    def trained_state(self) -> dict[str, torch.Tensor]:
        return self.model.trained_state_dict()

    def load_trained(self, state: Mapping[str, torch.Tensor]) -> None:
        self.model.load_trained_state_dict(state)

    def to_device(self, batch: Batch) -> dict[str, Any]:
        return to_device(batch, self.device)

    def autocast(self) -> Any:
        dtype = AMP_DTYPES.get(self._settings.amp)
        return torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext()

    def state(self) -> EngineState:
        state = adamw_state(self._optimizer, self.model.named_parameters())
        return EngineState(state.tensors, {**state.values, "scaler": self._scaler.state_dict()})

    def load_state(self, state: EngineState) -> None:
        load_adamw_state(self._optimizer, self.model.named_parameters(), state)
        if self._scaler.is_enabled() and state.values.get("scaler"):
            self._scaler.load_state_dict(state.values["scaler"])

    def close(self) -> None:
        """This engine has no hooks on the model."""
