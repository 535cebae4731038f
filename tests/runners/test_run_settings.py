"""Properties: run settings refuse what is wrong, all at once, with the nearest name or LAVIS's counterpart; YAML's own
readings of `off` and of a single split are understood."""

from __future__ import annotations

import pytest

from lavis_emovit.runners.settings import FREE_RUN_KEYS, LAVIS_RUN_KEYS, RunSettings
from lavis_emovit.settings import parse_settings

MINIMAL = {"output_dir": "out", "max_epoch": 2, "global_batch_size": 8, "init_lr": 1e-3}


def problems_of(**changes) -> list[str]:
    return parse_settings(RunSettings, {**MINIMAL, **changes}, "run")[1]


def test_minimal_settings_are_enough() -> None:
    settings, problems = parse_settings(RunSettings, MINIMAL, "run")
    assert problems == []
    assert settings.resume == "auto"
    assert settings.micro_batch == 8
    assert settings.valid_splits == ("val",)


def test_training_needs_what_evaluation_does_not() -> None:
    assert parse_settings(RunSettings, {"output_dir": "out", "evaluate": True}, "run")[1] == []
    (problem,) = parse_settings(RunSettings, {"output_dir": "out", "init_lr": 1e-5}, "run")[1]
    assert problem == "run: training needs run.max_epoch, run.global_batch_size"


def test_all_problems_are_reported_together() -> None:
    problems = problems_of(max_epoch=0, init_lr="fast", warmup_step=10, amp="fp8", device="tpu")
    assert len(problems) == 5
    text = "\n".join(problems)
    for key in ("run.max_epoch", "run.init_lr", "run.warmup_step", "run.amp", "run.device"):
        assert key in text
    assert "did you mean 'warmup_steps'" in text


@pytest.mark.parametrize(("given", "meant"), [(False, "off"), (True, "bf16"), ("fp16", "fp16"), ("off", "off")])
def test_amp_as_yaml_gives_it(given, meant: str) -> None:
    settings, problems = parse_settings(RunSettings, {**MINIMAL, "amp": given}, "run")
    assert problems == []
    assert settings.amp == meant


def test_a_split_may_stand_alone() -> None:
    settings, _ = parse_settings(RunSettings, {**MINIMAL, "test_splits": "test", "valid_splits": None}, "run")
    assert settings.test_splits == ("test",)
    assert settings.valid_splits == ()


def test_a_task_is_a_name_or_a_node_with_settings() -> None:
    """Settings of answers belong to `run` whichever way they are written; others of a task are kept apart."""
    node = {"name": "my_task", "max_len": 9, "num_rollouts": 4}
    settings, problems = parse_settings(RunSettings, {**MINIMAL, "task": node}, "run")
    assert problems == []
    assert (settings.task, settings.max_len, settings.task_settings) == ("my_task", 9, {"num_rollouts": 4})
    again, problems = parse_settings(RunSettings, settings.model_dump(mode="json"), "run")
    assert problems == [] and again == settings
    assert parse_settings(RunSettings, {**MINIMAL, "max_len": 9, "task": node}, "run")[1] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": {"name": "my_task", "max_len": 9}, "max_len": 8}, "run.max_len and run.task.max_len differ"),
        ({"task": {"max_len": 9}}, "run.task needs a `name`"),
        ({"overwrite": True}, "resume=never"),
        ({"min_lr": 0.1}, "above run.init_lr"),
        ({"train_splits": ["train", "val"]}, "exactly one split"),
        ({"evaluate": True, "test_splits": []}, "nothing to evaluate"),
    ],
)
def test_settings_that_contradict_each_other(changes: dict, words: str) -> None:
    (problem,) = problems_of(**changes)
    assert words in problem
    assert "{" not in problem, "the message must not print the whole node"


def test_micro_batch_is_never_larger_than_the_global_one() -> None:
    settings, _ = parse_settings(RunSettings, {**MINIMAL, "micro_batch_size": 100}, "run")
    assert settings.micro_batch == 8


def test_key_lists_name_real_and_foreign_keys() -> None:
    assert set(RunSettings.model_fields) >= FREE_RUN_KEYS
    assert not set(RunSettings.model_fields) & set(LAVIS_RUN_KEYS)
