"""Batches for training, in the order that the position in the run decides."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from lavis_emovit.datasets.batching import GlobalBatchSampler
from lavis_emovit.datasets.faults import FaultLog
from lavis_emovit.distributed import heartbeat
from lavis_emovit.distributed.workers import ignore_stop_signals, killed_worker
from lavis_emovit.errors import UserError
from lavis_emovit.models.protocol import Batch
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.shards.order import SampleOrder
from lavis_emovit.shards.reader import QUARANTINE_NAME
from lavis_emovit.shards.token_lengths import TokenLengths


class TrainDataset(Protocol):
    """What training needs of a dataset.

    Attributes:
        fault_log: for samples that cannot be read.
        token_lengths: text lengths of the samples, if `max_tokens` is set.
    """

    fault_log: FaultLog
    token_lengths: TokenLengths | None

    @property
    def index_hash(self) -> str:
        """Identifies the samples."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """Largest number of text tokens of a micro-batch."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> dict[str, Any]: ...

    def epoch_order(self, seed: int, epoch: int, global_batch: int) -> SampleOrder:
        """The order of an epoch, a pure function of the samples and the arguments."""
        ...

    def place_of(self, number: int) -> str:
        """Name of the shard of a sample, for messages."""
        ...

    def collater(self, items: Any, /) -> dict[str, Any]:
        """Items to a batch."""
        ...


def train_steps(
    dataset: TrainDataset, settings: RunSettings, *, epoch: int, start_step: int, rank: int = 0, world_size: int = 1
) -> Iterator[list[Batch]]:
    """The micro-batches of this rank, one list for each optimizer step of an epoch, beginning with `start_step`.

    The order of an epoch is computed, so no earlier sample is read. Samples that cannot be read are replaced by others
    and listed in the run's folder.

    Raises:
        UserError: more samples cannot be read than the dataset's settings allow, or a worker process was killed.
    """
    sampler = GlobalBatchSampler(
        dataset.epoch_order(settings.seed, epoch, settings.global_batch_size),
        settings.global_batch_size,
        rank,
        world_size,
        settings.micro_batch,
        start_step,
        token_lengths=dataset.token_lengths,
        max_tokens=dataset.max_tokens,
    )
    if Path(settings.output_dir).is_dir():
        dataset.fault_log.path = Path(settings.output_dir) / QUARANTINE_NAME
    batches = iter(_loader(dataset, settings, sampler))
    places = _places(dataset, sampler) if world_size > 1 else None
    # The loader runs ahead of the steps, so these counts come from a sampler of their own.
    for number, count in enumerate(sampler.micro_batch_counts(), start=epoch * sampler.num_steps + start_step):
        if places is not None:
            first, *_ = [next(places) for _ in range(count)]
            heartbeat.note("reading", step=number, place=first)
        step = [dict(_next(batches)) for _ in range(count)]
        for batch in step:
            batch["epoch"] = epoch  # LAVIS's name for it; a loss may change from one epoch to another
            for fault in batch.pop("faults", ()):
                dataset.fault_log.add(fault)
        heartbeat.note("computing", step=number)
        yield list[Batch](step)


def _places(dataset: TrainDataset, sampler: GlobalBatchSampler) -> Iterator[str | None]:
    """The shard of the first sample of each micro-batch, for the message about a lost rank."""
    reader = copy.copy(sampler)
    reader.order = copy.copy(sampler.order)  # an order caches its current window
    for keys in reader:
        yield dataset.place_of(keys[0][1]) if keys else None


def _loader(dataset: TrainDataset, settings: RunSettings, sampler: GlobalBatchSampler) -> DataLoader[Any]:
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=settings.num_workers,
        collate_fn=dataset.collater,
        pin_memory=torch.cuda.is_available() and settings.device != "cpu",
        # Without its own generator a loader draws from torch's global one, so that the number of loaders would change
        # the numbers of a run.
        generator=torch.Generator().manual_seed(settings.seed),
        worker_init_fn=ignore_stop_signals,
    )


def _next(batches: Iterator[Batch]) -> Batch:
    """The next batch; errors of worker processes come without their traceback in the text."""
    try:
        return next(batches)
    except RuntimeError as error:
        killed = killed_worker(error)
        if killed is None:
            raise
        raise killed from error
    except UserError as error:
        text = str(error)
        if not text.startswith("Caught "):
            raise
        raise UserError(text.rsplit(f"{type(error).__name__}: ", 1)[-1].strip()) from error
