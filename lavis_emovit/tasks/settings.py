"""Settings of tasks. This file loads no torch, so that recipes are checked before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.emotion.questions import CATEGORICAL_WORDINGS
from lavis_emovit.emotion.templates import TemplateName
from lavis_emovit.rewards.presets import load_preset
from lavis_emovit.rewards.registry import RewardSettings, parse_rewards
from lavis_emovit.settings import Settings, parse_settings

# Keys of `run` -> those of a preset's schedule.
_SCHEDULE_OF_RUN = {"init_lr": "learning_rate", "max_epoch": "epochs"}


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

    @classmethod
    def expand(cls, own: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The keys below `run.task` with those that follow from them, and defaults for keys of `run`.

        Raises:
            UserError: they name something that does not exist.
        """
        return dict(own), {}


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


class VllmSettings(Settings):
    """How vLLM samples the answers of `emotion_grpo`."""

    memory_share: float = Field(0.3, gt=0, lt=1, description="of the device's memory, for vLLM's weights and cache")
    context_tokens: int | None = Field(None, ge=1, description="longest question with its answer; null: the model's")


class EmotionGrpoSettings(TaskSettings, AnswerSettings, task="emotion_grpo"):
    """Settings of `emotion_grpo`: group relative policy optimization (DeepSeekMath, arXiv 2402.03300) by TRL.

    With a preset, what the recipe leaves out comes from it: template, rewards, and the published settings of its
    training, with `run.init_lr` and `run.max_epoch` among them.
    """

    preset: str | None = Field(None, description="published combination of rewards, or the path of a YAML file")
    leave_out: tuple[str, ...] = Field((), description="rewards of the preset that are not used")
    rewards: dict[str, Any] = Field({}, description="name of a reward -> its settings; over those of the preset")
    template: TemplateName = Field("direct", description="form of the answers, which the question asks for")
    question: Literal["emotion", "instruction"] = Field(
        "emotion", description="the question for the emotion, or the record's own ones, as `kinds` selects them"
    )
    wording: int = Field(1, ge=1, le=len(CATEGORICAL_WORDINGS), description="of the question for the emotion")
    num_generations: int = Field(8, ge=2, description="answers to one question, a group")
    max_answer_tokens: int = Field(128, ge=1, description="a longer answer is cut")
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0: all tokens")
    kl: float = Field(0.0, ge=0, description="weight of the divergence from the weights at the start of the run")
    loss: Literal["grpo", "dr_grpo", "bnpo", "dapo"] = Field("dapo", description="mean over answers or over tokens")
    scale_rewards: bool = Field(True, description="divide advantages by the standard deviation of their group")
    mask_cut_answers: bool = Field(False, description="answers that were cut do not count in the loss")
    max_replacements: int = Field(
        0, ge=0, description="rounds in which groups of equal rewards are replaced by groups of other images"
    )
    judge: ChatSettings | None = Field(None, description="endpoint for rewards that need a judge")
    vllm: VllmSettings | None = Field(None, description="sample answers by vLLM, where it is installed")
    log_answers_steps: int = Field(10, ge=1, description="steps between two groups of answers in log.jsonl")

    @model_validator(mode="after")
    def _rewards_are_known(self) -> EmotionGrpoSettings:
        problems = self.reward_settings()[1]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def reward_settings(self) -> tuple[dict[str, RewardSettings], list[str]]:
        """Name of a reward -> its settings, and a line for every problem."""
        return parse_rewards(self.rewards, "rewards")

    @classmethod
    def expand(cls, own: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        # The loss is near 0 and says nothing about a step, so it has no spikes.
        of_run: dict[str, Any] = {"loss_spike_mads": None}
        if not isinstance(own.get("preset"), str):
            return dict(own), of_run
        left_out = own.get("leave_out") or ()
        preset = load_preset(own["preset"], leave_out=[left_out] if isinstance(left_out, str) else left_out)
        schedule = preset.schedule.model_dump(exclude_none=True)
        of_run |= {key: schedule.pop(name) for key, name in _SCHEDULE_OF_RUN.items() if name in schedule}
        rewards = {
            name: settings.model_dump(mode="json", exclude_unset=True) for name, settings in preset.rewards.items()
        }
        for name, changes in (own.get("rewards") or {}).items():
            rewards[name] = {**rewards.get(name, {}), **(changes or {})}
        return {"template": preset.template, **schedule, **own, "rewards": rewards}, of_run


def parse_task_settings(cls: type[TaskSettings], run: Mapping[str, Any]) -> tuple[TaskSettings | None, list[str]]:
    """Settings of a task from the node `run`, and a line for every problem.

    They are the keys of `run` that the class also has, and `task_settings`, which overrides them.
    """
    values = {name: run[name] for name in cls.model_fields if name in run}
    return parse_settings(cls, {**values, **run.get("task_settings", {})}, "run.task")
