"""Rewards of answers in open vocabulary: words of emotion, compared by the clusters of emotion wheels."""

from __future__ import annotations

import functools
import math
from typing import Literal

from pydantic import model_validator

from lavis_emovit.emotion.answer_sentences import emotions_claimed
from lavis_emovit.emotion.wheels import Wheels, emotion_wheels
from lavis_emovit.records import EmotionRecord
from lavis_emovit.rewards.reading import PARTS, PartName, true_labels
from lavis_emovit.rewards.registry import Reward, RewardSettings, register_reward

PenaltyForm = Literal["difference", "ratio", "logarithm"]


class WheelSettings(RewardSettings):
    """Which wheels count, and how many words an answer may name."""

    wheels: tuple[str, ...] = ()  # names of wheels; none: all of the file
    file: str | None = None  # JSON file with wheels of your own, in the format of lavis_emovit/emotion/wheels.json
    # Factor for answers with more words than the record has labels, see `label_count_penalty`.
    penalty: PenaltyForm | None = None

    @model_validator(mode="after")
    def _wheels_exist(self) -> WheelSettings:
        for name in self.wheels:
            self.table.wheel(name)
        return self

    @property
    def table(self) -> Wheels:
        return emotion_wheels(self.file)

    @property
    def names(self) -> tuple[str, ...]:
        return self.wheels or tuple(self.table.wheels)


@functools.lru_cache(maxsize=4096)
def sentence_words(answer: str, part: PartName, file: str | None) -> tuple[frozenset[str], ...]:
    """The words of emotion that each sentence of a part claims; denied words are not among them."""
    return tuple(emotions_claimed(PARTS[part](answer), emotion_wheels(file).lexicon))


def words_of(answer: str, part: PartName, file: str | None) -> frozenset[str]:
    return frozenset().union(*sentence_words(answer, part, file))


def true_words(record: EmotionRecord, table: Wheels) -> frozenset[str]:
    """The words of the labels of a record that are on a wheel."""
    found = (table.word(label) for label in true_labels(record))
    return frozenset(word for word in found if word is not None)


def wheel_f1(answer: str, record: EmotionRecord, settings: WheelSettings) -> float:
    """F1 of the clusters of the result's words against those of the record's labels, mean over the wheels.

    P = |Y n Y'| / |Y'|, R = |Y n Y'| / |Y|, F1 = 2 P R / (P + R), 0 if no word of the answer is on the wheel. A wheel
    that has no label of the record does not count. Synonyms in one cluster are equal, denied words do not count.
    Range 0 to 1. Source: the metric of AffectGPT (ICML 2025) for one sample; AffectGPT-R1 (arXiv 2508.01318), accuracy.
    """
    return _f1(answer, "answer", record, settings)


def wheel_dual(answer: str, record: EmotionRecord, settings: WheelSettings) -> float:
    """As `wheel_f1`, for the words of the reasoning.

    Range 0 to 1. Source: AffectGPT-R1 (arXiv 2508.01318), dual reward.
    """
    return _f1(answer, "reasoning", record, settings)


def wheel_alignment(answer: str, record: EmotionRecord, settings: WheelSettings) -> float:
    """Share of clusters that reasoning and result have in common: |T n A| / |T u A|, mean over the wheels.

    0 if neither names a word of a wheel. Symmetric in both. Range 0 to 1. Source: AffectGPT-R1 (arXiv 2508.01318),
    alignment reward.
    """
    thought, stated = (words_of(answer, part, settings.file) for part in ("reasoning", "answer"))
    shares = []
    for name in settings.names:
        one, other = settings.table.clusters(thought, name), settings.table.clusters(stated, name)
        if one or other:
            shares.append(len(one & other) / len(one | other))
    return sum(shares) / len(shares) if shares else 0.0


class CountSettings(RewardSettings):
    """Number of labels of an answer."""

    form: PenaltyForm = "ratio"
    file: str | None = None  # as for `wheel_f1`


def label_count_penalty(answer: str, record: EmotionRecord, settings: CountSettings) -> float:
    """Less than 1 if the result names m different words of emotion, more than the n labels of the record.

    `difference`: 1 / (m - n + 1); `ratio`: n / m; `logarithm`: ln n / ln m, for records with several labels. 1 for 1 to
    n words, 0 for none. Range 0 to 1. Source: AffectGPT-R1 (arXiv 2508.01318), which multiplies the accuracy by it:
    `penalty` of `wheel_f1` does that.
    """
    count = len(words_of(answer, "answer", settings.file))
    return count_factor(len(true_labels(record)), count, settings.form) if count else 0.0


def count_factor(n: int, m: int, form: PenaltyForm) -> float:
    """The factor for m words where the record has n labels; n >= 2 for the logarithm."""
    if m <= n:
        return 1.0
    if form == "difference":
        return 1.0 / (m - n + 1)
    return n / m if form == "ratio" else math.log(n) / math.log(m)


def _f1(answer: str, part: PartName, record: EmotionRecord, settings: WheelSettings) -> float:
    table = settings.table
    said, true = words_of(answer, part, settings.file), true_words(record, table)
    scores = []
    for name in settings.names:
        wanted, found = table.clusters(true, name), table.clusters(said, name)
        if wanted:
            scores.append(2 * len(wanted & found) / (len(wanted) + len(found)))
    mean = sum(scores) / len(scores)
    return mean * count_factor(len(true_labels(record)), len(said), settings.penalty) if settings.penalty else mean


def _off_the_wheels(record: EmotionRecord, settings: WheelSettings) -> str | None:
    true = true_words(record, settings.table)
    if not any(settings.table.clusters(true, name) for name in settings.names):
        labels = ", ".join(sorted(true_labels(record)))
        return f"finds the label '{labels}' on no wheel ({', '.join(settings.names)})"
    return _one_label(record, settings.penalty)


def _one_label(record: EmotionRecord, form: PenaltyForm | None) -> str | None:
    needed = "needs records with several labels for the penalty 'logarithm', since ln 1 is 0"
    return needed if form == "logarithm" and len(true_labels(record)) < 2 else None


for _measure in (wheel_f1, wheel_dual):
    register_reward(
        Reward(_measure.__name__, _measure, WheelSettings, needs=frozenset({"label"}), fault=_off_the_wheels)
    )
register_reward(Reward("wheel_alignment", wheel_alignment, WheelSettings))
register_reward(
    Reward(
        "label_count_penalty",
        label_count_penalty,
        CountSettings,
        needs=frozenset({"label"}),
        fault=lambda record, settings: _one_label(record, settings.form),
    )
)
