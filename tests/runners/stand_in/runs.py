"""Helpers for tests of whole runs: stopping them, running them in processes of their own, comparing them."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lavis_emovit.checkpoints.checkpoint import list_checkpoints
from lavis_emovit.checkpoints.saving import CheckpointFacts, CheckpointSaver
from lavis_emovit.checkpoints.training_state import Best, EngineState, Position, TrainingState
from lavis_emovit.runners.engines.torch_engine import TorchEngine
from lavis_emovit.runners.logs import read_log
from lavis_emovit.runners.watch import computed_fields

LAST_STEP = 15  # 22 pictures in batches of 5, three epochs


def stop_after(monkeypatch: pytest.MonkeyPatch, num_steps: int) -> None:
    """The process is stopped when `num_steps` steps are done and the next one is due."""
    real, done = TorchEngine.train_step, 0

    def train_step(self: TorchEngine, *args: Any) -> Any:
        nonlocal done
        if done == num_steps:
            raise KeyboardInterrupt
        done += 1
        return real(self, *args)

    monkeypatch.setattr(TorchEngine, "train_step", train_step)


def log_without_clocks(run: Path) -> list[dict]:
    return [computed_fields(row) for row in read_log(run / "log.jsonl")]


def assert_same_run(run: Path, other: Path, last_step: int = LAST_STEP) -> None:
    """Final checkpoint, log and predictions are equal, byte for byte where there are no clock times in it."""
    last, other_last = (list_checkpoints(folder / "checkpoints")[-1] for folder in (run, other))
    assert last.name == other_last.name == f"ckpt-{last_step:08d}"
    names = sorted(path.name for path in last.iterdir() if path.name not in ("MANIFEST.json", "config.yaml"))
    assert {"model.safetensors", "optimizer.safetensors", "state.json"} <= set(names)
    for name in names:
        assert (last / name).read_bytes() == (other_last / name).read_bytes(), name
    assert log_without_clocks(run) == log_without_clocks(other)
    for stage in ("before", "after"):
        name = f"predictions/test-{stage}.jsonl"
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    summary, other_summary = (json.loads((folder / "metrics.json").read_text()) for folder in (run, other))
    assert summary == other_summary


def in_fork(action: Callable[[], object]) -> multiprocessing.Process:
    """A process of its own that has everything loaded already; its exit code is the number that the action returns."""

    def act() -> None:
        code = action()
        os._exit(code if isinstance(code, int) else 0)

    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    return process


def exit_code_of(process: multiprocessing.Process) -> int | None:
    process.join(120)
    return process.exitcode


def make_state(step: int, best: int | None = None, average: bool = False) -> TrainingState:
    weight = torch.full((64, 8), float(step))
    return TrainingState(
        trained={"weight": weight},
        engine=EngineState({"exp_avg.weight": torch.full((64, 8), -float(step))}, {"adamw_steps": {"weight": step}}),
        position=Position(step=step, epoch=0, step_in_epoch=step, best=Best(best, "accuracy", 0.5) if best else None),
        config_yaml="run: {}\n",
        average={"weight": weight / 2} if average else None,
    )


def make_saver(root: Path, *, keep_last: int = 9, is_async: bool = True) -> CheckpointSaver:
    facts = CheckpointFacts("i" * 64, "c" * 64, "f" * 64, {"python": "3"})
    return CheckpointSaver(root, facts, keep_last=keep_last, is_async=is_async)
