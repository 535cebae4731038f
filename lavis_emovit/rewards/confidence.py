"""Rewards of a stated confidence."""

from __future__ import annotations

import math
import re

from pydantic import Field

from lavis_emovit.emotion.answer_numbers import read_numbers
from lavis_emovit.emotion.templates import TemplateName, confidence_text
from lavis_emovit.records import EmotionRecord
from lavis_emovit.rewards.form import has_form
from lavis_emovit.rewards.reading import is_right
from lavis_emovit.rewards.registry import Range, Reward, RewardSettings, register_reward

# What most answers have; the reader of numbers takes seven times as long.
_PLAIN_NUMBER = re.compile(r"0?\.[0-9]{1,15}|[01]")


class BrierSettings(RewardSettings):
    """Confidence of an answer."""

    malformed: float = Field(default=-1.0, le=0.0)  # reward of an answer without a confidence from 0 to 1


def calibration_brier(answer: str, record: EmotionRecord, settings: BrierSettings) -> float:
    """i - (c - i)^2, where i is 1 for a right label, else 0, and c is the stated confidence.

    Honest confidence is best, and an answer that is right with probability p then earns p^2, so the true label is never
    worth hiding. Range -1 to 1 (or from `malformed`). Source: RLCR (arXiv 2507.16806).
    """
    c = read_confidence(answer)
    if c is None:
        return settings.malformed
    i = float(is_right(answer, record))
    return i - (c - i) ** 2


class LogSettings(RewardSettings):
    """Confidence of an answer, by its logarithm."""

    clip: float = Field(default=0.01, ge=0.0, lt=0.5)  # c is at least this, and at most 1 minus this; 0: as published
    malformed: float = -5.0
    template: TemplateName | None = None  # an answer that has another form is malformed


def calibration_log(answer: str, record: EmotionRecord, settings: LogSettings) -> float:
    """1 + i + 2 (i ln c + (1 - i) ln(1 - c)), for 0 < c < 1; `malformed` for an answer without such a confidence.

    It rewards dishonesty: a wrong answer on purpose with c near 0 earns nearly 1, and honest answers earn less if they
    are right with a probability below 0.85 (1 + p - 2 H(p)). `calibration_brier` has no such gap. Range about -8.2 to
    1.98 with the default clip, without a lower end for `clip: 0`. Source: EmoCaliber (arXiv 2512.15528) and its code.
    """
    c = read_confidence(answer)
    if c is None or not 0.0 < c < 1.0 or (settings.template is not None and not has_form(answer, settings.template)):
        return settings.malformed
    c = min(max(c, settings.clip), 1.0 - settings.clip)
    return 2.0 + 2.0 * math.log(c) if is_right(answer, record) else 1.0 + 2.0 * math.log1p(-c)


def read_confidence(answer: str) -> float | None:
    """The number from 0 to 1 in `<confidence>`, or None."""
    text = confidence_text(answer)
    if text is None:
        return None
    if _PLAIN_NUMBER.fullmatch(text):
        return float(text)
    return read_numbers(text, ("confidence",), (0.0, 1.0))["confidence"].value


def _brier_range(settings: BrierSettings) -> Range:
    return min(-1.0, settings.malformed), 1.0


def _log_range(settings: LogSettings) -> Range:
    if settings.clip == 0.0:
        return -math.inf, 2.0
    return min(1.0 + 2.0 * math.log(settings.clip), settings.malformed), max(
        2.0 + 2.0 * math.log1p(-settings.clip), settings.malformed
    )


register_reward(
    Reward("calibration_brier", calibration_brier, BrierSettings, range=_brier_range, needs=frozenset({"label"}))
)
register_reward(Reward("calibration_log", calibration_log, LogSettings, range=_log_range, needs=frozenset({"label"})))
