"""The sample order of an epoch: a pure function of (index hash, seed, epoch).

The position in that order is the only data state of a run. Step s of global batch G takes the positions
[s*G, (s+1)*G), and ranks and micro-batches are slices of these, so the number of ranks and workers does not change the
order. Only the requested positions are computed, so resuming takes the same time everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

SampleKey = tuple[int, int]  # (epoch, sample number)

# Shards that are shuffled together: 256 shards of 1,000 samples hold a quarter of a million.
DEFAULT_WINDOW_SHARDS = 256


class SampleOrder(Protocol):
    """The samples of one epoch by position; `name` identifies the order."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def keys(self, start: int, stop: int) -> list[SampleKey]:
        """(epoch, sample number) at positions start .. stop - 1."""
        ...


def random_keys(name: str, size: int) -> np.ndarray:
    """Random numbers that belong to a name, uint64.

    They are the raw output of the PCG64 bit generator, which numpy keeps the same in every version, unlike
    `Generator.permutation`.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.PCG64(int.from_bytes(digest[:16], "big")).random_raw(size)


def permutation(name: str, size: int) -> np.ndarray:
    """The permutation of 0 .. size - 1 that belongs to a name, int64."""
    return np.argsort(random_keys(name, size), kind="stable").astype(np.int64, copy=False)


def window_keys(
    window: Callable[[int], list[SampleKey]], size: int, total: int, start: int, stop: int
) -> list[SampleKey]:
    """The keys at positions start .. stop - 1 of an order that is computed in windows of one size."""
    if not 0 <= start <= stop <= total:
        raise IndexError(f"positions {start} to {stop} of {total}")
    keys: list[SampleKey] = []
    for number in range(start // size, -(-stop // size)):
        first = number * size
        keys += window(number)[max(0, start - first) : stop - first]
    return keys


class EpochOrder:
    """Every sample once, block-shuffled: shards in random order, the samples of each window of shards together.

    If all shards fit into one window, all samples are shuffled together. A window of W shards limits reading to W
    shards at a time, which a cache of remote shards needs. If each shard holds a single class, labels of neighbours
    then correlate by 1/W.

    `index_hash` identifies the shards and the selection of samples from them; `block_sizes` are the samples of each
    shard, in the order of the sample numbers.
    """

    def __init__(
        self,
        index_hash: str,
        seed: int,
        epoch: int,
        block_sizes: Sequence[int] | np.ndarray,
        window_blocks: int = DEFAULT_WINDOW_SHARDS,
    ):
        if window_blocks < 1:
            raise ValueError(f"window_blocks must be at least 1, got {window_blocks}")
        self.name, self.epoch = f"{index_hash}/{seed}/{epoch}", epoch
        sizes = np.asarray(block_sizes, dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        self.num_windows = max(1, -(-len(sizes) // window_blocks))
        shuffled = np.arange(len(sizes)) if self.num_windows == 1 else permutation(f"{self.name}/shards", len(sizes))
        self._blocks = [
            [(int(starts[block]), int(sizes[block])) for block in shuffled[first : first + window_blocks]]
            for first in range(0, max(1, len(sizes)), window_blocks)
        ]
        self.window_starts = np.cumsum([0, *(sum(size for _, size in blocks) for blocks in self._blocks)])
        self._window: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def __len__(self) -> int:
        return int(self.window_starts[-1])

    def take(self, start: int, stop: int) -> np.ndarray:
        """int64: the sample numbers at positions start .. stop - 1."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"positions {start} to {stop} of {len(self)}")
        pieces = [np.zeros(0, np.int64)]
        while start < stop:
            number = int(np.searchsorted(self.window_starts, start, side="right")) - 1
            first = int(self.window_starts[number])
            window = self._shuffled_window(number)
            pieces.append(window[start - first : stop - first])
            start += len(pieces[-1])
        return np.concatenate(pieces)

    def keys(self, start: int, stop: int) -> list[SampleKey]:
        return [(self.epoch, sample) for sample in self.take(start, stop).tolist()]

    def _shuffled_window(self, number: int) -> np.ndarray:
        if self._window[0] != number:
            samples = np.concatenate([np.arange(start, start + size) for start, size in self._blocks[number]])
            name = self.name if self.num_windows == 1 else f"{self.name}/{number}"
            self._window = (number, samples[permutation(name, len(samples))])
        return self._window[1]


class LengthBucketOrder:
    """The samples of another order, rearranged so that the samples of a step have similar text lengths.

    The positions of each window of steps are sorted by length and cut into steps (global batches), and the steps are
    shuffled. An epoch still has every sample once and the same number of steps. More `window_steps` need less padding
    and mix less. `lengths` has the length of each sample, by number.
    """

    def __init__(self, order: SampleOrder, lengths: np.ndarray, step_size: int, window_steps: int):
        self.order, self.lengths = order, lengths
        self.step_size, self.window_size = step_size, step_size * window_steps
        self._window: tuple[int, list[SampleKey]] = (-1, [])

    @property
    def name(self) -> str:
        return self.order.name

    def __len__(self) -> int:
        return len(self.order)

    def keys(self, start: int, stop: int) -> list[SampleKey]:
        return window_keys(self._arranged_window, self.window_size, len(self), start, stop)

    def _arranged_window(self, number: int) -> list[SampleKey]:
        if self._window[0] != number:
            start = number * self.window_size
            keys = self.order.keys(start, min(start + self.window_size, len(self)))
            keys.sort(key=lambda key: self.lengths[key[1]])
            num_full, rest = divmod(len(keys), self.step_size)
            name = f"{self.order.name}/steps/{number}"
            # A short step must come last; its lengths are chosen at random like those of any other step.
            first = int(permutation(f"{name}/rest", num_full + 1)[0]) * self.step_size
            short = keys[first : first + rest]
            del keys[first : first + rest]
            steps = [keys[step * self.step_size : (step + 1) * self.step_size] for step in range(num_full)]
            arranged = [key for step in permutation(name, num_full).tolist() for key in steps[step]]
            self._window = (number, arranged + short)
        return self._window[1]


def num_steps(num_samples: int, global_batch: int) -> int:
    """Steps of an epoch; the last one is short if the global batch does not divide the samples."""
    return -(-num_samples // global_batch)


def num_micro_batches(num_samples: int, global_batch: int, step: int, world_size: int, micro_batch: int) -> int:
    """Micro-batches of every rank in a step, the same number on all ranks."""
    size = min(global_batch, num_samples - step * global_batch)
    largest_rank = -(-size // world_size)
    return -(-largest_rank // micro_batch)


def step_slices(
    num_samples: int, global_batch: int, step: int, rank: int, world_size: int, micro_batch: int
) -> list[tuple[int, int]]:
    """Positions in the order that a rank takes in a step: (start, stop) of each micro-batch.

    The positions of the step are divided among the ranks in contiguous pieces whose lengths differ by at most one, and
    each piece among micro-batches in the same way. All ranks get the same number of micro-batches. One is empty
    (start == stop) only if the step has too few samples, as the short last step of an epoch may have on many ranks.
    """
    start = step * global_batch
    size = min(global_batch, num_samples - start)
    if step < 0 or size <= 0:
        raise IndexError(f"step {step} is outside the epoch of {num_steps(num_samples, global_batch)} steps")
    count = num_micro_batches(num_samples, global_batch, step, world_size, micro_batch)
    first, last = start + size * rank // world_size, start + size * (rank + 1) // world_size
    length = last - first
    return [(first + length * part // count, first + length * (part + 1) // count) for part in range(count)]
