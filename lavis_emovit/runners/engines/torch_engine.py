"""One process, CPU or GPU, plain torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.runners.engines.base import Batch, NonFiniteError, StepResult
from lavis_emovit.runners.optimizer import adamw_state, build_adamw, load_adamw_state
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.runners.training_state import EngineState

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

# A loss scale falls by half at every overflow: from 65536 it is at its useful end long before this many in a row.
MAX_SKIPPED_IN_A_ROW = 32


class TorchEngine:
    """See `lavis_emovit.runners.engines.base.Engine`."""

    def __init__(self, model: nn.Module, task: Any, settings: RunSettings):
        self.rank, self.world_size = 0, 1
        self.device = choose_device(settings.device)
        self.model = model.to(self.device)
        self._task = task
        self._settings = settings
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = build_adamw(model.named_parameters(), settings)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=settings.amp == "fp16")
        self._skipped_in_a_row = 0

    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """Accumulate sums over tokens, divide once: any cut into micro-batches gives the mean over all tokens."""
        loss_sum, num_tokens = 0.0, 0
        noted: dict[str, list[str]] = {}
        self._optimizer.zero_grad(set_to_none=True)
        for batch in micro_batches:
            with self.autocast():
                sums = self._task.token_loss(self.model, self.to_device(batch))
            self._scaler.scale(sums.loss_sum).backward()
            loss_sum += sums.loss_sum.item()
            num_tokens += sums.num_tokens
            for name, instance_ids in sums.noted.items():
                noted.setdefault(name, []).extend(instance_ids)
        if num_tokens == 0:
            raise DataError("a batch has no answer token to learn from")
        loss = loss_sum / num_tokens
        self._scaler.unscale_(self._optimizer)
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.div_(num_tokens)
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
        return StepResult(loss=loss, num_tokens=num_tokens, grad_norm=grad_norm, applied=applied, noted=noted)

    def to_device(self, batch: Batch) -> dict[str, Any]:
        return {
            key: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }

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


def choose_device(name: str) -> torch.device:
    """The device of a setting; `auto` takes the GPU where there is one.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        found = torch.cuda.device_count()
        raise ConfigError([f"run.device: {name} is asked for, torch sees {found} GPUs; set run.device=cpu or auto"])
    return device
