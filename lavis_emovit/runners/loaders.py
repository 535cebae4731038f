"""Batches for training and evaluation, in the order that the position in the run decides."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from lavis_emovit.datasets.batching import GlobalBatchSampler, SequentialBatchSampler
from lavis_emovit.datasets.faults import QUARANTINE_NAME
from lavis_emovit.distributed import heartbeat
from lavis_emovit.distributed.signals import leave_stopping_to_run
from lavis_emovit.errors import UserError
from lavis_emovit.runners.engines.base import Batch
from lavis_emovit.runners.settings import RunSettings


def train_steps(
    dataset: Any, settings: RunSettings, *, epoch: int, start_step: int, rank: int = 0, world_size: int = 1
) -> Iterator[list[Batch]]:
    """The micro-batches of this rank, one list for each optimizer step of an epoch from `start_step` on.

    Nothing is replayed: the order of an epoch is computed, and reading begins at the position. Faulty samples come
    replaced; they are listed in the run's folder.

    Raises:
        UserError: more samples are faulty than the dataset's settings allow, or a worker process was killed.
    """
    sampler = GlobalBatchSampler(
        dataset.epoch_order(settings.seed, epoch, settings.global_batch_size),
        settings.global_batch_size,
        rank,
        world_size,
        settings.micro_batch,
        start_step,
        token_lengths=getattr(dataset, "token_lengths", None),
        max_tokens=getattr(dataset, "max_tokens", None),
    )
    fault_log = getattr(dataset, "fault_log", None)
    if fault_log is not None and Path(settings.output_dir).is_dir():
        fault_log.path = Path(settings.output_dir) / QUARANTINE_NAME
    batches = iter(_loader(dataset, settings, sampler))
    steps_per_epoch = sampler.num_steps
    places = _places(dataset, sampler) if world_size > 1 else None
    # Counted apart from the loader's own look at the sampler, which runs ahead of it.
    for number, count in enumerate(sampler.micro_batch_counts(), start=start_step):
        if places is not None:
            first, *_ = [next(places) for _ in range(count)]
            heartbeat.note("reading", step=epoch * steps_per_epoch + number, place=first)
        step = [dict(_next(batches)) for _ in range(count)]
        for batch in step:
            for fault in batch.pop("faults", ()):
                dataset.fault_log.add(fault)
        heartbeat.note("computing", step=epoch * steps_per_epoch + number)
        yield list[Batch](step)


def eval_batches(
    dataset: Any, settings: RunSettings, *, limit: int | None = None, rank: int = 0, world_size: int = 1
) -> tuple[Iterator[Batch], int]:
    """This rank's part of a split in the order of the shards, and the number of batches.

    Args:
        limit: only the first so many samples.
    """
    sampler = SequentialBatchSampler(len(dataset), settings.batch_size_eval, rank, world_size, limit=limit)
    batches = iter(_loader(dataset, settings, sampler))
    return (_next(batches) for _ in range(len(sampler))), len(sampler)


def _places(dataset: Any, sampler: GlobalBatchSampler) -> Iterator[str | None]:
    """For each micro-batch of a rank the shard of its first sample, for the message that names a rank that is lost."""
    reader = copy.copy(sampler)
    reader.order = copy.copy(sampler.order)  # an order keeps the window that it is at
    place_of = getattr(dataset, "place_of", None)
    for keys in reader:
        yield place_of(keys[0][1]) if keys and place_of is not None else None


def _loader(dataset: Any, settings: RunSettings, sampler: Any) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=settings.num_workers,
        collate_fn=dataset.collater,
        pin_memory=torch.cuda.is_available() and settings.device != "cpu",
        # Without a generator of its own, a loader draws from torch's global one, and the numbers of a run would depend
        # on how often a loader was made.
        generator=torch.Generator().manual_seed(settings.seed),
        worker_init_fn=leave_stopping_to_run,
    )


def worker_ended(error: BaseException) -> UserError | None:
    """What to tell where an error is torch's about a worker process that was killed; None for any other error.

    torch raises it from a signal handler, so it comes wherever the run happens to be, mostly in the middle of a step.
    """
    if not isinstance(error, RuntimeError) or "DataLoader worker" not in str(error):
        return None
    return UserError(
        f"a worker process that reads images ended ({str(error).strip().splitlines()[0]}). It was probably killed "
        "for want of memory: set run.num_workers lower, or give the machine more memory (in a container, also "
        "shared memory, /dev/shm). The run goes on from its last checkpoint when started again."
    )


def _next(batches: Iterator[Batch]) -> Batch:
    """The next batch; an error from a worker process comes without the worker's traceback in its text."""
    try:
        return next(batches)
    except RuntimeError as error:
        told = worker_ended(error)
        if told is None:
            raise
        raise told from error
    except UserError as error:
        text = str(error)
        if not text.startswith("Caught "):
            raise
        raise UserError(text.rsplit(f"{type(error).__name__}: ", 1)[-1].strip()) from error
