"""Helpers for tests of whole runs: stop them, run them in processes, compare them."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavis_emovit.paths import list_checkpoints
from lavis_emovit.runners.engines.torch_engine import TorchEngine
from lavis_emovit.runners.logs import read_log
from lavis_emovit.runners.watch import computed_fields

LAST_STEP = 15  # 22 images in batches of 5, three epochs


def stop_after(monkeypatch: pytest.MonkeyPatch, num_steps: int) -> None:
    """Stop the process after `num_steps` steps."""
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
    """Final checkpoint, log and predictions are equal, byte for byte except for clock times."""
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
    """A forked process with everything loaded; its exit code is the number that the action returns."""

    def act() -> None:
        code = action()
        os._exit(code if isinstance(code, int) else 0)

    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    return process


def exit_code_of(process: multiprocessing.Process, timeout_s: float = 120) -> int | None:
    """None if the process still runs after `timeout_s`; it is killed then."""
    process.join(timeout_s)
    code = process.exitcode
    if code is None:
        process.kill()
    return code
