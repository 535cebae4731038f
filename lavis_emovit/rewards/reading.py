"""What rewards read from answers and records, read once for all rewards of an answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Literal

from lavis_emovit.emotion.answers import EmotionAnswer, read_emotion
from lavis_emovit.emotion.label_set import LabelSet
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.templates import answer_text, reasoning_text, whole_text
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord

# A part of an answer: its result, what precedes it, or both.
PartName = Literal["answer", "reasoning", "all"]
PARTS: Mapping[str, Callable[[str], str]] = {
    "answer": answer_text,
    "reasoning": reasoning_text,
    "all": whole_text,
}


def label_set_of(record: EmotionRecord) -> LabelSet:
    if record.label_set is None:
        raise DataError(f"record '{record.id}' has no label set")
    try:
        return get_label_set(record.label_set)
    except DataError as error:
        raise DataError(f"record '{record.id}': {error}") from None


def true_labels(record: EmotionRecord) -> frozenset[str]:
    """The labels of a record; DataError without one."""
    labels = label_set_of(record)
    given = record.labels or ([record.emotion] if record.emotion is not None else [])
    if not given:
        raise DataError(f"record '{record.id}' has no label")
    try:
        return _canonical(labels, tuple(given))
    except DataError as error:
        raise DataError(f"record '{record.id}': {error}") from None


@functools.lru_cache(maxsize=4096)
def _canonical(labels: LabelSet, given: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(labels.canonical, given))


@functools.lru_cache(maxsize=8192)
def claim(answer: str, label_set: LabelSet) -> EmotionAnswer:
    """The emotion that the result of an answer claims, read strictly."""
    return read_emotion(answer_text(answer), label_set)


def is_right(answer: str, record: EmotionRecord) -> bool:
    """Whether an answer claims a label of the record."""
    return claim(answer, label_set_of(record)).label in true_labels(record)
