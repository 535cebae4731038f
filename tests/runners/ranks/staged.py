"""One rank of a job that trains one part after another, under every engine, from the beginning or a saved state."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from matrix import ENGINES, load, save
from small import SmallModel, SmallTask, settings, steps

from lavis_emovit.distributed import processes
from lavis_emovit.runners.engines import build_engine
from lavis_emovit.runners.part_rates import Rates

# Steps of each stage, and the rates of its parts; `ends` learns, rests and learns again.
STAGES = ((4, {"ends": 0.02}), (4, {"ends": 0.004, "block": 0.01}), (3, {"block": 0.03}), (4, {"ends": 0.01}))
NUM_STEPS = sum(count for count, _ in STAGES)
SAVED_AT = (2, 6, 10)  # in the first stage, in the second, in the third


class StagedModel(SmallModel):
    """`block` is a part between the tensors of the part `ends`."""

    def trained_parameter_parts(self) -> list[str]:
        return [part_of(name) for name, _ in self.named_parameters() if not name.startswith(("encoder", "head"))]

    def trained_parameter_names(self) -> list[str]:
        return [name for name, _ in self.named_parameters() if not name.startswith(("encoder", "head"))]

    def trained_state_dict(self) -> dict[str, torch.Tensor]:
        own = dict(self.named_parameters())
        return {name: own[name].detach() for name in self.trained_parameter_names()}

    def rest(self, parts: Collection[str]) -> None:
        for name, parameter in self.named_parameters():
            if name in self.trained_parameter_names():
                parameter.requires_grad_(part_of(name) not in parts)


def part_of(name: str) -> str:
    return "block" if name.startswith("block") else "ends"


def rates(step: int) -> dict[str, float]:
    """Rates of the parts that learn, higher from step to step."""
    for count, parts in STAGES:
        if step < count:
            return {part: rate * (1 + step) for part, rate in parts.items()}
        step -= count
    raise AssertionError


def make(name: str, configs: Path) -> Any:
    named = {"engine": "deepspeed", "deepspeed_config": str(configs / f"{name}.json")} if name != "torch" else {}
    stages = [{"epochs": 1, "parts": {"ends": 0.01, "block": 0.01}}]
    return build_engine(StagedModel(), SmallTask(), settings(stages=stages, **named))


def train(engine: Any, first: int, last: int, out: Path | None = None, name: str = "") -> list[list[float]]:
    rows = []
    for step, batches in enumerate(steps(first, last, engine.rank, engine.world_size), start=first):
        if out is not None and step in SAVED_AT:
            save(engine, out / f"{name}-{step}")
        result = engine.train_step(engine.prepare(batches), Rates(None, rates(step)))
        rows.append([result.loss, result.grad_norm])
    return rows


def train_in_stages(out: Path, configs: Path, states: Path | None = None) -> None:
    """Each engine from the beginning; or, with states of another job, from each of its saves."""
    processes.start(processes.read_launch(), device=torch.device("cpu"), timeout_s=60, even_alone=True)
    torch.set_num_threads(1)
    rows = {}
    for name in ENGINES:
        for first in (0,) if states is None else SAVED_AT:
            engine = make(name, configs)
            if states is not None:
                load(engine, states / f"{name}-{first}")
                save(engine, out / f"{name}-{first}-back")
            rows[f"{name}-{first}"] = train(engine, first, NUM_STEPS, out if states is None else None, name)
            save(engine, out / f"{name}-{first}-end")
            engine.close()
    if processes.is_main():
        (out / "rows.json").write_text(json.dumps(rows))
    processes.stop()
