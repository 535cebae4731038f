"""Properties of the estimate of a run on GPUs.

- memory of a process: hand calculations for plain torch and for ZeRO's stages, with and without offloading;
- parts never sum to more than the highest use: gradients grow while activations are freed;
- the largest micro-batch fits and the next one does not; the time of a step is that of its slowest resource;
- quantised weights cost traffic; more GPUs are faster if the global batch allows;
- GPUs: every kind has its figures and a source, an unknown kind is refused with the nearest one.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from lavis_emovit.errors import UserError
from lavis_emovit.models.lengths import PassSizes
from lavis_emovit.models.step_memory import PartBytes, StepMemory
from lavis_emovit.runners.estimate import (
    TORCH,
    Assumptions,
    Partition,
    StepModel,
    estimate,
    memory_parts,
    step_seconds,
)
from lavis_emovit.runners.gpus import Gpu, find_gpu, known_gpus
from lavis_emovit.runners.settings import RunSettings

pytestmark = pytest.mark.dry_run

MB = 10**6
SIZES = PassSizes(1, 1, 1, (1,), (1,), 1)
WEIGHTS = (
    PartBytes("qformer", "float32", True, 10 * MB, 40 * MB),
    PartBytes("language_model", "bfloat16", False, 1000 * MB, 2000 * MB),
)
STEP = StepMemory(
    weights=WEIGHTS,
    activations=100 * MB,
    logits=10 * MB,
    peak=130 * MB,
    peak_with_gradients=140 * MB,
    num_operations=100,
    flops=1e12,
    sizes=SIZES,
    model_flops=0.9e12,
    recomputes=False,
)
TWICE = replace(
    STEP,
    activations=200 * MB,
    logits=20 * MB,
    peak=260 * MB,
    peak_with_gradients=270 * MB,
    flops=2e12,
    model_flops=1.8e12,
)
MODEL = StepModel(STEP, TWICE, 1, 2)
GPU = Gpu("test", "Test", half=100.0, fp32=10.0, memory_gb=3.0, bandwidth_gb_s=1000.0, link_gb_s=100.0, source="none")
ASSUMED = Assumptions(utilisation=0.5, operation_us=10.0, context_gb=0.0, host_gb_s=10.0)
ZERO2 = Partition("zero2", 2, buckets={"reduce_bucket_size": 5e6})
ZERO3 = Partition(
    "zero3",
    3,
    buckets={"reduce_bucket_size": 5e6, "stage3_prefetch_bucket_size": 1e6, "stage3_max_live_parameters": 100e6},
)


def run_settings(**changes) -> RunSettings:
    fixed = {"output_dir": "o", "max_epoch": 1, "global_batch_size": 8, "init_lr": 1e-4, "amp": "bf16"}
    return RunSettings(**{**fixed, **changes})


def in_mb(parts):
    return {name: size / MB for name, size in parts.items() if size}


def test_memory_of_one_process():
    parts, host = memory_parts(STEP, TORCH, 1, context=7 * MB)
    # The gradients' 40 MB exist together with 140 - 40 MB of the others at most.
    assert in_mb(parts) == {
        "weights": 2040, "gradients": 40, "moments": 80, "activations": 100, "logits": 10, "temporary": 20,
        "context": 7, "never at once": -30,
    }  # fmt: skip
    assert sum(parts.values()) == (2040 + 80 + 140 + 7) * MB and host == 0
    accumulated, _ = memory_parts(STEP, TORCH, 1, accumulates=True, averages=True)
    assert sum(accumulated.values()) == (2040 + 40 + 80 + 130 + 40) * MB


def test_gradients_of_everything_are_sent_from_copies():
    everything = replace(STEP, weights=(replace(WEIGHTS[0], num_parameters=100 * MB, num_bytes=400 * MB),))
    alone, _ = memory_parts(everything, TORCH, 1)
    together, _ = memory_parts(everything, TORCH, 4)
    # 400 MB of gradients beside 140 MB of activations that are gone by then, and a copy of them.
    assert sum(alone.values()) == (400 + 800 + 400) * MB
    assert sum(together.values()) == (400 + 800 + 400 + 400) * MB


def test_memory_with_zero():
    parts, _ = memory_parts(STEP, ZERO2, 4)
    assert in_mb(parts) == {
        "weights": 2040, "gradients": 10, "moments": 20, "stepped copy": 10, "activations": 100, "logits": 10,
        "temporary": 20, "exchange": 20,
    }  # fmt: skip
    parts, _ = memory_parts(STEP, ZERO3, 4)
    # 101 of 1010 million weights are whole at a time: a tenth of the bytes.
    assert parts["weights"] == 510 * MB and parts["exchange"] == (20 + 204) * MB
    parts, host = memory_parts(STEP, replace(ZERO3, offload_optimizer=True, offload_param=True), 4)
    assert (parts["weights"], parts["moments"], host) == (0, 0, (510 + 40) * MB)


def test_files_of_the_package_are_read():
    zero2 = Partition.of_file("projects/emovit/deepspeed/zero2.json")
    assert (zero2.stage, zero2.offload_optimizer, zero2.offload_param) == (2, False, False)
    assert zero2.buckets["reduce_bucket_size"] == 2 * 5e7  # it overlaps, with two buckets
    offloaded = Partition.of_file("projects/emovit/deepspeed/zero3_offload.json")
    assert (offloaded.stage, offloaded.offload_optimizer, offloaded.offload_param) == (3, True, True)


def test_the_largest_micro_batch_is_the_last_that_fits():
    usage = estimate(MODEL, run_settings(micro_batch_size=2), TORCH, 1, GPU, ASSUMED)
    room = 3000 - 2040 - 80
    assert usage.max_micro_batch == (room - 10) // 130  # 130 MB an image, and 10 that do not grow
    assert usage.fits and usage.micro_batch == 2
    small = estimate(MODEL, run_settings(), TORCH, 1, replace(GPU, memory_gb=2.0), ASSUMED)
    assert not small.fits and small.max_micro_batch == 0


def test_time_is_that_of_the_slowest_resource():
    run = run_settings()
    rest = 28 * 10e6 / 1e12  # the optimizer's traffic
    # 1e12 operations at half of 100 TFLOP/s.
    assert step_seconds(STEP, 1, run, TORCH, 1, GPU, ASSUMED) == pytest.approx(0.02 + rest)
    # 2.04 GB of weights twice and 0.1 GB of activations twice, at 1 TB/s.
    light = replace(STEP, flops=1e9)
    assert step_seconds(light, 3, run, TORCH, 1, GPU, ASSUMED) == pytest.approx(3 * 0.00428 + rest)
    many = replace(light, num_operations=5000)
    assert step_seconds(many, 1, run, TORCH, 1, GPU, ASSUMED) == pytest.approx(0.05 + rest)
    packed = replace(light, weights=(WEIGHTS[0], PartBytes("language_model", "nf4", False, 1000 * MB, 500 * MB)))
    assert step_seconds(packed, 1, run, TORCH, 1, GPU, ASSUMED) == pytest.approx((2 * 4.54 + 0.2) / 1e3 + rest)
    floats = replace(STEP, weights=WEIGHTS[:1])
    assert step_seconds(floats, 1, run_settings(amp="off"), TORCH, 1, GPU, ASSUMED) == pytest.approx(0.2 + rest)


def test_exchange_and_offloading_take_time():
    run, alone = run_settings(), step_seconds(STEP, 1, run_settings(), TORCH, 1, GPU, ASSUMED)
    # Each process sends 2 x 3/4 of 40 MB of gradients, at 100 GB/s.
    assert step_seconds(STEP, 1, run, TORCH, 4, GPU, ASSUMED) == pytest.approx(alone + 2 * 0.75 * 0.04 / 100)
    # ZeRO 3 also gathers 3/4 of the weights twice; its optimizer has a quarter of the work.
    gathered = 0.02 + (2 * 0.75 * 0.04 + 2 * 0.75 * 2.04) / 100 + 28 * 10e6 / 4 / 1e12
    assert step_seconds(STEP, 1, run, ZERO3, 4, GPU, ASSUMED) == pytest.approx(gathered)
    offloaded = replace(ZERO2, offload_optimizer=True)
    host = (2 * 0.04 + 28 * 0.01) / 10
    assert step_seconds(STEP, 1, run, offloaded, 1, GPU, ASSUMED) == pytest.approx(0.02 + host)


def test_more_gpus_share_the_global_batch():
    one, eight = (estimate(MODEL, run_settings(), TORCH, count, GPU, ASSUMED) for count in (1, 8))
    assert (one.micro_batch, eight.micro_batch) == (8, 1)
    assert one.step_s / eight.step_s > 6
    idle = estimate(MODEL, run_settings(global_batch_size=1), TORCH, 8, GPU, ASSUMED)
    assert idle.step_s == pytest.approx(eight.step_s)


def test_gpus_have_sources():
    kinds = [gpu.kind for gpu in known_gpus()]
    assert len(set(kinds)) == len(kinds) >= 15
    assert {"h100", "a100-40", "a100-80", "h200", "rtx4090", "l4"} <= set(kinds)
    for gpu in known_gpus():
        assert gpu.source and gpu.half > gpu.fp32 > 0 and gpu.memory_gb > 0
        assert gpu.bandwidth_gb_s > gpu.link_gb_s > 0
    assert find_gpu("H100").memory_gb == 80
    with pytest.raises(UserError, match=r"no kind 'h101' \(did you mean 'h100'\?\); kinds are h200,"):
        find_gpu("h101")
