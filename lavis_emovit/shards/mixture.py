"""The sample order of a mixture of datasets, as exact as that of a single one.

Without ratios an epoch has every sample of every dataset once. With ratios it consists of patterns. In each pattern
every dataset has exactly its share, in shuffled positions. A dataset goes through its own samples pass by pass, each
once per pass, across the ends of patterns and epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.shards.order import DEFAULT_WINDOW_SHARDS, EpochOrder, SampleKey, permutation, window_keys

_MIN_PATTERN = 64
_MAX_PATTERN = 100_000


class MixtureOrder:
    """Positions of an epoch of several datasets; see `EpochOrder` for the arguments that each dataset has.

    Sample numbers run through the datasets one after the other. The epoch in a key is the pass of the sample's own
    dataset, so that a sample that repeats within an epoch of the mixture is augmented differently. `ratios` is the
    share of each dataset, in any unit (`[3, 1]`, `[0.75, 0.25]`); None: every sample once. `epoch_size` is the number
    of samples of an epoch with ratios, rounded up to whole patterns; None: as many as there are samples.

    Raises:
        DataError: ratios that are not positive, not one per dataset, or need too long a pattern.
    """

    def __init__(
        self,
        index_hashes: Sequence[str],
        seed: int,
        epoch: int,
        block_sizes: Sequence[Sequence[int] | np.ndarray],
        *,
        ratios: Sequence[float] | None = None,
        epoch_size: int | None = None,
        window_blocks: int = DEFAULT_WINDOW_SHARDS,
    ):
        self.epoch, self.seed, self.window_blocks = epoch, seed, window_blocks
        self.index_hashes, self.block_sizes = list(index_hashes), [np.asarray(sizes) for sizes in block_sizes]
        self.sizes = [int(sizes.sum()) for sizes in self.block_sizes]
        self.offsets = np.cumsum([0, *self.sizes])
        self.name = f"{'+'.join(self.index_hashes)}/{seed}/{epoch}"
        self._all: EpochOrder | None = None
        self._passes: dict[int, tuple[int, EpochOrder]] = {}
        if ratios is None:
            together = np.concatenate(self.block_sizes)
            self._all = EpochOrder("+".join(self.index_hashes), seed, epoch, together, window_blocks)
            self.counts, self.num_patterns = [], 0
            return
        if min(self.sizes) < 1:
            raise DataError("a dataset of the mixture has no samples")
        self.counts = pattern_counts(ratios, len(self.sizes))
        wanted = epoch_size if epoch_size is not None else sum(self.sizes)
        self.num_patterns = max(1, -(-wanted // sum(self.counts)))

    def __len__(self) -> int:
        return len(self._all) if self._all is not None else self.num_patterns * sum(self.counts)

    def keys(self, start: int, stop: int) -> list[SampleKey]:
        """(pass of the dataset, sample number in the mixture) at positions start .. stop - 1."""
        if self._all is not None:
            return self._all.keys(start, stop)
        return window_keys(self._pattern_keys, sum(self.counts), len(self), start, stop)

    def _pattern_keys(self, pattern: int) -> list[SampleKey]:
        number = self.epoch * self.num_patterns + pattern
        datasets = np.repeat(np.arange(len(self.counts)), self.counts)
        datasets = datasets[permutation(f"{self.name}/pattern/{pattern}", len(datasets))]
        keys: list[SampleKey] = [(0, 0)] * len(datasets)
        for dataset, count in enumerate(self.counts):
            draws = range(number * count, (number + 1) * count)
            for place, key in zip(np.flatnonzero(datasets == dataset).tolist(), self._draws(dataset, draws)):
                keys[place] = key
        return keys

    def _draws(self, dataset: int, draws: range) -> list[SampleKey]:
        """Samples that a dataset contributes at its draws, counted from the start of training."""
        size, offset = self.sizes[dataset], int(self.offsets[dataset])
        keys: list[SampleKey] = []
        start = draws.start
        while start < draws.stop:
            own_pass, first = divmod(start, size)
            last = min(size, first + draws.stop - start)
            cached = self._passes.get(dataset)
            if cached is None or cached[0] != own_pass:
                order = EpochOrder(
                    self.index_hashes[dataset], self.seed, own_pass, self.block_sizes[dataset], self.window_blocks
                )
                cached = self._passes[dataset] = (own_pass, order)
            keys += [(own_pass, offset + sample) for sample in cached[1].take(first, last).tolist()]
            start += last - first
        return keys


def pattern_counts(ratios: Sequence[float], num_datasets: int) -> list[int]:
    """How often each dataset appears in a pattern: whole numbers in the given ratios; raises as `MixtureOrder`."""
    if len(ratios) != num_datasets:
        raise DataError(f"{len(ratios)} ratios for {num_datasets} datasets; give one per dataset")
    if any(not math.isfinite(ratio) or ratio <= 0 for ratio in ratios):
        raise DataError(f"ratios must be above 0, got {', '.join(f'{ratio:g}' for ratio in ratios)}")
    # The decimal as written: 0.1 is one tenth, not the binary number next to it.
    exact = [Fraction(str(ratio)) for ratio in ratios]
    common = math.lcm(*(ratio.denominator for ratio in exact))
    counts = [int(ratio * common) for ratio in exact]
    divisor = math.gcd(*counts)
    counts = [count // divisor for count in counts]
    if sum(counts) > _MAX_PATTERN:
        raise DataError(
            f"ratios {', '.join(str(ratio) for ratio in ratios)} repeat only after {sum(counts)} samples; "
            "round them to fewer digits"
        )
    return [count * -(-_MIN_PATTERN // sum(counts)) for count in counts]
