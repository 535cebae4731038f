"""Rewards of the form of an answer: its parts and its length."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lavis_emovit.emotion.templates import TemplateName, get_template
from lavis_emovit.records import EmotionRecord
from lavis_emovit.rewards.reading import PARTS, PartName
from lavis_emovit.rewards.registry import Reward, RewardSettings, register_reward


def has_form(answer: str, template: str) -> bool:
    """Whether an answer has exactly the form of a template."""
    return get_template(template).take_apart(answer).problem is None


class FormatSettings(RewardSettings):
    """The form of an answer."""

    template: TemplateName = "think_answer"
    mode: Literal["strict", "lenient"] = "strict"


def format_tags(answer: str, record: EmotionRecord, settings: FormatSettings) -> float:
    """1 if the answer has every part of the template once, in order, and nothing else; else 0.

    With `mode: lenient`, an answer of another form gets 0.5 if each part can be found and has a text. Range 0 to 1.
    Source: the format reward of DeepSeek-R1 (arXiv 2501.12948); lenient and strict: EmObserver.
    """
    template = get_template(settings.template)
    found = template.take_apart(answer)
    if found.problem is None:
        return 1.0
    is_readable = all(found.parts.get(name) for name in template.part_names)
    return 0.5 if settings.mode == "lenient" and is_readable else 0.0


class LengthSettings(RewardSettings):
    """Numbers of words of an answer, or of a part of it."""

    least: int = Field(default=0, ge=0)
    most: int = Field(default=200, ge=1)
    fade: int = Field(default=50, ge=1)  # words outside of these bounds, from which the reward is 0
    part: PartName = "all"

    @model_validator(mode="after")
    def _is_ordered(self) -> LengthSettings:
        if self.least > self.most:
            raise ValueError(f"least ({self.least}) must not be more than most ({self.most})")
        return self


def length(answer: str, record: EmotionRecord, settings: LengthSettings) -> float:
    """1 for `least` to `most` words, falling in a line to 0 over the next `fade` words on both sides.

    Range 0 to 1. Source: the soft punishment of overlong answers of DAPO (arXiv 2503.14476), shifted by 1 and for
    words.
    """
    words = len(PARTS[settings.part](answer).split())
    outside = max(settings.least - words, words - settings.most, 0)
    return max(0.0, 1.0 - outside / settings.fade)


register_reward(Reward("format_tags", format_tags, FormatSettings))
register_reward(Reward("length", length, LengthSettings))
