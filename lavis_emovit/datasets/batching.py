"""Which samples a rank takes at which step.

An epoch's order is computed from (index hash, seed, epoch). Step s of global batch G takes the positions
[s*G, (s+1)*G) of it; a rank's share and its micro-batches are slices of that (`shards/order.py`). So the samples of a
step are the same for every number of ranks, workers and micro-batches, and the position of a run is (epoch, step):
going on at a step is a jump, nothing is read again.

The last step of an epoch is short where G does not divide the samples; it is trained on like the others.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from lavis_emovit.shards.order import num_micro_batches, num_steps, sample_order, step_slices

SampleKey = tuple[int, int]  # (epoch, sample number)


class GlobalBatchSampler(Sampler[list[SampleKey]]):
    """Batch sampler of one rank for one epoch; yields one list of (epoch, sample) keys for each micro-batch.

    `micro_batches_in_step(step)` says how many of them make up a step, the same on all ranks. On many ranks the short
    last step may leave one with an empty list; `collate` turns that into a batch without samples, so that every rank
    runs the same number of micro-batches.

    Args:
        num_samples: length of the dataset.
        index_hash: the dataset's `order_hash`.
        global_batch: samples of one optimizer step over all ranks.
        seed: seed of the order.
        epoch: number of the epoch.
        rank, world_size: which rank of how many.
        micro_batch: most samples that a rank takes at once.
        start_step: first step to yield, to go on in the middle of an epoch.
    """

    def __init__(
        self,
        num_samples: int,
        index_hash: str,
        global_batch: int,
        seed: int,
        epoch: int,
        rank: int = 0,
        world_size: int = 1,
        micro_batch: int | None = None,
        start_step: int = 0,
    ):
        self.micro_batch = micro_batch if micro_batch is not None else -(-global_batch // world_size)
        if min(num_samples, global_batch, world_size, self.micro_batch) < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"cannot batch {num_samples} samples by {global_batch} (micro-batch {self.micro_batch}) "
                f"for rank {rank} of {world_size}: sizes start at 1, ranks at 0"
            )
        self.num_samples, self.index_hash, self.global_batch = num_samples, index_hash, global_batch
        self.seed, self.epoch, self.rank, self.world_size = seed, epoch, rank, world_size
        self.num_steps = num_steps(num_samples, global_batch)
        if not 0 <= start_step <= self.num_steps:
            raise ValueError(f"start_step {start_step} lies outside the epoch of {self.num_steps} steps")
        self.start_step = start_step

    def micro_batches_in_step(self, step: int) -> int:
        """How many of the yielded lists belong to a step."""
        return num_micro_batches(self.num_samples, self.global_batch, step, self.world_size, self.micro_batch)

    def samples_in_step(self, step: int) -> int:
        """Samples of a step over all ranks: the global batch, or what is left for the last step."""
        return min(self.global_batch, self.num_samples - step * self.global_batch)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order = sample_order(self.index_hash, self.seed, self.epoch, self.num_samples)
        for step in range(self.start_step, self.num_steps):
            slices = step_slices(
                self.num_samples, self.global_batch, step, self.rank, self.world_size, self.micro_batch
            )
            for first, last in slices:
                yield [(self.epoch, int(sample)) for sample in order[first:last]]

    def __len__(self) -> int:
        full = self.num_steps - 1
        if self.start_step >= self.num_steps:
            return 0
        return (full - self.start_step) * self.micro_batches_in_step(0) + self.micro_batches_in_step(full)


class SequentialBatchSampler(Sampler[list[SampleKey]]):
    """Batch sampler for evaluation: every sample once, in the order of the shards, each rank a contiguous part.

    Args:
        num_samples: length of the dataset.
        batch_size: samples of a batch.
        rank, world_size: which rank of how many.
        limit: only the first so many samples; the shards are shuffled, so these are a fair choice.
    """

    def __init__(self, num_samples: int, batch_size: int, rank: int = 0, world_size: int = 1, limit: int | None = None):
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"cannot batch by {batch_size} for rank {rank} of {world_size}")
        total = num_samples if limit is None else min(limit, num_samples)
        self.batch_size = batch_size
        self.first, self.last = total * rank // world_size, total * (rank + 1) // world_size

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in range(self.first, self.last, self.batch_size):
            yield [(0, sample) for sample in range(start, min(start + self.batch_size, self.last))]

    def __len__(self) -> int:
        return -(-(self.last - self.first) // self.batch_size)
