"""The order of samples in an epoch, computed and never discovered: a pure function of (index hash, seed, epoch).

Positions in that order are the only data state that a run has. Step s of global batch G consumes the positions
[s*G, (s+1)*G), and ranks and micro-batches are slices inside them, so neither the number of ranks nor that of workers
moves a sample. Only the positions that are asked for are computed, so going on anywhere takes the same time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

SampleKey = tuple[int, int]  # (epoch, sample number)

# Shards that are shuffled together: 256 shards of 1,000 samples hold a quarter of a million.
DEFAULT_WINDOW_SHARDS = 256


class SampleOrder(Protocol):
    """The samples of one epoch by position; `name` says what decides them."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def keys(self, start: int, stop: int) -> list[SampleKey]:
        """(epoch, sample number) at the positions start .. stop - 1."""
        ...


def permutation(name: str, size: int) -> np.ndarray:
    """A permutation of 0 .. size - 1 that a name decides, int64.

    Only the raw output of the PCG64 bit generator is used, which numpy keeps the same in every version, unlike
    `Generator.permutation`.
    """
    digest = hashlib.sha256(name.encode()).digest()
    random_keys = np.random.PCG64(int.from_bytes(digest[:16], "big")).random_raw(size)
    return np.argsort(random_keys, kind="stable").astype(np.int64, copy=False)


def sample_order(index_hash: str, seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """The sample number at each position of an epoch in which all samples are shuffled together.

    Args:
        index_hash: `ShardIndex.hash`, or a hash that also covers a selection of samples.
        seed: seed of the run.
        epoch: 0, 1, 2, ...
        num_samples: how many samples there are.

    Returns:
        int64 [num_samples], a permutation of 0 .. num_samples - 1.
    """
    return permutation(f"{index_hash}/{seed}/{epoch}", num_samples)


class EpochOrder:
    """Every sample once, block-shuffled: shards in random order, the samples of each window of shards together.

    With no more shards than a window holds, all samples are shuffled together, as `sample_order` does. A window of W
    shards keeps reading inside W shards at a time, which a cache of remote shards needs; on input whose shards hold
    one class each, labels of neighbours then correlate by 1/W.

    Args:
        index_hash: names the shards, and the selection from them.
        seed: seed of the run.
        epoch: 0, 1, 2, ...
        block_sizes: samples of each shard, in the order of the sample numbers.
        window_blocks: shards that are shuffled together.
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
        """int64: the sample numbers at the positions start .. stop - 1."""
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
        """(epoch, sample number) at the positions start .. stop - 1."""
        return [(self.epoch, sample) for sample in self.take(start, stop).tolist()]

    def _shuffled_window(self, number: int) -> np.ndarray:
        if self._window[0] != number:
            samples = np.concatenate([np.arange(start, start + size) for start, size in self._blocks[number]])
            name = self.name if self.num_windows == 1 else f"{self.name}/{number}"
            self._window = (number, samples[permutation(name, len(samples))])
        return self._window[1]


class LengthBucketOrder:
    """Another order's samples, those of like text length in the same step.

    The positions of each window of so many steps are sorted by length, cut into steps, and the steps shuffled. An epoch
    still has every sample once and the same number of steps.

    Args:
        order: what is rearranged.
        lengths: length of each sample number.
        step_size: samples of a step (the global batch).
        window_steps: steps in whose samples the like are sought; more of them pad less and mix less.
    """

    def __init__(self, order: SampleOrder, lengths: np.ndarray, step_size: int, window_steps: int):
        self.order, self.lengths = order, lengths
        self.step_size, self.window_size = step_size, step_size * window_steps
        self._window: tuple[int, list[SampleKey]] = (-1, [])

    @property
    def name(self) -> str:
        """What decides the order."""
        return self.order.name

    def __len__(self) -> int:
        return len(self.order)

    def keys(self, start: int, stop: int) -> list[SampleKey]:
        """(epoch, sample number) at the positions start .. stop - 1."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"positions {start} to {stop} of {len(self)}")
        keys: list[SampleKey] = []
        for number in range(start // self.window_size, -(-stop // self.window_size)):
            first = number * self.window_size
            keys += self._arranged_window(number)[max(0, start - first) : stop - first]
        return keys

    def _arranged_window(self, number: int) -> list[SampleKey]:
        if self._window[0] != number:
            start = number * self.window_size
            keys = self.order.keys(start, min(start + self.window_size, len(self)))
            keys.sort(key=lambda key: self.lengths[key[1]])
            num_full, rest = divmod(len(keys), self.step_size)
            name = f"{self.order.name}/steps/{number}"
            # A short step must come last; which lengths it holds is left to chance like everything else.
            first = int(permutation(f"{name}/rest", num_full + 1)[0]) * self.step_size
            short = keys[first : first + rest]
            del keys[first : first + rest]
            steps = [keys[step * self.step_size : (step + 1) * self.step_size] for step in range(num_full)]
            arranged = [key for step in permutation(name, num_full).tolist() for key in steps[step]]
            self._window = (number, arranged + short)
        return self._window[1]


def num_steps(num_samples: int, global_batch: int) -> int:
    """Steps of an epoch; the last one is short where the global batch does not divide the samples."""
    return -(-num_samples // global_batch)


def num_micro_batches(num_samples: int, global_batch: int, step: int, world_size: int, micro_batch: int) -> int:
    """Micro-batches that every rank takes in a step, the same for all of them."""
    size = min(global_batch, num_samples - step * global_batch)
    largest_rank = -(-size // world_size)
    return -(-largest_rank // micro_batch)


def step_slices(
    num_samples: int, global_batch: int, step: int, rank: int, world_size: int, micro_batch: int
) -> list[tuple[int, int]]:
    """Positions in the order that a rank takes in a step, one (start, stop) for each micro-batch.

    The ranks share the step's positions in contiguous pieces whose lengths differ by one at most; a rank shares its
    piece among its micro-batches in the same way. All ranks get the same number of micro-batches. Only where the step
    has too few samples to go round (the short last step of an epoch on many ranks) one is empty, start == stop.
    """
    start = step * global_batch
    size = min(global_batch, num_samples - start)
    if step < 0 or size <= 0:
        raise IndexError(f"step {step} lies outside the epoch of {num_steps(num_samples, global_batch)} steps")
    count = num_micro_batches(num_samples, global_batch, step, world_size, micro_batch)
    first, last = start + size * rank // world_size, start + size * (rank + 1) // world_size
    length = last - first
    return [(first + length * part // count, first + length * (part + 1) // count) for part in range(count)]
