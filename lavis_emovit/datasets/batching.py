"""Batch samplers: which slices of an epoch's order (`shards/order.py`) a rank takes at which step."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch.utils.data import Sampler

from lavis_emovit.shards.order import SampleKey, SampleOrder, num_micro_batches, num_steps, step_slices
from lavis_emovit.shards.token_lengths import TokenLengths


class GlobalBatchSampler(Sampler[list[SampleKey]]):
    """Batch sampler of one rank for one epoch; yields one list of (epoch, sample) keys per micro-batch.

    Step s of global batch G takes the positions [s*G, (s+1)*G) of the order; the last step is short if G does not
    divide the samples. A step has `micro_batches_in_step(step)` micro-batches, the same number on all ranks. If the
    last step has fewer samples than ranks, some lists are empty; `collate` turns them into batches without samples.

    Args:
        order: the samples of the epoch.
        global_batch: samples of one optimizer step over all ranks.
        micro_batch: most samples of a micro-batch; None: the rank's whole share of a step.
        start_step: first step to yield, to resume in the middle of an epoch.
        token_lengths: text lengths of the samples, for `max_tokens`.
        max_tokens: most tokens of a micro-batch, see `TokenLengths.together`; a longer sample gets its own micro-batch.
    """

    def __init__(
        self,
        order: SampleOrder,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        micro_batch: int | None = None,
        start_step: int = 0,
        *,
        token_lengths: TokenLengths | None = None,
        max_tokens: int | None = None,
    ):
        self.order, self.num_samples, self.global_batch = order, len(order), global_batch
        self.rank, self.world_size = rank, world_size
        self.micro_batch = micro_batch if micro_batch is not None else -(-global_batch // world_size)
        if min(self.num_samples, global_batch, world_size, self.micro_batch) < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"cannot batch {self.num_samples} samples by {global_batch} (micro-batch {self.micro_batch}) "
                f"for rank {rank} of {world_size}: sizes must be at least 1, and 0 <= rank < world_size"
            )
        self.num_steps = num_steps(self.num_samples, global_batch)
        if not 0 <= start_step <= self.num_steps:
            raise ValueError(f"start_step {start_step} is outside the epoch of {self.num_steps} steps")
        self.start_step = start_step
        if max_tokens is not None and token_lengths is None:
            raise ValueError("max_tokens needs token_lengths")
        self.token_lengths, self.max_tokens = token_lengths, max_tokens
        self._planned: tuple[int, list[list[list[SampleKey]]]] = (-1, [])

    def micro_batches_in_step(self, step: int) -> int:
        if self.max_tokens is not None:
            return len(self._token_batches(step)[0])
        return num_micro_batches(self.num_samples, self.global_batch, step, self.world_size, self.micro_batch)

    def micro_batch_counts(self) -> Iterator[int]:
        """`micro_batches_in_step` of every step from `start_step` on; independent of iterating the sampler."""
        counting = copy.copy(self)
        if counting.max_tokens is not None:
            # The order caches its current window; two readers at different positions would keep replacing it.
            counting.order = copy.copy(self.order)
        return (counting.micro_batches_in_step(step) for step in range(self.start_step, self.num_steps))

    def samples_in_step(self, step: int) -> int:
        """Samples of a step over all ranks: the global batch, or fewer in the last step."""
        return min(self.global_batch, self.num_samples - step * self.global_batch)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(self.start_step, self.num_steps):
            if self.max_tokens is not None:
                yield from self._token_batches(step)[self.rank]
                continue
            sizes = self.num_samples, self.global_batch
            for first, last in step_slices(*sizes, step, self.rank, self.world_size, self.micro_batch):
                yield self.order.keys(first, last)

    def __len__(self) -> int:
        return sum(self.micro_batches_in_step(step) for step in range(self.start_step, self.num_steps))

    def _token_batches(self, step: int) -> list[list[list[SampleKey]]]:
        """The micro-batches of a step within the token budget, the same number for every rank."""
        if self._planned[0] != step:
            start, size = step * self.global_batch, self.samples_in_step(step)
            edges = [start + size * rank // self.world_size for rank in range(self.world_size + 1)]
            ranks = [self._cut(self.order.keys(first, last)) for first, last in pairwise(edges)]
            count = max(len(batches) for batches in ranks)
            self._planned = (step, [_as_many(batches, count) for batches in ranks])
        return self._planned[1]

    def _cut(self, keys: Sequence[SampleKey]) -> list[list[SampleKey]]:
        assert self.token_lengths is not None and self.max_tokens is not None
        batches: list[list[SampleKey]] = []
        for key in keys:
            fits = bool(batches) and len(batches[-1]) < self.micro_batch
            if fits:
                numbers = [number for _, number in (*batches[-1], key)]
                fits = self.token_lengths.together(numbers) <= self.max_tokens
            if not fits:
                batches.append([])
            batches[-1].append(key)
        return batches or [[]]


def _as_many(batches: list[list[SampleKey]], count: int) -> list[list[SampleKey]]:
    """Exactly `count` batches: halves the largest ones, and adds empty ones once all have a single sample."""
    batches = list(batches)
    while len(batches) < count:
        batch = max(batches, key=len)
        place, middle = batches.index(batch), -(-len(batch) // 2)
        batches[place : place + 1] = [batch[:middle], batch[middle:]]
    return batches
