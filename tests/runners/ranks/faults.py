"""One rank of a job that trains until something happens on one of them, by way of the command's own start and end."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from types import SimpleNamespace

import torch
from small import SmallModel, SmallTask, settings, steps

from lavis_emovit import launch
from lavis_emovit.distributed import heartbeat, joining, processes
from lavis_emovit.errors import DataError
from lavis_emovit.runners.engines import build_engine

FAULT_STEP = 3


def train_until(mode: str, faulty_rank: int, timeout_s: float) -> int:
    """The exit code of the command."""
    run = partial(_run, mode, faulty_rank, timeout_s)
    return launch.launch(["--cfg-path", "none"], prog="faults", description="", run=lambda path, options: run())


def _run(mode: str, faulty_rank: int, timeout_s: float) -> None:
    torch.set_num_threads(1)
    joining.join_ranks(processes.read_launch(), SimpleNamespace(device="cpu", timeout_s=timeout_s, evaluate=True))
    engine = build_engine(SmallModel(), SmallTask(), settings())
    for step, batches in enumerate(steps(0, 1000, engine.rank, engine.world_size)):
        heartbeat.note("reading", step=step, place=f"train/{step:06d}.tar")
        if step == FAULT_STEP and engine.rank == faulty_rank:
            _happen(mode)
        heartbeat.note("computing", step=step)
        engine.train_step(batches, 0.01)
        time.sleep(0.01)


def _happen(mode: str) -> None:
    time.sleep(1)  # what it was at is told by a thread
    if mode == "error":
        raise DataError("picture 17 of train/000003.tar cannot be read")
    if mode == "bug":
        raise KeyError("no such thing")
    if mode == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "hang":
        time.sleep(600)
