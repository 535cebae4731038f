"""Which samples a rank takes at which step.

An epoch's order is computed from (index hash, seed, epoch). Step s of global batch G takes the positions
[s*G, (s+1)*G) of it; a rank's share and its micro-batches are slices of that (`shards/order.py`). So the samples of a
step are the same for every number of ranks, workers and micro-batches, and the position of a run is (epoch, step):
going on at a step is a jump, nothing is read again.

The last step of an epoch is short where G does not divide the samples; it is trained on like the others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from lavis_emovit.shards.order import EpochOrder, SampleKey, SampleOrder, num_micro_batches, num_steps, step_slices
from lavis_emovit.shards.token_lengths import TokenLengths


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
        order: the epoch's order; None shuffles all samples together.
        token_lengths: text lengths of the samples, for `max_tokens`.
        max_tokens: most text tokens, padding included, that a rank takes at once; a sample that alone has more is
            taken alone. `micro_batch` bounds the samples all the same.
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
        *,
        order: SampleOrder | None = None,
        token_lengths: TokenLengths | None = None,
        max_tokens: int | None = None,
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
        self.order = order if order is not None else EpochOrder(index_hash, seed, epoch, [num_samples])
        if len(self.order) != num_samples:
            raise ValueError(f"the order has {len(self.order)} positions for {num_samples} samples")
        if max_tokens is not None and token_lengths is None:
            raise ValueError("max_tokens needs token_lengths")
        self.token_lengths, self.max_tokens = token_lengths, max_tokens
        self._planned: tuple[int, list[list[list[SampleKey]]]] = (-1, [])

    def micro_batches_in_step(self, step: int) -> int:
        """How many of the yielded lists belong to a step."""
        if self.max_tokens is not None:
            return len(self._token_batches(step)[0])
        return num_micro_batches(self.num_samples, self.global_batch, step, self.world_size, self.micro_batch)

    def micro_batch_counts(self) -> Iterator[int]:
        """`micro_batches_in_step` of every step from `start_step` on; may be read beside the sampler itself."""
        counting = copy.copy(self)
        if counting.max_tokens is not None:
            # The order keeps the window that it is at; two readers at different places would fight over it.
            counting.order = copy.copy(self.order)
        return (counting.micro_batches_in_step(step) for step in range(self.start_step, self.num_steps))

    def samples_in_step(self, step: int) -> int:
        """Samples of a step over all ranks: the global batch, or what is left for the last step."""
        return min(self.global_batch, self.num_samples - step * self.global_batch)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(self.start_step, self.num_steps):
            if self.max_tokens is not None:
                yield from self._token_batches(step)[self.rank]
                continue
            slices = step_slices(
                self.num_samples, self.global_batch, step, self.rank, self.world_size, self.micro_batch
            )
            for first, last in slices:
                yield self.order.keys(first, last)

    def __len__(self) -> int:
        full = self.num_steps - 1
        if self.start_step >= self.num_steps:
            return 0
        if self.max_tokens is not None:
            return sum(self.micro_batches_in_step(step) for step in range(self.start_step, self.num_steps))
        return (full - self.start_step) * self.micro_batches_in_step(0) + self.micro_batches_in_step(full)

    def _token_batches(self, step: int) -> list[list[list[SampleKey]]]:
        """Micro-batches of a step within the token budget, for every rank the same number of them."""
        if self._planned[0] != step:
            ranks = []
            for rank in range(self.world_size):
                start, size = step * self.global_batch, self.samples_in_step(step)
                first, last = size * rank // self.world_size, size * (rank + 1) // self.world_size
                ranks.append(self._cut(self.order.keys(start + first, start + last)))
            count = max(len(batches) for batches in ranks)
            self._planned = (step, [_as_many(batches, count) for batches in ranks])
        return self._planned[1]

    def _cut(self, keys: Sequence[SampleKey]) -> list[list[SampleKey]]:
        assert self.token_lengths is not None and self.max_tokens is not None
        batches: list[list[SampleKey]] = []
        num_pairs = longest = 0
        for key in keys:
            pairs, tokens = self.token_lengths.of(key[1])
            num_pairs, longest = num_pairs + pairs, max(longest, tokens)
            fits = bool(batches) and len(batches[-1]) < self.micro_batch and num_pairs * longest <= self.max_tokens
            if not fits:
                batches.append([])
                num_pairs, longest = pairs, tokens
            batches[-1].append(key)
        return batches or [[]]


def _as_many(batches: list[list[SampleKey]], count: int) -> list[list[SampleKey]]:
    """So many batches: the largest are halved, and where all hold one sample, empty ones are added."""
    batches = list(batches)
    while len(batches) < count:
        largest = max(range(len(batches)), key=lambda number: len(batches[number]))
        batch = batches[largest]
        middle = -(-len(batch) // 2)
        batches[largest : largest + 1] = [batch[:middle], batch[middle:]]
    return batches


class SequentialBatchSampler(Sampler[list[SampleKey]]):
    """Batch sampler for evaluation: every sample once, in the order of the shards, each rank some batches in a row.

    The batches are the same for every number of ranks, so that what a model makes of them is the same to the last bit.

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
        num_batches = -(-total // batch_size)
        self.first = min(total, num_batches * rank // world_size * batch_size)
        self.last = min(total, num_batches * (rank + 1) // world_size * batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in range(self.first, self.last, self.batch_size):
            yield [(0, sample) for sample in range(start, min(start + self.batch_size, self.last))]

    def __len__(self) -> int:
        return -(-(self.last - self.first) // self.batch_size)
