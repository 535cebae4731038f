"""The order of samples in an epoch, computed and never discovered: a pure function of (index hash, seed, epoch).

Positions in that order are the only data state that a run has. Step s of global batch G consumes the positions
[s*G, (s+1)*G), and ranks and micro-batches are slices inside them, so neither the number of ranks nor that of workers
moves a sample.
"""

from __future__ import annotations

import hashlib

import numpy as np


def sample_order(index_hash: str, seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """The sample number at each position of an epoch.

    Only the raw output of the PCG64 bit generator is used, which numpy keeps the same in every version, unlike
    `Generator.permutation`.

    Args:
        index_hash: `ShardIndex.hash`, or a hash that also covers a selection of samples.
        seed: seed of the run.
        epoch: 0, 1, 2, ...
        num_samples: how many samples there are.

    Returns:
        int64 [num_samples], a permutation of 0 .. num_samples - 1.
    """
    digest = hashlib.sha256(f"{index_hash}/{seed}/{epoch}".encode()).digest()
    random_keys = np.random.PCG64(int.from_bytes(digest[:16], "big")).random_raw(num_samples)
    return np.argsort(random_keys, kind="stable").astype(np.int64, copy=False)


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
