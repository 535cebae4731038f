"""DeepSpeed: optimizer state, gradients and weights partitioned over the ranks (ZeRO stages 0 to 3)."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from lavis_emovit.checkpoints.training_state import EngineState
from lavis_emovit.distributed import processes
from lavis_emovit.errors import ConfigError, DataError, first_line
from lavis_emovit.models.mapped_files import MappedFiles
from lavis_emovit.models.protocol import Batch, EmotionModel
from lavis_emovit.runners.engines.base import Engine, NonFiniteError, StepResult, T, is_empty
from lavis_emovit.runners.engines.deepspeed_config import full_config, offloads_optimizer, read_deepspeed_config
from lavis_emovit.runners.engines.deepspeed_state import load_partitioned_state, partitioned_state
from lavis_emovit.runners.engines.loss_scale import LossScale
from lavis_emovit.runners.engines.sums import StepSums, broadcast_parameters
from lavis_emovit.runners.optimizer import adamw_state, build_adamw, load_adamw_state, skip_resting
from lavis_emovit.runners.part_rates import Rates
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.tasks.base import EmotionTask

logger = logging.getLogger(__name__)

INSTALL_LINE = "pip install 'lavis-emovit[deepspeed]'"


class DeepSpeedEngine(Engine):
    """DeepSpeed averages gradients over ranks.

    The gradient of a step is the mean over the global batch, so the weight of the global batch is counted before the
    first forward pass, and each summed loss is multiplied by ranks / weight.
    """

    def __init__(self, model: EmotionModel, task: EmotionTask, settings: RunSettings):
        super().__init__(model, task, settings)
        deepspeed = load_deepspeed(self.device)
        content = read_deepspeed_config(settings.deepspeed_config)
        self.stage: int = content["zero_optimization"]["stage"]
        self.in_step = self.stage == 3 and self.world_size > 1
        self._check_model()
        self._scale = LossScale(enabled=settings.amp == "fp16")
        config = full_config(content, settings, self.world_size)
        self._root = root = _Root(cast(nn.Module, model))
        # By name; a part that rests has parameters without a gradient.
        self._trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        # Before partitioning, because weight decay depends on the shapes.
        optimizer = self._build_optimizer(content)
        if self.stage == 3:
            # Weights leave their files and move to the device one by one, so the whole model need not fit there.
            deepspeed.zero.Init(module=_OneByOne(root), config_dict_or_path=config)
            for buffer in root.buffers():
                buffer.data = buffer.data.to(self.device)
        else:
            model.to(self.device)
            broadcast_parameters(list(self._trained.values()))
        self._engine, *_ = deepspeed.initialize(
            model=root, optimizer=optimizer, config=config, dist_init_required=False
        )
        self._engine.set_gradient_accumulation_boundary(True)
        logger.debug("DeepSpeed runs ZeRO stage %d on %d ranks", self.stage, self.world_size)

    # Steps

    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float | Rates) -> StepResult:
        """One optimizer step; DeepSpeed's stage decides how gradients are exchanged."""
        self._set_rates(self._engine.basic_optimizer, learning_rate)
        batches = list(micro_batches)
        before = StepSums(self.device)
        before.weight = sum(self._task.step_weight(self.model, batch) for batch in batches if not is_empty(batch))
        total_weight = before.joined().weight
        if total_weight == 0:
            raise DataError("a batch has no answer token to learn from")
        factor = self.world_size / total_weight
        if self._scale.enabled and self.stage:
            self._engine.optimizer.override_loss_scale(self._scale.value)
        elif self._scale.enabled:
            factor *= self._scale.value
        sums = StepSums(self.device, self._task.measure_names)
        for number, batch in enumerate(batches):
            self._engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
            counts = not is_empty(batch)
            # All ranks take part in all exchanges, so a rank without samples runs a blank batch that counts nothing.
            epoch = {"epoch": batch["epoch"]} if "epoch" in batch else {}
            given = self.to_device(batch if counts else {**self._task.blank_batch(self.model), **epoch})
            loss, own_loss = self._forward(partial(self._task.step_loss, self.model, given))
            self._engine.backward(own_loss * (factor if counts else 0.0), scale_wrt_gas=False)
            if counts:
                sums.add(loss)
        facts = sums.joined()
        loss_mean = facts.loss_sum / total_weight
        if not math.isfinite(loss_mean):
            raise NonFiniteError(f"loss is {loss_mean:g}")
        grad_norm = self._step_with_zero() if self.stage else self._step_without_zero()
        applied = self._is_applied(loss_mean, grad_norm)
        self._scale.update(overflow=not applied)
        return StepResult(
            loss_mean, total_weight, grad_norm, applied, facts.noted, sums.sizes, facts.measures, sums.pair_values
        )

    def _step_with_zero(self) -> float:
        """DeepSpeed's step, which skips the update if the norm is not finite; returns the norm."""
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return math.inf if self._engine.optimizer.overflow else float(norm)

    def _step_without_zero(self) -> float:
        """Clip the gradients that DeepSpeed averaged, and update the weights; returns the norm."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        if self._scale.enabled:
            for parameter in parameters:
                parameter.grad.div_(self._scale.value)  # type: ignore[union-attr]
        norm = nn.utils.clip_grad_norm_(parameters, self._settings.max_grad_norm or math.inf).item()
        if math.isfinite(norm):
            self._engine.step()
        else:
            self._engine.zero_grad()
        return norm

    def _forward(self, function: Callable[[], T]) -> tuple[T, Any]:
        """Call model code inside the forward pass of DeepSpeed's module, so that weights are gathered when needed.

        Returns the result, and its `loss_sum`, if any, as the module returned it, with DeepSpeed's hooks.
        """
        self._root.call = lambda: self._with_autocast(function)
        loss_sum = self._engine()
        result, self._root.result = self._root.result, None
        return result, loss_sum

    def _with_autocast(self, function: Callable[[], T]) -> T:
        # Inside the forward pass, because DeepSpeed switches off autocast around it.
        with self.autocast():
            return function()

    def run(self, function: Callable[[], T]) -> T:
        with torch.no_grad():
            return self._forward(function)[0]

    # State

    def trained_state(self) -> dict[str, torch.Tensor]:
        if self.stage < 3:
            return self.model.trained_state_dict()
        state: dict[str, torch.Tensor] = {}
        names = self.model.trained_parameter_names()
        # One by one, because all of them may not fit on one device.
        for name, parameter in zip(names, self._trained.values(), strict=True):
            with _gathered([parameter]):
                if processes.is_main():
                    state[name] = parameter.detach().cpu().clone()
        return state

    def load_trained(self, state: Mapping[str, torch.Tensor]) -> None:
        with _gathered(list(self._trained.values()), writes=True) if self.stage == 3 else nullcontext():
            self.model.load_trained_state_dict(state)
        if self.stage:
            self._engine.optimizer.refresh_fp32_params()

    def state(self) -> EngineState:
        if self.stage:
            state = partitioned_state(self._engine.optimizer, self._trained)
        else:
            state = adamw_state(self._engine.basic_optimizer, self.model.named_parameters())
        return EngineState(state.tensors, {**state.values, "scaler": self._scale.state()})

    def load_state(self, state: EngineState) -> None:
        if self.stage:
            load_partitioned_state(self._engine.optimizer, self._trained, state)
        else:
            load_adamw_state(self._engine.basic_optimizer, self.model.named_parameters(), state)
        self._scale.load(state.values.get("scaler") or {})

    def close(self) -> None:
        self._engine.destroy()

    # Start

    def _check_model(self) -> None:
        if self.stage < 3:
            return
        instead = "or use projects/emovit/deepspeed/zero2.json"
        problems = []
        if not all(parameter.is_floating_point() for parameter in self.model.parameters()):
            problems.append(f"ZeRO stage 3 cannot split quantised weights; set model.frozen_precision=bf16, {instead}")
        if self._settings.ema_decay is not None:
            problems.append(f"with ZeRO stage 3 no rank has all weights to average; remove run.ema_decay, {instead}")
        if self._settings.compile:
            problems.append(f"ZeRO stage 3 gathers weights inside the modules; remove run.compile, {instead}")
        if problems:
            raise ConfigError([f"run.deepspeed_config: {problem}" for problem in problems])
        if self.in_step:
            # Every call of a module gathers its weights from all ranks.
            self.model.call_in_step(True)

    def _build_optimizer(self, content: Mapping[str, Any]) -> torch.optim.Optimizer:
        """Our AdamW, or DeepSpeed's if its state is on the CPU of a machine with GPUs and it can be built."""
        offloaded = offloads_optimizer(content)
        plain = build_adamw(
            self.model.named_parameters(),
            self._settings,
            torch.device("cpu") if offloaded else self.device,
            self._parts,
        )
        if not offloaded:
            return plain
        reason = "there is no GPU"
        if self.device.type == "cuda":
            try:
                from deepspeed.ops.adam import DeepSpeedCPUAdam

                offloaded_adam = DeepSpeedCPUAdam(plain.param_groups, adamw_mode=True, fp32_optimizer_states=True)
                skip_resting(offloaded_adam)
                return offloaded_adam
            except Exception as error:  # checks of compiler, driver and libraries raise different kinds
                reason = f"DeepSpeed's optimizer for CPUs cannot be built here: {first_line(error)}"
        logger.info("the offloaded optimizer is torch's AdamW (%s)", reason)
        return plain


class _Root(nn.Module):
    """The module that DeepSpeed wraps; its forward pass calls a function.

    The model is called for loss, scores and generation, but DeepSpeed gathers weights only during the forward pass of
    the module that it wraps.
    """

    call: Callable[[], Any]
    result: Any = None

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self) -> torch.Tensor | tuple[()]:
        # Stored here, because DeepSpeed's hooks take outputs apart and copy their containers.
        self.result = self.call()
        loss = getattr(self.result, "loss_sum", None)
        return loss if isinstance(loss, torch.Tensor) else ()


class _OneByOne(nn.Module):
    """The parameters of a module, each taken from its file when DeepSpeed asks for it.

    DeepSpeed then writes rank 0's values into it and keeps this rank's piece. In a mapped file, every page that it
    writes to would stay in memory.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        files = MappedFiles()
        for parameter in super().parameters(recurse):
            files.settle(parameter)
            yield parameter


def load_deepspeed(device: torch.device) -> Any:
    """The package, set up for this device, with its log limited to warnings."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    # DeepSpeed requires it; launchers set it.
    os.environ.setdefault("LOCAL_RANK", str(processes.read_launch().local_rank))
    try:
        import deepspeed
        from deepspeed.accelerator import get_accelerator
    except ImportError as error:
        raise ConfigError([f"run.engine: deepspeed is missing or does not load ({error}): {INSTALL_LINE}"]) from None
    found = get_accelerator().device_name()
    if found != device.type:
        raise ConfigError([f"run.device: DeepSpeed was loaded for {found} in this process, not for {device.type}"])
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if device.type == "cpu":
        # Otherwise it compiles its exchange through shared memory; gloo needs no compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    processes.start(processes.Launch(), device=device, even_alone=True)
    deepspeed.init_distributed(dist_init_required=False, verbose=False)
    return deepspeed


def _gathered(parameters: Sequence[nn.Parameter], *, writes: bool = False) -> Any:
    """Whole parameters inside the block; with `writes`, all ranks have the values of rank 0 afterwards."""
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=0 if writes else None)
