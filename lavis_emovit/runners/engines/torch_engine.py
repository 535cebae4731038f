"""Plain torch on CPU or GPU: one process, or several that each hold the model and share a global batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from lavis_emovit.checkpoints.training_state import EngineState
from lavis_emovit.distributed import processes
from lavis_emovit.distributed.devices import AMP_DTYPES, choose_device
from lavis_emovit.errors import DataError
from lavis_emovit.models.lengths import PassSizes, add_sizes
from lavis_emovit.runners.engines.base import Batch, NonFiniteError, StepResult, T, is_empty, to_device
from lavis_emovit.runners.engines.sums import StepFacts, broadcast_parameters, join_facts, sum_gradients
from lavis_emovit.runners.optimizer import adamw_state, build_adamw, load_adamw_state
from lavis_emovit.runners.settings import RunSettings

# A loss scale falls by half at every overflow: from 65536 it is at its useful end long before this many in a row.
MAX_SKIPPED_IN_A_ROW = 32


class TorchEngine:
    """See `lavis_emovit.runners.engines.base.Engine`."""

    def __init__(self, model: nn.Module, task: Any, settings: RunSettings):
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

    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """Accumulate sums over tokens, divide once: any cut into micro-batches and ranks gives the mean over all."""
        facts, sizes = self._accumulate(micro_batches)
        if facts.num_tokens == 0:
            raise DataError("a batch has no answer token to learn from")
        loss = facts.loss_sum / facts.num_tokens
        sum_gradients([parameter for parameter, there in zip(self._parameters, facts.present) if there])
        # From here on every rank has the same numbers, so all of them stop, skip or step.
        self._scaler.unscale_(self._optimizer)
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.div_(facts.num_tokens)
        max_norm = self._settings.max_grad_norm or math.inf
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, max_norm).item()
        applied = math.isfinite(grad_norm)
        self._skipped_in_a_row = 0 if applied else self._skipped_in_a_row + 1
        may_skip = self._scaler.is_enabled() and self._skipped_in_a_row <= MAX_SKIPPED_IN_A_ROW
        if not math.isfinite(loss) or not (applied or may_skip):
            raise NonFiniteError(f"loss is {loss:g} and the gradient's norm {grad_norm:g}")
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        # With fp16, the scaler leaves the step out where a gradient overflowed, and lowers its scale.
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return StepResult(
            loss=loss,
            num_tokens=facts.num_tokens,
            grad_norm=grad_norm,
            applied=applied,
            noted=facts.noted,
            sizes=sizes,
        )

    def _accumulate(self, micro_batches: Sequence[Batch]) -> tuple[StepFacts, PassSizes | None]:
        """Gradients and pass sizes of this rank's micro-batches, and the facts of all ranks'."""
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        num_tokens = 0
        noted: dict[str, list[str]] = {}
        sizes: PassSizes | None = None
        self._optimizer.zero_grad(set_to_none=True)
        for batch in micro_batches:
            if is_empty(batch):
                continue
            with self.autocast():
                sums = self._task.token_loss(self.model, self.to_device(batch))
            self._scaler.scale(sums.loss_sum).backward()
            # Read once, when all micro-batches are through: a GPU need not be waited for in between.
            loss_sum += sums.loss_sum.detach()
            num_tokens += sums.num_tokens
            sizes = add_sizes(sizes, sums.sizes)
            for name, instance_ids in sums.noted.items():
                noted.setdefault(name, []).extend(instance_ids)
        if self._scaler.is_enabled() and not num_tokens:
            self._scaler.scale(loss_sum)  # its scale comes into being with the first use
        present = [parameter.grad is not None for parameter in self._parameters]
        return join_facts(loss_sum, num_tokens, present, noted), sizes

    def run(self, function: Callable[[], T]) -> T:
        with torch.no_grad(), self.autocast():
            return function()

    def trained_state(self) -> dict[str, torch.Tensor]:
        return self.model.trained_state_dict()  # type: ignore[operator]

    def load_trained(self, state: Mapping[str, torch.Tensor]) -> None:
        self.model.load_trained_state_dict(state)  # type: ignore[operator]

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
        """Nothing is left behind on the model."""
