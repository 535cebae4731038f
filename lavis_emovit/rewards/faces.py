"""Rewards of action units, and of valence and arousal."""

from __future__ import annotations

import functools
import re
from typing import Literal

from pydantic import Field, field_validator

from lavis_emovit.emotion.answer_numbers import VALENCE_AROUSAL, NumberAnswer, read_numbers
from lavis_emovit.emotion.answer_units import UnitAnswer, read_action_units
from lavis_emovit.emotion.facial import FACIAL_UNITS, facial_priors
from lavis_emovit.records import EmotionRecord
from lavis_emovit.rewards.reading import PARTS, PartName
from lavis_emovit.rewards.registry import Reward, RewardSettings, register_reward

_DIGIT = re.compile(r"\d")


class UnitSettings(RewardSettings):
    """Action units of an answer."""

    part: PartName = "all"
    beta: float = Field(default=1.0, gt=0.0, le=1e3)  # weight of recall against precision
    active_from: float = Field(default=1.0, gt=0.0)  # intensity from which a unit of a record is active
    # Units that a record does not code: an answer that names one is neither right nor wrong, or wrong.
    uncoded: Literal["ignored", "inactive"] = "ignored"


def au_f1(answer: str, record: EmotionRecord, settings: UnitSettings) -> float:
    """2 F_beta - 1 of the action units that the answer claims, against the active ones of the record.

    F = (1 + b^2) P R / (b^2 P + R). 0 if no unit is active in the record, -1 if the answer claims none. A denied unit
    ("no AU12") and one that is claimed and denied are not claimed. Range -1 to 1. Source: Facial-R1 (arXiv 2511.10254).
    """
    coded = record.active_units(settings.active_from)
    active = {unit for unit, is_active in coded.items() if is_active}
    if not active:
        return 0.0
    units = frozenset(coded) if settings.uncoded == "ignored" else frozenset({*coded, *FACIAL_UNITS})
    values = _units(answer, settings.part, units).values
    claimed = {unit for unit in units if (values[f"AU{unit}"] or 0.0) > 0.0}
    hits = len(active & claimed)
    if not hits:
        return -1.0
    squared = settings.beta**2
    return 2 * (1 + squared) * hits / (squared * len(active) + len(claimed)) - 1


class AffectSettings(RewardSettings):
    """Valence and arousal of an answer."""

    part: PartName = "answer"
    scale: tuple[float, float] = (-1.0, 1.0)  # of the question, such as (1, 9)

    @field_validator("scale")
    @classmethod
    def _has_two_ends(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError("must be a lower and an upper end, such as (1, 9)")
        return value


def affect(answer: str, record: EmotionRecord, settings: AffectSettings) -> float:
    """1 - |error|, mean over valence and arousal, where the record has them; both on the scale from -1 to 1.

    A number that cannot be read counts as the greatest error, 2. Range -1 to 1. Source: the mean absolute error of
    valence and arousal; as a reward, this package.
    """
    low, high = settings.scale
    found = _numbers(answer, settings.part, settings.scale)
    errors = []
    for name in VALENCE_AROUSAL:
        true = getattr(record, name)
        if true is not None:
            value = found[name].value
            errors.append(2.0 if value is None else abs((2 * value - low - high) / (high - low) - true))
    return 1.0 - sum(errors) / len(errors)


@functools.lru_cache(maxsize=4096)
def _units(answer: str, part: PartName, units: frozenset[int]) -> UnitAnswer:
    return read_action_units(_about_units(PARTS[part](answer)), sorted(units))


def _about_units(text: str) -> str:
    """The sentences that may name an action unit: reading them takes a tenth of the time of reading all."""
    lower = text.lower()
    present = [word for word in _words_of_units() if word in lower]
    has_digit = _DIGIT.search(lower) is not None
    if not present and not has_digit:
        return ""
    sentences = lower.replace("\n", ". ").replace("! ", ". ").replace("? ", ". ").split(". ")
    chosen = (one for one in sentences if any(word in one for word in present) or (has_digit and _DIGIT.search(one)))
    return ". ".join(chosen)


@functools.cache
def _words_of_units() -> tuple[str, ...]:
    """Every name of a unit has one of these in it, and so has what precedes a number, except in a bare list."""
    first = {name.split()[0] for name in facial_priors().units.values()}
    return tuple(sorted({"au", "action", *first}))


@functools.lru_cache(maxsize=4096)
def _numbers(answer: str, part: PartName, scale: tuple[float, float]) -> dict[str, NumberAnswer]:
    text = PARTS[part](answer)
    if not _DIGIT.search(text):
        return dict.fromkeys(VALENCE_AROUSAL, NumberAnswer(None, "invalid"))
    return read_numbers(text, VALENCE_AROUSAL, scale)


register_reward(Reward("au_f1", au_f1, UnitSettings, range=(-1.0, 1.0), needs=frozenset({"action_units"})))
register_reward(Reward("affect", affect, AffectSettings, range=(-1.0, 1.0), needs=frozenset({"valence_arousal"})))
