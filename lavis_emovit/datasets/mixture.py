"""Several datasets trained on together, in exact ratios."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from lavis_emovit.datasets.collate import collate
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.errors import DataError
from lavis_emovit.shards.mixture import MixtureOrder
from lavis_emovit.shards.order import LengthBucketOrder, SampleOrder
from lavis_emovit.shards.token_lengths import TokenLengths


class EmotionMixtureDataset(Dataset[dict[str, Any]]):
    """A mixture of datasets, with the interface of one.

    Items are asked for as `mixture[(pass, number)]`, numbers counting through the datasets one after the other; which
    are asked for when, `epoch_order` says.

    Args:
        datasets: what is mixed. Length buckets, where wanted, must be the same in all of them.
        ratios: share of each in any unit; None takes every sample of all of them once an epoch.
        epoch_size: samples of an epoch with ratios, rounded up to a whole number of patterns; None takes as many as
            there are samples.
        names: what messages call the datasets; None takes the folders of their shards.

    Raises:
        DataError: no datasets, the same shards twice, ratios that don't fit them, or length buckets that differ.
    """

    def __init__(
        self,
        datasets: Sequence[EmotionShardDataset],
        ratios: Sequence[float] | None = None,
        epoch_size: int | None = None,
        names: Sequence[str] | None = None,
    ):
        if not datasets:
            raise DataError("a mixture needs at least one dataset")
        self.datasets = list(datasets)
        self.names = list(names) if names is not None else [str(dataset.index.folder) for dataset in datasets]
        self._refuse_the_same_shards()
        self.ratios, self.epoch_size = list(ratios) if ratios is not None else None, epoch_size
        self.offsets = np.cumsum([0, *(len(dataset) for dataset in datasets)])
        self.length_buckets = datasets[0].length_buckets
        if any(dataset.length_buckets != self.length_buckets for dataset in datasets):
            raise DataError("the datasets of a mixture must have the same `length_buckets`")
        self.token_lengths: TokenLengths | None = None
        lengths = [dataset.token_lengths for dataset in datasets if dataset.token_lengths is not None]
        if lengths:
            self.token_lengths = TokenLengths.joined(lengths)
        self.fault_log = _FaultLogs(self.datasets)
        self._length = len(self._mixed(0, 0))

    @property
    def index_hash(self) -> str:
        """Names the shards of all datasets and their shares."""
        parts = [[dataset.order_hash for dataset in self.datasets], self.ratios, self.epoch_size]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def max_tokens(self) -> int | None:
        """Most text tokens of a micro-batch."""
        return self.length_buckets.max_tokens if self.length_buckets is not None else None

    def epoch_order(self, seed: int, epoch: int, global_batch: int) -> SampleOrder:
        """The order of an epoch, a pure function of the datasets and the arguments."""
        order = self._mixed(seed, epoch)
        if self.length_buckets is None or self.token_lengths is None:
            return order
        return LengthBucketOrder(order, self.token_lengths.longest, global_batch, self.length_buckets.window_steps)

    def __len__(self) -> int:
        """Samples of an epoch."""
        return self._length

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        own_pass, number = key
        dataset = int(np.searchsorted(self.offsets, number, side="right")) - 1
        item = self.datasets[dataset][own_pass, number - int(self.offsets[dataset])]
        if "fault" in item:
            item["fault"]["dataset"] = dataset
        return item

    def place_of(self, number: int) -> str:
        """The shard that an item lies in, for messages."""
        dataset = int(np.searchsorted(self.offsets, number, side="right")) - 1
        return self.datasets[dataset].place_of(number - int(self.offsets[dataset]))

    def collater(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """LAVIS's name for `collate`."""
        return collate(items)

    def _refuse_the_same_shards(self) -> None:
        """Samples of a set that is in the mixture twice would come twice as often as the ratios say."""
        names: dict[str, str] = {}
        for name, dataset in zip(self.names, self.datasets):
            if dataset.order_hash in names:
                other = names[dataset.order_hash]
                raise DataError(f"'{other}' and '{name}' are the same shards; leave one out, or weigh it by its ratio")
            names[dataset.order_hash] = name

    def _mixed(self, seed: int, epoch: int) -> MixtureOrder:
        return MixtureOrder(
            [dataset.order_hash for dataset in self.datasets],
            seed,
            epoch,
            [dataset.block_sizes for dataset in self.datasets],
            ratios=self.ratios,
            epoch_size=self.epoch_size,
            window_blocks=min(dataset.window_shards for dataset in self.datasets),
        )


class _FaultLogs:
    """Hands each fault to the log of its own dataset."""

    def __init__(self, datasets: Sequence[EmotionShardDataset]):
        self.logs = [dataset.fault_log for dataset in datasets]

    @property
    def path(self) -> Path | None:
        """The file that lists the faults of all datasets."""
        return self.logs[0].path

    @path.setter
    def path(self, value: Path | None) -> None:
        for log in self.logs:
            log.path = value

    def add(self, fault: dict[str, Any]) -> None:
        """See `FaultLog.add`."""
        self.logs[fault["dataset"]].add(fault)
