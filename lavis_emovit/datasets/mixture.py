"""Several datasets trained on together, in ratios that may change from epoch to epoch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np

from lavis_emovit.datasets.base import OrderedDataset
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.errors import DataError
from lavis_emovit.shards.curriculum import Curriculum, MixtureStage
from lavis_emovit.shards.mixture import MixtureOrder
from lavis_emovit.shards.token_lengths import TokenLengths


class EmotionMixtureDataset(OrderedDataset):
    """A mixture of datasets, with the interface of one.

    Items are requested as `mixture[(pass, number)]`; the numbers run through the datasets one after the other.

    Args:
        datasets: all with the same length buckets and image processors that stack alike.
        ratios: share of each in any unit, or stages of shares; None: every sample of all of them once per epoch.
        epoch_size: samples of an epoch with ratios; None: as many as there are samples.
        names: names of the datasets for messages; None: the folders of their shards.

    Raises:
        DataError: no datasets, the same shards twice, ratios that don't fit them, or length buckets that differ.
    """

    def __init__(
        self,
        datasets: Sequence[EmotionShardDataset],
        ratios: Sequence[float] | Curriculum | None = None,
        epoch_size: int | None = None,
        names: Sequence[str] | None = None,
    ):
        if not datasets:
            raise DataError("a mixture needs at least one dataset")
        self.datasets = list(datasets)
        self.names = list(names) if names is not None else [str(dataset.index.folder) for dataset in datasets]
        # If a set were in the mixture twice, its samples would appear twice as often as the ratios say.
        seen: dict[str, str] = {}
        for name, dataset in zip(self.names, self.datasets):
            if other := seen.get(dataset.order_hash):
                raise DataError(f"'{other}' and '{name}' are the same shards; remove one, or change its ratio")
            seen[dataset.order_hash] = name
        if ratios is not None and not isinstance(ratios, Curriculum):
            ratios = Curriculum([MixtureStage(1, tuple(ratios))])
        if ratios is not None:
            ratios.check(len(self.datasets))
        self.curriculum = ratios
        self.offsets = np.cumsum([0, *(len(dataset) for dataset in datasets)])
        self.image_processor = datasets[0].image_processor
        self.length_buckets = datasets[0].length_buckets
        if any(dataset.length_buckets != self.length_buckets for dataset in datasets):
            raise DataError("the datasets of a mixture must have the same `length_buckets`")
        lengths = [dataset.token_lengths for dataset in datasets if dataset.token_lengths is not None]
        self.token_lengths = TokenLengths.joined(lengths) if lengths else None
        self.fault_log = _FaultLogs(self.datasets)
        self._starts: Sequence[int] | None = None
        self._is_dropped: np.ndarray | None = None
        self._length = epoch_size if ratios is not None and epoch_size is not None else self.num_samples
        if ratios is not None:
            used = ratios.starts(sum(stage.epochs for stage in ratios.stages), len(self))
            if unused := [name for name, count in zip(self.names, used) if not count]:
                raise DataError(f"{', '.join(unused)}: no image in any epoch; raise the ratio or `epoch_size`")

    @property
    def index_hash(self) -> str:
        """Identifies the shards of all datasets and their shares.

        More epochs of a last stage with constant shares change nothing before them, so such a run can be extended.
        """
        stages = None
        if self.curriculum is not None:
            *earlier, last = self.curriculum.stages
            stages = [astuple(stage) for stage in (*earlier, last if last.is_linear else replace(last, epochs=1))]
        parts = [[dataset.order_hash for dataset in self.datasets], stages, len(self) if stages else None]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def __len__(self) -> int:
        """Samples of an epoch."""
        return self._length

    @property
    def num_samples(self) -> int:
        """Different items."""
        return int(self.offsets[-1])

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        own_pass, number = key
        dataset, own_number = self._find(number)
        item = self.datasets[dataset][own_pass, own_number]
        item["number"] += int(self.offsets[dataset])
        if "fault" in item:
            item["fault"]["dataset"] = dataset
        return item

    def place_of(self, number: int) -> str:
        """The shard of an item, for messages."""
        dataset, own_number = self._find(number)
        return self.datasets[dataset].place_of(own_number)

    def describe(self, number: int) -> tuple[str, str]:
        """Dataset of an item, and place in its shards."""
        dataset, own_number = self._find(number)
        part = self.datasets[dataset]
        return self.names[dataset], part.index.key_of(int(part.samples[own_number]))

    def _find(self, number: int) -> tuple[int, int]:
        """The dataset of an item, and its number there."""
        dataset = int(np.searchsorted(self.offsets, number, side="right")) - 1
        return dataset, number - int(self.offsets[dataset])

    def counts(self, epoch: int) -> dict[str, int]:
        """Samples of each dataset in an epoch, by name."""
        assert self.curriculum is not None, "a mixture without ratios has all samples in every epoch"
        return dict(zip(self.names, self.curriculum.counts(epoch, len(self))))

    def starts(self, epoch: int) -> list[int]:
        """Where the passes of each dataset continue in an epoch, if nothing was dropped before it."""
        assert self.curriculum is not None, "a mixture without ratios has no passes"
        return self.curriculum.starts(epoch, len(self))

    def drop(self, is_dropped: np.ndarray, starts: Sequence[int]) -> None:
        """From now on, draw other samples in place of these; arguments as those of `MixtureOrder`."""
        self._is_dropped, self._starts = is_dropped, starts

    @property
    def kept(self) -> np.ndarray | None:
        return np.flatnonzero(~self._is_dropped) if self._is_dropped is not None else None

    def stops(self, seed: int, epoch: int) -> list[int]:
        """Where the passes of each dataset continue after an epoch."""
        return self._mixed_order(seed, epoch).stops()

    def _mixed_order(self, seed: int, epoch: int) -> MixtureOrder:
        curriculum = self.curriculum
        starts = self._starts
        if starts is None:
            starts = self.starts(epoch) if curriculum is not None else ()
        return MixtureOrder(
            [dataset.order_hash for dataset in self.datasets],
            seed,
            epoch,
            [dataset.block_sizes for dataset in self.datasets],
            counts=curriculum.counts(epoch, len(self)) if curriculum is not None else None,
            starts=starts,
            is_dropped=self._is_dropped,
            window_blocks=min(dataset.window_shards for dataset in self.datasets),
        )


class _FaultLogs:
    """Passes each fault to the log of its dataset."""

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
