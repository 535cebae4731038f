"""Predictions in several processes, each with the model on its own GPU or its share of the CPU's cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from lavis_emovit.distributed.workers import end_with_parent
from lavis_emovit.errors import UserError
from lavis_emovit.tuned.inputs import InputImage
from lavis_emovit.tuned.loading import Tuned
from lavis_emovit.tuned.predictions import ImagePrediction, PredictionSettings, predict

# The model of this process, and what it is asked.
_own: dict[str, Any] = {}


def devices_of(device: str, processes: int) -> list[str]:
    """The device of each process; UserError if there are fewer GPUs than processes."""
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not num_gpus):
        return ["cpu"] * processes
    if ":" in device or processes > num_gpus:
        raise UserError(f"--processes {processes}: each needs a GPU of its own; device '{device}', {num_gpus} GPUs")
    return [f"cuda:{number}" for number in range(processes)]


def predict_in_processes(
    load: Callable[..., Tuned],
    images: Sequence[InputImage],
    settings: PredictionSettings,
    devices: Sequence[str],
    *,
    batch_size: int,
) -> Iterator[list[ImagePrediction]]:
    """The rows of batches, in the order in which they are ready.

    Args:
        load: called with `device` in each process.
        devices: one of each process.

    Raises:
        UserError: the model cannot continue at all, or a process was killed.
    """
    # A fork cannot use a GPU that this process has used.
    context = multiprocessing.get_context("spawn")
    free = context.SimpleQueue()
    for device in devices:
        free.put(device)
    batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)][::-1]
    begin = (load, settings, free, len(devices))
    pool = ProcessPoolExecutor(len(devices), mp_context=context, initializer=_begin, initargs=begin)
    running: set[Future[list[ImagePrediction]]] = set()
    try:
        while batches or running:
            while batches and len(running) < 2 * len(devices):
                running.add(pool.submit(_predict, batches.pop()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise UserError(
            "a process ended early, perhaps because memory ran out. With --out, the same command resumes; fewer "
            "--processes or a smaller --batch-size need less memory."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(load: Callable[..., Tuned], settings: PredictionSettings, free: Any, num_processes: int) -> None:
    from lavis_emovit.distributed.seeding import limit_threads

    end_with_parent()  # a model takes memory as long as its process is there
    device = free.get()
    limit_threads(None, num_processes)
    _own.update(tuned=load(device=device), settings=settings)


def _predict(images: Sequence[InputImage]) -> list[ImagePrediction]:
    batches = predict(_own["tuned"].adapter, images, _own["settings"], batch_size=len(images))
    return [row for rows in batches for row in rows]
