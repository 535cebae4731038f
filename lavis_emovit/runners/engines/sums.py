"""Sums over ranks: of gradients, and of what a step measured.

DistributedDataParallel is not used: it needs a backward pass on every rank, but the last step of an epoch may leave a
rank without samples. The trained part of the model is small, so summing its gradients once, after all micro-batches,
costs milliseconds a step and weights them exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from lavis_emovit.distributed import processes
from lavis_emovit.models.lengths import PassSizes, add_sizes
from lavis_emovit.tasks.base import PairValues, StepLoss

BUCKET_BYTES = 64 * 2**20


@dataclass(frozen=True)
class StepFacts:
    """What all ranks together measured in a step.

    Attributes:
        loss_sum, weight, measures: as in `StepLoss`, summed.
        present: for each parameter whether any rank has a gradient for it.
        noted: as in `StepLoss`; the lists of the ranks one after the other.
    """

    loss_sum: float
    weight: int
    present: Sequence[bool]
    noted: Mapping[str, Sequence[str]]
    measures: Mapping[str, float]


class StepSums:
    """Adds up the losses of this rank's micro-batches, then those of all ranks."""

    def __init__(self, device: torch.device, measure_names: Sequence[str] = ()):
        # Read once, after all micro-batches, so that nothing waits for a GPU in between.
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.weight = 0
        self.sizes: PassSizes | None = None
        self.pair_values: list[PairValues] = []
        self._noted: dict[str, list[str]] = {}
        self._measures = dict.fromkeys(measure_names, 0.0)

    def add(self, loss: StepLoss) -> None:
        """Add the loss of a micro-batch."""
        self.loss_sum += loss.loss_sum.detach()
        self.weight += loss.weight
        self.sizes = add_sizes(self.sizes, loss.sizes)
        if loss.pair_values is not None:
            self.pair_values.append(loss.pair_values)
        for name, instance_ids in loss.noted.items():
            self._noted.setdefault(name, []).extend(instance_ids)
        if loss.measures.keys() != self._measures.keys():
            raise ValueError(
                f"the task measures {sorted(loss.measures)} (StepLoss.measures), but its measure_names are "
                f"{sorted(self._measures)}"
            )
        for name, value in loss.measures.items():
            self._measures[name] += value

    def joined(self, present: Sequence[bool] = ()) -> StepFacts:
        """The sums over all ranks, in one small collective, and a second one if pairs were noted.

        `present` is True for each parameter with a gradient on this rank.
        """
        if processes.world_size() == 1:
            return StepFacts(self.loss_sum.item(), self.weight, present, self._noted, self._measures)
        num_noted = sum(len(instance_ids) for instance_ids in self._noted.values())
        numbers = [self.weight, num_noted, *self._measures.values(), *present]
        facts = torch.cat(
            [self.loss_sum.reshape(1), torch.tensor(numbers, dtype=torch.float64, device=self.loss_sum.device)]
        )
        dist.all_reduce(facts)
        loss_sum, weight, total_noted, *rest = facts.tolist()
        measures = dict(zip(self._measures, rest))
        noted: dict[str, list[str]] = {}
        for of_rank in processes.gather_objects(self._noted) if total_noted else ():
            for name, instance_ids in of_rank.items():
                noted.setdefault(name, []).extend(instance_ids)
        return StepFacts(loss_sum, int(weight), [count > 0 for count in rest[len(measures) :]], noted, measures)


def sum_gradients(parameters: Sequence[nn.Parameter], bucket_bytes: int = BUCKET_BYTES) -> None:
    """Sum the gradients of these parameters over all ranks, in place; a rank without a gradient counts as zero.

    Gradients are sent in their own precision, in buckets, all at once.
    """
    if processes.world_size() == 1:
        return
    under_way = []
    for bucket in _buckets(parameters, bucket_bytes):
        gradients = []
        for parameter in bucket:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        under_way.append((dist.all_reduce(flat, async_op=True), flat, gradients))
    for work, flat, gradients in under_way:
        work.wait()
        for gradient, summed in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(summed.view_as(gradient))


def broadcast_parameters(parameters: Sequence[nn.Parameter], bucket_bytes: int = BUCKET_BYTES) -> None:
    """Give every rank rank 0's values."""
    if processes.world_size() == 1:
        return
    with torch.no_grad():
        for bucket in _buckets(parameters, bucket_bytes):
            flat = torch.cat([parameter.reshape(-1) for parameter in bucket])
            dist.broadcast(flat, src=0)
            for parameter, value in zip(bucket, flat.split([parameter.numel() for parameter in bucket])):
                parameter.copy_(value.view_as(parameter))


def _buckets(parameters: Sequence[nn.Parameter], bucket_bytes: int) -> Iterator[list[nn.Parameter]]:
    """Consecutive parameters of one type up to a total size; a larger one forms its own bucket."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        own = parameter.numel() * parameter.element_size()
        if bucket and (size + own > bucket_bytes or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += own
    if bucket:
        yield bucket
