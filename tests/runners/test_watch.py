"""Properties of what is measured in a step: the reported padding is that of the rectangles that ran; spikes are flagged
by the stated rule and nothing else; MFU, tokens and memory are totals of all ranks; the table of GPUs is
valid."""

from __future__ import annotations

import json
import random
import statistics
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lavis_emovit.models.lengths import PassSizes, add_sizes, length_groups, positions_of
from lavis_emovit.runners.gpus import PEAKS_PATH, peak_flops
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.runners.watch import MIN_STEPS, LossWatch, RankStep, StepMeter

RUN = {"output_dir": "out", "max_epoch": 1, "global_batch_size": 1, "init_lr": 1e-3}


def settings(**more: Any) -> RunSettings:
    return RunSettings(**RUN, **more)


SIZES = PassSizes(
    num_images=2,
    num_reads=3,
    num_question_tokens=5,
    real_positions=(100,),
    run_positions=(120,),
    num_supervised=9,
)


def test_padding_is_that_of_the_rectangles() -> None:
    real, run = positions_of([(3,), (10,), (4,), (9,)], [[0, 2], [1, 3]])
    assert (real, run) == ((26,), (2 * 4 + 2 * 10,))
    assert PassSizes(0, 0, 0, real, run, 0).padding_share == pytest.approx(1 - 26 / 28)
    rng = random.Random(3)
    for _ in range(50):
        lengths = [(rng.randint(1, 60), rng.randint(1, 20)) for _ in range(rng.randint(1, 12))]
        groups = length_groups(lengths, 16)
        real, run = positions_of(lengths, groups)
        by_hand = [sum(len(g) * max(lengths[row][side] for row in g) for g in groups) for side in (0, 1)]
        assert run == tuple(by_hand) and real == tuple(map(sum, zip(*lengths)))


def test_losses_out_of_line_by_the_stated_rule() -> None:
    rng = random.Random(0)
    earlier = [1.0 + rng.gauss(0, 0.1) for _ in range(60)]
    steps = [(loss, True) for loss in earlier]
    watch = LossWatch(8.0, steps)
    median = statistics.median(earlier)
    limit = median + 8 * 1.4826 * statistics.median(abs(loss - median) for loss in earlier)
    assert watch.limit() == pytest.approx(limit)
    assert not watch.is_spike(limit * 0.999)
    assert LossWatch(8.0, steps).is_spike(limit * 1.001)
    assert not LossWatch(None, steps).is_spike(1e9)


def test_losses_without_the_language_model_have_a_window_of_their_own() -> None:
    reading = [(0.02, False)] * 50
    for watch in (LossWatch(8.0, reading), LossWatch(8.0, [(5.0, True)] * 50 + reading)):
        assert watch.is_spike(0.2, False)
        assert not any(watch.is_spike(1.0) for _ in range(MIN_STEPS)), "a new kind of loss begins"
        assert watch.is_spike(2.0)


def test_a_normal_run_is_not_flagged_and_a_new_level_only_at_first() -> None:
    rng = random.Random(1)
    watch = LossWatch(8.0)
    falling = [3.0 * 0.98**step + 0.3 + abs(rng.gauss(0, 0.05)) for step in range(400)]
    assert not any(watch.is_spike(loss) for loss in falling)
    flags = [watch.is_spike(2.0 + rng.gauss(0, 0.05)) for _ in range(200)]
    assert flags[0] and not any(flags[100:])
    few = LossWatch(8.0)
    assert not any(few.is_spike(loss) for loss in [*[1.0] * (MIN_STEPS - 1), 50.0])
    even = LossWatch(8.0, [(1.0, True)] * 50)
    assert not even.is_spike(1.01), "rounding noise around a loss that stands still is no spike"


class FlopsOfTwo:
    """Operations of a model: 10 for an image, 2 for a position."""

    def total(self, sizes: PassSizes) -> float:
        return 10 * sizes.num_images + 2 * sum(sizes.real_positions)


def meter_of(flops: FlopsOfTwo | None, **more: Any) -> StepMeter:
    model: Any = SimpleNamespace(step_flops=lambda: flops)
    return StepMeter(model, settings(**more), torch.device("cpu"))


def test_meter_adds_up_ranks() -> None:
    meter = meter_of(FlopsOfTwo(), peak_tflops=1e-6)
    step = meter.take(4, add_sizes(SIZES, SIZES))
    assert step.num_images == 4 and step.sizes == SIZES + SIZES and step.gpu_memory_gib is None
    assert 0.01 < step.memory_gib < 100
    assert meter.take(0, None).sizes is None
    assert add_sizes(None, SIZES) == add_sizes(SIZES, None) == SIZES
    row = meter.fields([step, RankStep(3, SIZES, 1e6, None)], step_s=2.0)
    assert row["tokens_per_s"] == 300 / 2.0
    assert row["padding_share"] == pytest.approx(1 - 300 / 360)
    # 6 images at 10 and 300 positions at 2, in 2 s, over twice a million a second.
    assert row["mfu"] == pytest.approx((60 + 600) / 2.0 / 2e6)
    assert row["memory_gib"] == 1e6
    assert "gpu_memory_gib" not in row


def test_no_mfu_without_peak_or_operations() -> None:
    for meter in (meter_of(FlopsOfTwo()), meter_of(None, peak_tflops=1e-6)):
        assert "mfu" not in meter.fields([RankStep(1, SIZES, 1.0, None)], 1.0)


@pytest.mark.parametrize(
    ("device", "half", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 66.9),
        ("NVIDIA H100 PCIe", 756.5, 51.2),
        ("NVIDIA H200", 989.4, 66.9),
        ("NVIDIA A100-SXM4-80GB", 312.0, 19.5),
        ("NVIDIA L40S", 362.05, 91.6),
        ("NVIDIA L4", 121.0, 30.3),
        ("Tesla V100-SXM2-32GB", 125.0, 15.7),
    ],
)
def test_peaks_by_the_names_that_drivers_give(device: str, half: float, fp32: float) -> None:
    assert peak_flops(device, is_half=True) == half * 1e12
    assert peak_flops(device, is_half=False) == fp32 * 1e12


def test_an_unknown_gpu_has_no_peak_and_every_entry_a_source() -> None:
    assert peak_flops("Radeon 9700", is_half=True) is None
    entries = json.loads(PEAKS_PATH.read_text())["gpus"]
    assert all(entry["source"] and entry["half"] >= entry["fp32"] > 1 for entry in entries)
    for entry in entries:  # no earlier entry takes what belongs to this one
        assert peak_flops(entry["name"], is_half=True) == entry["half"] * 1e12
