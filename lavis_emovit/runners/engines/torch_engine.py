"""Plain torch on CPU or GPU: one process, or several that each hold the model and share a global batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from lavis_emovit.checkpoints.training_state import EngineState
from lavis_emovit.errors import DataError
from lavis_emovit.models.protocol import Batch, EmotionModel
from lavis_emovit.runners.engines.base import Engine, StepResult, T, is_empty
from lavis_emovit.runners.engines.sums import StepSums, broadcast_parameters, sum_gradients
from lavis_emovit.runners.optimizer import adamw_state, build_adamw, load_adamw_state
from lavis_emovit.runners.part_rates import Rates
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.tasks.base import EmotionTask


class TorchEngine(Engine):
    """Gradients of all ranks are summed once per step."""

    def __init__(self, model: EmotionModel, task: EmotionTask, settings: RunSettings):
        super().__init__(model, task, settings)
        model.to(self.device)
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        broadcast_parameters(self._parameters)
        self._optimizer = build_adamw(model.named_parameters(), settings, self.device, self._parts)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=settings.amp == "fp16")

    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float | Rates) -> StepResult:
        """Accumulate sums and divide once, so that any cut into micro-batches and ranks gives the mean over all."""
        self._set_rates(self._optimizer, learning_rate)
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
        applied = self._is_applied(loss, grad_norm)
        # With fp16, the scaler skips the step if a gradient overflowed, and lowers its scale.
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return StepResult(
            loss, facts.weight, grad_norm, applied, facts.noted, sums.sizes, facts.measures, sums.pair_values
        )

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

    def state(self) -> EngineState:
        state = adamw_state(self._optimizer, self.model.named_parameters())
        return EngineState(state.tensors, {**state.values, "scaler": self._scaler.state_dict()})

    def load_state(self, state: EngineState) -> None:
        load_adamw_state(self._optimizer, self.model.named_parameters(), state)
        if self._scaler.is_enabled() and state.values.get("scaler"):
            self._scaler.load_state_dict(state.values["scaler"])
