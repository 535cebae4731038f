"""Reward of reasoning that speaks of the emotion."""

from __future__ import annotations

from pydantic import Field

from lavis_emovit.emotion.label_set import NEUTRAL
from lavis_emovit.emotion.wheels import Wheels, emotion_wheels
from lavis_emovit.records import EmotionRecord
from lavis_emovit.rewards.reading import PartName, true_labels
from lavis_emovit.rewards.registry import Reward, RewardSettings, register_reward
from lavis_emovit.rewards.wheels import sentence_words


class RationaleSettings(RewardSettings):
    """How sentences are read."""

    part: PartName = "reasoning"
    file: str | None = None  # wheels of your own, as for `wheel_f1`
    # A sentence with words of more clusters than this has an emotion, but not that of the record: a sentence that names
    # all emotions must not earn anything.
    most: int = Field(default=2, ge=1)


def rationale_emotion(answer: str, record: EmotionRecord, settings: RationaleSettings) -> float:
    """Share of the sentences with an emotion that have the emotion of the record.

    A sentence has the emotion if it claims a word of its cluster, on the first wheel that has the label. For the label
    neutral, the share of the sentences without an emotion. 0 without such sentences. Range 0 to 1. Source: ERV
    (arXiv 2510.23506), which reads sentences by a classifier, here by the words of the wheels.
    """
    sentences = sentence_words(answer, settings.part, settings.file)
    labels, table = true_labels(record), emotion_wheels(settings.file)
    if labels == {NEUTRAL}:
        return sum(not words for words in sentences) / len(sentences) if sentences else 0.0
    with_emotion = [words for words in sentences if words]
    wheel = _wheel_of(labels, table)
    if wheel is None or not with_emotion:
        return 0.0
    wanted = table.clusters({table.word(label) or "" for label in labels}, wheel)
    carrying = 0
    for words in with_emotion:
        clusters = table.clusters(words, wheel)
        carrying += bool(clusters & wanted) and len(clusters) <= settings.most
    return carrying / len(with_emotion)


def _wheel_of(labels: frozenset[str], table: Wheels) -> str | None:
    """The first wheel that has one of the labels."""
    words = {table.word(label) for label in labels}
    return next((name for name, wheel in table.wheels.items() if words & set(wheel.cluster_of)), None)


def _fault(record: EmotionRecord, settings: RationaleSettings) -> str | None:
    labels = true_labels(record)
    if labels == {NEUTRAL} or _wheel_of(labels, emotion_wheels(settings.file)) is not None:
        return None
    return f"finds the label '{', '.join(sorted(labels))}' on no wheel"


register_reward(
    Reward("rationale_emotion", rationale_emotion, RationaleSettings, needs=frozenset({"label"}), fault=_fault)
)
