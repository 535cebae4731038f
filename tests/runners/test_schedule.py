"""Properties: the learning rate of each step equals values computed by hand; it never leaves its bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lavis_emovit.runners.plan import learning_rate
from lavis_emovit.runners.settings import RunSettings

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


def schedule(total_steps: int = 12, **changes: object) -> Callable[[int], float]:
    run = RunSettings(**{**RECIPE, **changes})
    return lambda step: learning_rate(run, step, total_steps=total_steps, steps_per_epoch=3)


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
        (100, 0.2),  # it stays at the floor
    ],
)
def test_the_cosine_by_hand(step: int, expected: float) -> None:
    assert schedule()(step) == pytest.approx(expected, rel=1e-12)


def test_no_warmup_starts_at_the_peak() -> None:
    assert schedule(init_lr=3e-4, min_lr=0.0, warmup_steps=0)(0) == 3e-4


def test_warmup_longer_than_the_run_only_climbs() -> None:
    rate = schedule(total_steps=10, init_lr=1e-5, min_lr=0.0, warmup_lr=1e-8, warmup_steps=100)
    values = [rate(step) for step in range(10)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1e-8 + (1e-5 - 1e-8) * 0.09)


def test_cosine_falls_at_every_step() -> None:
    values = [schedule()(step) for step in range(4, 13)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


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
    rate = schedule(lr_sched=name, **decay)
    assert {step: rate(step) for step in expected} == pytest.approx(expected, rel=1e-12)
