"""One rank of a job that trains until something happens on one of its ranks, by way of the command's own start and end.

Usage: faults.py MODE RANK TIMEOUT_S
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import SimpleNamespace

import no_lavis  # noqa: F401
import torch
from small import SmallModel, SmallTask, settings, steps

import lavis_emovit.plugin
from lavis_emovit import train
from lavis_emovit.errors import DataError
from lavis_emovit.runners import heartbeat, processes
from lavis_emovit.runners.engines import build_engine

FAULT_STEP = 3


def run(mode: str, options: object) -> None:
    _, faulty_rank, timeout_s = sys.argv[1:4]
    torch.set_num_threads(1)
    train._join_ranks(processes.read_launch(), SimpleNamespace(device="cpu", timeout_s=float(timeout_s)))
    engine = build_engine(SmallModel(), SmallTask(), settings())
    for step, batches in enumerate(steps(0, 1000, engine.rank, engine.world_size)):
        heartbeat.note("reading", step=step, place=f"train/{step:06d}.tar")
        if step == FAULT_STEP and engine.rank == int(faulty_rank):
            happen(mode)
        heartbeat.note("computing", step=step)
        engine.train_step(batches, 0.01)
        time.sleep(0.01)


def happen(mode: str) -> None:
    time.sleep(1)  # what it was at is told by a thread
    if mode == "error":
        raise DataError("picture 17 of train/000003.tar cannot be read")
    if mode == "bug":
        raise KeyError("no such thing")
    if mode == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "hang":
        time.sleep(600)


if __name__ == "__main__":
    lavis_emovit.plugin.activate = lambda: None  # type: ignore[assignment]
    raise SystemExit(train.launch(["--cfg-path", sys.argv[1]], prog="faults", description="", run=run))
