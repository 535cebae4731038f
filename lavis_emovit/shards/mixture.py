"""The sample order of a mixture of datasets, as exact as that of a single one.

Without counts an epoch has every sample of every dataset once. With counts each dataset contributes so many samples,
spread evenly over the epoch. It goes through its own samples pass by pass, each once per pass, across the ends of
epochs. Dropped samples are skipped, and the pass goes on to the next ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.shards.order import DEFAULT_WINDOW_SHARDS, EpochOrder, SampleKey, random_keys


class MixtureOrder:
    """Positions of an epoch of several datasets; see `EpochOrder` for the arguments that each dataset has.

    Sample numbers run through the datasets one after the other. The epoch in a key is the pass of the sample's own
    dataset, so that a sample that repeats within an epoch of the mixture is augmented differently.

    Args:
        counts: samples of each dataset in this epoch; None: every sample once.
        starts: where the passes of each dataset continue: its samples in all epochs before this one, dropped ones that
            were skipped included.
        is_dropped: with counts, bool [samples of all datasets]: those that are not drawn; None: all are.

    Raises:
        DataError: a dataset without samples to draw has a count.
    """

    def __init__(
        self,
        index_hashes: Sequence[str],
        seed: int,
        epoch: int,
        block_sizes: Sequence[Sequence[int] | np.ndarray],
        *,
        counts: Sequence[int] | None = None,
        starts: Sequence[int] = (),
        is_dropped: np.ndarray | None = None,
        window_blocks: int = DEFAULT_WINDOW_SHARDS,
    ):
        self.epoch, self.seed, self.window_blocks = epoch, seed, window_blocks
        self.index_hashes, self.block_sizes = list(index_hashes), [np.asarray(sizes) for sizes in block_sizes]
        self.sizes = [int(sizes.sum()) for sizes in self.block_sizes]
        self.offsets = np.cumsum([0, *self.sizes])
        self.name = f"{'+'.join(self.index_hashes)}/{seed}/{epoch}"
        self.counts = list(counts) if counts is not None else self.sizes
        self.starts = list(starts) or [0] * len(self.sizes)
        self.is_dropped = is_dropped
        self._all: EpochOrder | None = None
        self._arranged: np.ndarray | None = None
        if counts is None:
            together = np.concatenate(self.block_sizes)
            self._all = EpochOrder("+".join(self.index_hashes), seed, epoch, together, window_blocks)
        elif any(count and not self._has_samples(dataset) for dataset, count in enumerate(self.counts)):
            raise DataError("a dataset of the mixture has no samples, or all of them are dropped")

    def __len__(self) -> int:
        return len(self._all) if self._all is not None else sum(self.counts)

    def keys(self, start: int, stop: int) -> list[SampleKey]:
        """(pass of the dataset, sample number in the mixture) at positions start .. stop - 1."""
        if self._all is not None:
            return self._all.keys(start, stop)
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"positions {start} to {stop} of {len(self)}")
        if self._arranged is None:
            self._arranged = self._arrange()
        return [(own_pass, sample) for own_pass, sample in self._arranged[start:stop].tolist()]

    def stops(self) -> list[int]:
        """With counts: `starts` of the next epoch."""
        return [self._draws(dataset)[1] for dataset in range(len(self.sizes))]

    def _has_samples(self, dataset: int) -> bool:
        own = slice(*self.offsets[dataset : dataset + 2])
        return bool(self.sizes[dataset]) and (self.is_dropped is None or not self.is_dropped[own].all())

    def _arrange(self) -> np.ndarray:
        """The keys of the epoch, int64 [samples, 2].

        Sample i of the c of a dataset is at a random place of the part [i / c, (i + 1) / c] of the epoch, so that every
        step has about the share of each dataset.
        """
        keys = [self._draws(dataset)[0] for dataset in range(len(self.sizes))]
        places = []
        for dataset, count in enumerate(self.counts):
            within = (random_keys(f"{self.name}/places/{dataset}", count) >> np.uint64(11)) * 2.0**-53
            places.append((np.arange(count) + within) / max(1, count))
        return np.concatenate(keys)[np.argsort(np.concatenate(places), kind="stable")]

    def _draws(self, dataset: int) -> tuple[np.ndarray, int]:
        """The keys that a dataset contributes, in the order of its passes, int64 [count, 2], and where they stop."""
        size, position, missing = self.sizes[dataset], self.starts[dataset], self.counts[dataset]
        pieces, order = [np.zeros((0, 2), np.int64)], None
        while missing:
            own_pass, first = divmod(position, size)
            if order is None or order.epoch != own_pass:
                order = EpochOrder(
                    self.index_hashes[dataset], self.seed, own_pass, self.block_sizes[dataset], self.window_blocks
                )
            samples = order.take(first, min(size, first + missing)) + self.offsets[dataset]
            position += len(samples)
            if self.is_dropped is not None:
                samples = samples[~self.is_dropped[samples]]
            pieces.append(np.stack([np.full_like(samples, own_pass), samples], axis=1))
            missing -= len(samples)
        return np.concatenate(pieces), position
