"""One rank that holds the tensors of the tiny model under each engine and counts the bytes that are there."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from small import settings
from torch import nn

from lavis_emovit import models
from lavis_emovit.distributed import processes
from lavis_emovit.models.instructblip.parts import part_of
from lavis_emovit.runners.engines import build_engine
from lavis_emovit.tasks.base import EmotionTask, StepLoss
from lavis_emovit.tasks.settings import TaskSettings

WEIGHTS = Path(models.__file__).parent / "data" / "emovit_tiny" / "model.safetensors"
TRAINED = ("qformer", "query_tokens", "language_projection", "vision_layernorm")


class TinyTensors(nn.Module):
    """The tensors of the tiny model, each in a module of its own; the loss is their sum of squares."""

    def __init__(self) -> None:
        super().__init__()
        self.holders = nn.ModuleList()
        for name, value in sorted(load_file(WEIGHTS).items()):
            self.holders.append(Holder(value.float(), part_of(name) in TRAINED))

    def forward(self, samples: Mapping[str, Any]) -> torch.Tensor:
        return torch.stack([holder() for holder in self.holders]).sum()

    def call_in_step(self, enabled: bool) -> None:
        pass


class Holder(nn.Module):
    def __init__(self, value: torch.Tensor, learns: bool):
        super().__init__()
        self.value = nn.Parameter(value, requires_grad=learns)

    def forward(self) -> torch.Tensor:
        return self.value.square().sum()


class Task(EmotionTask):
    settings_class = TaskSettings

    def step_weight(self, model: TinyTensors, batch: Mapping[str, Any]) -> int:
        return 1

    def step_loss(self, model: TinyTensors, batch: Mapping[str, Any]) -> StepLoss:
        return StepLoss(model(batch), 1)


def settled_bytes() -> int:
    """The least of several looks: gloo's threads let go of an exchange's buffers a moment after it has ended."""
    looks = []
    for _ in range(10):
        looks.append(bytes_held())
        time.sleep(0.05)
    return min(looks)


def bytes_held() -> int:
    """Of all storages that any tensor in this process has."""
    gc.collect()
    sizes: dict[int, int] = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor):
            for tensor in (thing, thing.grad) if thing.is_leaf else (thing,):
                if tensor is not None and tensor.device.type != "meta":
                    storage = tensor.untyped_storage()
                    sizes[storage.data_ptr()] = storage.nbytes()
    return sum(size for place, size in sizes.items() if place)


def count_bytes(out: Path, configs: Path) -> None:
    gc.freeze()  # what the process was forked with is not looked at
    processes.start(processes.read_launch(), device=torch.device("cpu"), timeout_s=60)
    found: dict[str, Any] = {}
    for name in ("torch", "zero0", "zero1", "zero2", "zero3"):
        before = settled_bytes()
        model = TinyTensors()
        counts = {
            learns: sum(value.numel() for value in model.parameters() if value.requires_grad is learns)
            for learns in (True, False)
        }
        changes = {} if name == "torch" else {"engine": "deepspeed", "deepspeed_config": str(configs / f"{name}.json")}
        engine: Any = build_engine(model, Task(), settings(**changes))
        batch = {"record_id": ["x"], "image": torch.zeros(1)}
        engine.train_step([batch], 1e-3)
        at_rest = settled_bytes() - before
        with_gradients: list[int] = []
        target, step = (engine._optimizer, "step") if name == "torch" else (engine._engine, "step")
        real = getattr(target, step)

        def measured(
            *arguments: Any, real: Any = real, before: int = before, into: list[int] = with_gradients, **named: Any
        ) -> Any:
            into.append(settled_bytes() - before)
            return real(*arguments, **named)

        setattr(target, step, measured)
        engine.train_step([batch, batch], 1e-3)
        found[name] = {
            "trained": counts[True],
            "frozen": counts[False],
            "at_rest": at_rest,
            "with_gradients": with_gradients[0],
        }
        setattr(target, step, real)
        engine.close()
        del engine, model, target, real, measured
    (out / f"bytes{processes.rank()}.json").write_text(json.dumps(found))
    processes.stop()
