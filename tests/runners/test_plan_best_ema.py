"""Properties of the pure parts of a run: when it validates, saves and ends, by hand and against a walk over all steps;
which metrics there are, which way is better, and what a wrong name suggests; the moving average leaves the weights
exactly as they were."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from lavis_emovit.checkpoints.training_state import Best, Position
from lavis_emovit.errors import ConfigError
from lavis_emovit.runners.best import BestMetric
from lavis_emovit.runners.ema import WeightAverage
from lavis_emovit.runners.plan import Plan
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import parse_settings

RUN = {"output_dir": "out", "max_epoch": 3, "global_batch_size": 1, "init_lr": 1e-3}


def plan(**more: Any) -> Plan:
    return Plan(RunSettings(**{**RUN, **more}), steps_per_epoch=4)


@pytest.mark.parametrize(
    ("settings", "validations", "saves", "total"),
    [
        ({}, [4, 8, 12], [4, 8, 12], 12),
        ({"valid_splits": []}, [], [4, 8, 12], 12),
        ({"save_every_steps": 5}, [4, 8, 12], [4, 5, 8, 10, 12], 12),
        ({"eval_every_steps": 5}, [5, 10, 12], [4, 5, 8, 10, 12], 12),
        ({"eval_every_steps": 5, "eval_every_epochs": 2}, [5, 8, 10, 12], [4, 5, 8, 10, 12], 12),
        ({"eval_every_epochs": 2}, [8, 12], [4, 8, 12], 12),
        ({"max_steps": 6}, [4, 6], [4, 6], 6),
        ({"max_steps": 99}, [4, 8, 12], [4, 8, 12], 12),
    ],
)
def test_when_a_run_validates_and_saves(settings: dict, validations: list, saves: list, total: int) -> None:
    made = plan(**settings)
    steps = range(made.total_steps + 1)
    assert made.total_steps == total
    assert [step for step in steps if made.validates_after(step)] == validations
    assert [step for step in steps if step and made.saves_after(step)] == saves


def test_patience_counts_validations_without_a_better_one() -> None:
    made = plan(max_epoch=9, eval_every_steps=3, early_stop_patience=2)
    at = [Position(step, step // 4, step % 4, Best(6, "accuracy", 0.5)) for step in range(6, 19)]
    assert [p.step for p in at if made.is_stopped_early(p)] == [12, 15, 18]
    assert made.is_over(at[6]) and not made.is_over(at[3])
    assert not plan(max_epoch=9).is_stopped_early(at[-1])
    assert made.epochs_done(Position(6, 1, 2)) == 1.5 and made.epochs_done(Position(8, 2, 0)) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"valid_splits": [], "early_stop_patience": 2}, "run.early_stop_patience needs a split"),
        ({"valid_splits": [], "eval_every_steps": 2}, "run.eval_every_steps needs a split"),
        ({"lr_step_decay": 0.5}, "no effect with run.lr_sched=linear_warmup_cosine_lr"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(changes: dict, words: str) -> None:
    (problem,) = parse_settings(RunSettings, {**RUN, **changes}, "run")[1]
    assert words in problem


@pytest.mark.parametrize(
    ("name", "mode", "is_least"),
    [
        ("accuracy", "auto", False),
        ("agg_metrics", "auto", False),
        ("calibration.ece", "auto", True),
        ("calibration.brier", "auto", True),
        ("accuracy", "min", True),
        ("calibration.ece", "max", False),
    ],
)
def test_which_way_is_better(name: str, mode: str, is_least: bool) -> None:
    metric = BestMetric.of(RunSettings(**RUN, best_metric=name, best_mode=mode))
    assert metric.less_is_better is is_least
    assert metric.is_better(0.1, 0.2) is is_least
    assert not metric.is_better(0.2, 0.2)


def test_a_metric_that_a_split_does_not_have() -> None:
    metric = BestMetric.of(RunSettings(**RUN, best_metric="calibration.ece"))
    assert metric.value({"calibration": {"ece": 0.25}}, "val") == 0.25
    for metrics in ({"calibration": None}, {}, {"calibration": {"ece": float("nan")}}):
        with pytest.raises(ConfigError, match=r"'calibration\.ece' of split 'val' is .*, not a number"):
            metric.value(metrics, "val")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("macro_f", "(did you mean 'macro_f1'?)"),
        ("kl", "(valid: soft_labels.kl)"),
        ("vote_of_top1", "(did you mean 'soft_labels.vote_of_top1'?)"),
    ],
)
def test_a_wrong_metric_names_the_right_one(name: str, words: str) -> None:
    (problem,) = BestMetric.problems(RunSettings(**RUN, best_metric=name))
    assert problem == f"run.best_metric: no number '{name}' in the metrics of kind 'emotion' {words}"


def test_a_metric_like_no_other_lists_those_that_make_sense() -> None:
    (problem,) = BestMetric.problems(RunSettings(**RUN, best_metric="xyz"))
    listed = problem.partition("(valid: ")[2].rstrip(")").split(", ")
    assert {"accuracy", "agg_metrics", "calibration.ece", "soft_labels.kl"} < set(listed) and len(listed) < 45
    assert not [name for name in listed if "interval" in name or "num_" in name]
    assert not BestMetric.problems(RunSettings(**RUN, best_metric="accuracy_interval.low"))


def test_average_by_hand_and_weights_left_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {"w": torch.randn(5, generator=generator), "half": torch.randn(3, generator=generator).bfloat16()}
    average = WeightAverage(weights, decay=0.5)
    expected = {name: value.double() for name, value in weights.items()}
    for step in range(20):
        for value in weights.values():
            value.add_(random.Random(step).random())
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in weights.items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    for name, value in average.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    kept = {name: (value.clone(), value.data_ptr()) for name, value in weights.items()}
    with average.in_place():
        assert torch.equal(weights["w"], average.state_dict()["w"])
        raised = weights["w"].data_ptr()
    assert raised == kept["w"][1], "an engine may hold on to the storage"
    with pytest.raises(ZeroDivisionError), average.in_place():
        raise ZeroDivisionError
    for name, (value, _) in kept.items():
        assert torch.equal(weights[name], value)
