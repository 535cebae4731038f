"""Memory and speed of a training run on GPUs that are not here, from a dry run of one step.

Memory is counted (`models/step_memory.py`) and divided over the processes as ZeRO does (`state_memory.py`). Speed is an
estimate: a step takes the longest of computing, moving weights and starting operations, plus the time of exchange and
optimizer. `Assumptions` has the numbers that are assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import PurePath
from typing import Any

from lavis_emovit.models.step_memory import StepMemory
from lavis_emovit.runners.engines.deepspeed_config import offloads_optimizer, offloads_weights, read_deepspeed_config
from lavis_emovit.runners.gpus import Gpu
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.runners.state_memory import GRADIENT, WEIGHT, state_bytes

GB = 1e9
MAX_MICRO_BATCH = 4096
# AdamW reads weight, gradient and two moments, and writes three of them, all float32.
_OPTIMIZER_TRAFFIC = 28
# A layer that is quantised is written and read as bfloat16 at every call.
_DEQUANTISED = 4
# DeepSpeed's defaults, for keys that a file lacks (deepspeed.ai, configuration of ZeRO).
_BUCKETS = {"reduce_bucket_size": 5e8, "stage3_prefetch_bucket_size": 5e7, "stage3_max_live_parameters": 1e9}


@dataclass(frozen=True)
class Assumptions:
    """What nobody has measured here.

    Attributes:
        utilisation: share of the peak that matrix products reach.
        operation_us: microseconds between the starts of two operations, set by Python and the driver.
        context_gb: memory of CUDA's context, of libraries and of NCCL.
        host_gb_s: between GPU and host memory, in one direction.
    """

    utilisation: float = 0.35
    operation_us: float = 8.0
    context_gb: float = 1.5
    host_gb_s: float = 20.0


@dataclass(frozen=True)
class Partition:
    """Which state is partitioned or offloaded: an engine, with a file for DeepSpeed."""

    name: str
    stage: int = 0
    offload_optimizer: bool = False
    offload_param: bool = False
    buckets: Mapping[str, float] | None = None  # numbers of elements

    @classmethod
    def of_file(cls, location: str) -> Partition:
        content = read_deepspeed_config(location)
        zero: dict[str, Any] = content["zero_optimization"]
        buckets = {key: float(zero.get(key, default)) for key, default in _BUCKETS.items()}
        # With overlapping, one bucket is filled while another is sent.
        buckets["reduce_bucket_size"] *= 1 + bool(zero.get("overlap_comm"))
        return cls(
            PurePath(location).stem, zero["stage"], offloads_optimizer(content), offloads_weights(content), buckets
        )


TORCH = Partition("torch")


@dataclass(frozen=True)
class StepModel:
    """A micro-batch of any number of images, from dry runs with two numbers."""

    first: StepMemory
    second: StepMemory
    first_images: int
    second_images: int

    def at(self, num_images: int) -> StepMemory:
        """All counts are linear in the number of images."""
        share = (num_images - self.first_images) / (self.second_images - self.first_images)
        values: dict[str, Any] = {}
        for field in fields(StepMemory):
            low, high = getattr(self.first, field.name), getattr(self.second, field.name)
            if isinstance(low, (int, float)):
                values[field.name] = type(low)(low + share * (high - low))
        return replace(self.first, **values)


@dataclass(frozen=True)
class Usage:
    """Memory of one process, and the speed of all.

    Attributes:
        parts: name -> bytes on the GPU; the sum is the highest use at any time.
        host: bytes in host memory for offloaded state.
        micro_batch: images of one forward pass.
        max_micro_batch: the largest that fits, 0 for none.
        step_s: seconds of an optimizer step.
    """

    parts: Mapping[str, int]
    host: int
    micro_batch: int
    max_micro_batch: int
    step_s: float
    fits: bool

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def estimate(
    model: StepModel, run: RunSettings, partition: Partition, num_gpus: int, gpu: Gpu, assumed: Assumptions
) -> Usage:
    """Memory and speed of a recipe on a number of GPUs."""
    share = math.ceil(run.global_batch_size / num_gpus)
    micro = min(run.micro_batch, share)
    num_micro = math.ceil(share / micro)
    capacity = int(gpu.memory_gb * GB)

    def memory(images: int, accumulates: bool) -> tuple[dict[str, int], int]:
        return memory_parts(
            model.at(images),
            partition,
            num_gpus,
            averages=run.ema_decay is not None,
            accumulates=accumulates,
            context=int(assumed.context_gb * GB),
        )

    parts, host = memory(micro, num_micro > 1)
    largest, beyond = 0, MAX_MICRO_BATCH + 1
    while beyond - largest > 1:
        middle = (largest + beyond) // 2
        if sum(memory(middle, accumulates=False)[0].values()) <= capacity:
            largest = middle
        else:
            beyond = middle
    seconds = step_seconds(model.at(micro), num_micro, run, partition, num_gpus, gpu, assumed)
    return Usage(parts, host, micro, largest, seconds, sum(parts.values()) <= capacity)


def memory_parts(
    step: StepMemory,
    partition: Partition,
    num_gpus: int,
    *,
    averages: bool = False,
    accumulates: bool = False,
    context: int = 0,
) -> tuple[dict[str, int], int]:
    """Bytes by part on one process, and its bytes in host memory.

    Args:
        averages: the run keeps a moving average of the weights (`run.ema_decay`).
        accumulates: a step has several micro-batches, so gradients exist before the last one.
        context: bytes that do not depend on the model.
    """
    trained = step.num_trained
    state = state_bytes(
        trained,
        step.weight_bytes - WEIGHT * trained,
        stage=partition.stage,
        num_ranks=num_gpus,
        offload_optimizer=partition.offload_optimizer,
        offload_param=partition.offload_param,
    )
    parts = {
        **state.parts,
        "moving average": WEIGHT * trained if averages else 0,
        "activations": step.activations,
        "logits": step.logits,
        "temporary": step.peak - step.activations - step.logits,
        "exchange": _exchange_bytes(step, partition, num_gpus),
        "context": context,
    }
    if partition.stage == 0:
        # Gradients grow while activations are freed, so the sum of both is never reached.
        together = step.peak + state.parts["gradients"]
        highest = together if accumulates else step.peak_with_gradients
        # After the backward pass the gradients of all parameters are sent at once, from copies of them.
        sending = (1 + (num_gpus > 1)) * state.parts["gradients"]
        parts["never at once"] = max(highest, sending) - together
    return parts, state.host


def _exchange_bytes(step: StepMemory, partition: Partition, num_gpus: int) -> int:
    if partition.stage == 0 or partition.buckets is None:
        return 0
    buffers = GRADIENT * min(partition.buckets["reduce_bucket_size"], 2 * step.num_trained)
    if partition.stage == 3 and (num_gpus > 1 or partition.offload_param):
        num_weights = sum(part.num_parameters for part in step.weights)
        gathered = sum(partition.buckets[key] for key in ("stage3_prefetch_bucket_size", "stage3_max_live_parameters"))
        buffers += step.weight_bytes * min(1.0, gathered / num_weights)
    return int(buffers)


def step_seconds(
    step: StepMemory,
    num_micro: int,
    run: RunSettings,
    partition: Partition,
    num_gpus: int,
    gpu: Gpu,
    assumed: Assumptions,
) -> float:
    """Seconds of an optimizer step in which every process runs `num_micro` micro-batches."""
    is_half = run.amp != "off" or any(part.precision != "float32" for part in step.weights)
    peak = (gpu.half if is_half else gpu.fp32) * 1e12
    # Every weight is read forward and backward, and once more where layers are recomputed.
    passes = 2 + step.recomputes
    quantised = sum(part.num_parameters for part in step.weights if part.precision in ("int8", "nf4"))
    moved = passes * (step.weight_bytes + _DEQUANTISED * quantised) + 2 * step.activations
    seconds = num_micro * max(
        step.flops / (peak * assumed.utilisation),
        moved / (gpu.bandwidth_gb_s * GB),
        step.num_operations * assumed.operation_us * 1e-6,
    )
    others = (num_gpus - 1) / num_gpus
    shards = num_gpus if partition.stage else 1
    sent = 2 * others * GRADIENT * step.num_trained
    if partition.stage == 3:
        sent += num_micro * passes * others * step.weight_bytes
    seconds += sent / (gpu.link_gb_s * GB)
    to_host = 2 * GRADIENT * step.num_trained / shards if partition.offload_optimizer else 0.0
    if partition.offload_param:
        to_host += num_micro * passes * step.weight_bytes / num_gpus
    seconds += to_host / (assumed.host_gb_s * GB)
    bandwidth = assumed.host_gb_s if partition.offload_optimizer else gpu.bandwidth_gb_s
    return seconds + _OPTIMIZER_TRAFFIC * step.num_trained / shards / (bandwidth * GB)
