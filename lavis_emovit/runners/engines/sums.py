"""Sums over ranks: of gradients, and of what a step has measured.

DistributedDataParallel is not used. It reduces the mean over ranks during the last backward pass and needs that pass on
every rank, while the last step of an epoch may leave a rank without a sample. The trained part of the model is small
beside the frozen one, so its gradients are summed once, when all micro-batches are through; the little overlap that is
given up costs milliseconds a step, and the sum is weighted by tokens exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from lavis_emovit.distributed import processes

BUCKET_BYTES = 64 * 2**20


@dataclass(frozen=True)
class StepFacts:
    """What the ranks know of a step after they have told each other.

    Attributes:
        loss_sum: over the answer tokens of the global batch.
        num_tokens: of the global batch.
        present: for each parameter whether any rank has a gradient for it.
        noted: as in `StepResult`, the ranks' lists one behind the other.
    """

    loss_sum: float
    num_tokens: int
    present: list[bool]
    noted: dict[str, list[str]]


def join_facts(
    loss_sum: torch.Tensor, num_tokens: int, present: Sequence[bool], noted: Mapping[str, list[str]]
) -> StepFacts:
    """Sum the facts of a step over all ranks: one small collective, and a second one where pairs were noted.

    Args:
        loss_sum: float64 scalar of this rank, on its device.
        num_tokens: of this rank.
        present: for each parameter whether this rank has a gradient.
        noted: of this rank.
    """
    if processes.world_size() == 1:
        return StepFacts(loss_sum.item(), num_tokens, list(present), dict(noted))
    num_noted = sum(len(instance_ids) for instance_ids in noted.values())
    numbers = torch.tensor([num_tokens, num_noted, *present], dtype=torch.float64, device=loss_sum.device)
    facts = torch.cat([loss_sum.double().reshape(1), numbers])
    dist.all_reduce(facts)
    total_loss, total_tokens, total_noted, *total_present = facts.tolist()
    joined = {name: list(instance_ids) for name, instance_ids in noted.items()}
    if total_noted:
        joined = {}
        for own in processes.gather_objects(dict(noted)):
            for name, instance_ids in own.items():
                joined.setdefault(name, []).extend(instance_ids)
    return StepFacts(total_loss, int(total_tokens), [count > 0 for count in total_present], joined)


def sum_gradients(parameters: Sequence[nn.Parameter], bucket_bytes: int = BUCKET_BYTES) -> None:
    """Sum the gradients of these parameters over all ranks, in place; a rank without one has zeros.

    Gradients travel in their own precision, many in one message, and all messages at once.
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
    """Parameters of one type in a row that together do not exceed a size; one that alone exceeds it goes alone."""
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
