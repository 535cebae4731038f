"""Settings of tasks. This file loads no torch, so that recipes are checked before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from lavis_emovit.settings import Settings, parse_settings


class TaskSettings(Settings):
    """Base of the settings of a task, which a recipe has below `run.task`.

    A subclass names its task, `class MySettings(TaskSettings, task="my_task")`, and the task names the subclass as its
    `settings_class`.
    """

    by_task: ClassVar[dict[str, type[TaskSettings]]] = {}

    def __init_subclass__(cls, task: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if task:
            cls.by_task[task] = cls


class AnswerSettings(Settings):
    """How a task evaluates answers. Recipes may write these keys below `run` as well as below `run.task`."""

    score_normalisation: Literal["mean", "sum"] = Field(
        "mean", description="candidate log-likelihood per token (mean) or of the whole label (sum)"
    )
    max_len: int = Field(30, ge=1, description="generated answers: longest, in tokens")
    min_len: int = Field(1, ge=0)
    num_beams: int = Field(1, ge=1)
    num_report_answers: int = Field(16, ge=0, description="test images whose answer is generated for the report")


class EmotionInstructionSettings(TaskSettings, AnswerSettings, task="emotion_instruction"):
    """Settings of `emotion_instruction`: only those of answers."""


def parse_task_settings(cls: type[TaskSettings], run: Mapping[str, Any]) -> tuple[TaskSettings | None, list[str]]:
    """Settings of a task from the node `run`, and a line for every problem.

    They are the keys of `run` that the class also has, and `task_settings`, which overrides them.
    """
    values = {name: run[name] for name in cls.model_fields if name in run}
    return parse_settings(cls, {**values, **run.get("task_settings", {})}, "run.task")
