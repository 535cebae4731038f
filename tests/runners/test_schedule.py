"""Properties: the learning rate of each step equals values worked out by hand; it never leaves its bounds."""

from __future__ import annotations

import pytest

from lavis_emovit.runners.schedule import LinearWarmupCosine, build_schedule
from lavis_emovit.runners.settings import RunSettings

SCHEDULE = LinearWarmupCosine(init_lr=1.0, min_lr=0.2, warmup_lr=0.1, warmup_steps=4, total_steps=12)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.1),
        (1, 0.325),  # 0.1 + 0.9 / 4
        (3, 0.775),
        (4, 1.0),  # the peak: cos(0)
        (6, 0.2 + 0.8 * 0.5 * (1 + 0.7071067811865476)),  # a quarter of the cosine: cos(pi / 4)
        (8, 0.6),  # its middle: cos(pi / 2) = 0
        (12, 0.2),
        (100, 0.2),  # past the end it stays at the floor
    ],
)
def test_values_worked_out_by_hand(step: int, expected: float) -> None:
    assert SCHEDULE(step) == pytest.approx(expected, rel=1e-12)


def test_no_warmup_starts_at_the_peak() -> None:
    assert LinearWarmupCosine(3e-4, 0.0, 1e-8, 0, 10)(0) == 3e-4


def test_warmup_longer_than_the_run_only_climbs() -> None:
    schedule = LinearWarmupCosine(init_lr=1e-5, min_lr=0.0, warmup_lr=1e-8, warmup_steps=100, total_steps=10)
    values = [schedule(step) for step in range(10)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1e-8 + (1e-5 - 1e-8) * 0.09)


def test_cosine_falls_at_every_step() -> None:
    values = [SCHEDULE(step) for step in range(4, 13)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


# Warm-up from 0.1 to 1 in 4 steps, 12 steps in epochs of 3, down to 0.2.
RECIPE = {
    "output_dir": "out",
    "max_epoch": 4,
    "global_batch_size": 1,
    "init_lr": 1.0,
    "min_lr": 0.2,
    "warmup_lr": 0.1,
    "warmup_steps": 4,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear_warmup_cosine_lr", {0: 0.1, 3: 0.775, 4: 1.0, 8: 0.6, 12: 0.2}),
        ("linear_warmup_linear_lr", {0: 0.1, 3: 0.775, 4: 1.0, 6: 0.8, 8: 0.6, 11: 0.3, 12: 0.2, 99: 0.2}),
        ("constant_lr", {0: 0.1, 3: 0.775, 4: 1.0, 11: 1.0}),
        # A factor of 1/2 for each epoch done, not below the floor: epochs begin at steps 3, 6 and 9.
        ("linear_warmup_step_lr", {0: 0.1, 3: 0.775, 4: 0.5, 5: 0.5, 6: 0.25, 9: 0.2, 11: 0.2}),
    ],
)
def test_each_schedule_of_a_recipe(name: str, expected: dict[int, float]) -> None:
    decay = {"lr_step_decay": 0.5} if name == "linear_warmup_step_lr" else {}
    schedule = build_schedule(RunSettings(**RECIPE, lr_sched=name, **decay), total_steps=12, steps_per_epoch=3)
    assert {step: schedule(step) for step in expected} == pytest.approx(expected, rel=1e-12)
