"""Properties of tasks in general: settings come from the recipe's node, wrong ones are refused by key with the nearest
name before anything is loaded; a task that needs records gets them in its batches, others do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lavis_emovit.datasets.collate import collate
from lavis_emovit.errors import ConfigError
from lavis_emovit.tasks.base import EmotionTask
from lavis_emovit.tasks.settings import TaskSettings, parse_task_settings


class RolloutSettings(TaskSettings, task="test_rollouts"):
    num_rollouts: int = 4
    max_len: int = 30


class RolloutTask(EmotionTask):
    settings_class = RolloutSettings
    needs_records = True


def test_settings_are_those_of_the_run_with_the_tasks_own_over_them() -> None:
    cfg = SimpleNamespace(run_cfg={"max_len": 7, "init_lr": 1.0, "task_settings": {"num_rollouts": 2}})
    task = RolloutTask.setup_task(cfg)
    assert task.settings == RolloutSettings(num_rollouts=2, max_len=7)
    assert TaskSettings.by_task["test_rollouts"] is RolloutSettings


def test_unknown_settings_are_refused_with_the_nearest_name() -> None:
    run = {"task_settings": {"num_rolouts": 2, "max_len": 0.5}}
    settings, problems = parse_task_settings(RolloutSettings, run)
    assert settings is None and len(problems) == 2
    assert "run.task.num_rolouts: unknown key (did you mean 'num_rollouts'?)" in problems
    with pytest.raises(ConfigError, match=r"run\.task\.num_rolouts"):
        RolloutTask.setup_task(SimpleNamespace(run_cfg=run))


def test_records_travel_only_if_the_task_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    splits = {"train": SimpleNamespace(include_records=lambda: asked.append("train"))}
    builder = SimpleNamespace(build_datasets=lambda: splits)
    monkeypatch.setattr("lavis.common.registry.registry.get_builder_class", lambda name: lambda node: builder)
    assert RolloutTask().build_datasets(SimpleNamespace(datasets_cfg={"one": {}})) == {"one": splits}
    assert asked == ["train"]
    item: dict[str, Any] = {"image": torch.zeros(3, 2, 2), "pairs": [("q", "a", "i", None)] * 2, "record_id": "r"}
    assert "records" not in collate([item, item])
    assert collate([{**item, "record": 1}, {**item, "record": 2}])["records"] == [1, 2]
