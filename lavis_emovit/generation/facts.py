"""Facts about an image, as lines of text for a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from lavis_emovit.emotion.labels import Subject, subject_of
from lavis_emovit.records import EmotionRecord

FactName = Literal[
    "emotion", "caption", "brightness", "colorfulness", "scene", "object", "facial_expression", "human_action"
]
ALL_FACTS: tuple[FactName, ...] = get_args(FactName)

_EXPLAINED = {
    "caption": "caption",
    "brightness": "brightness, from 0 (darkest) to 1",
    "colorfulness": "colourfulness, from 0 (black and white) to 1",
    "scene": "place",
    "object": "things",
    "facial_expression": "expression of the face",
    "human_action": "what the person is doing",
}


_EMOTION: dict[Subject, str] = {
    "picture": "emotion that people feel",
    "face": "emotion that the face shows, whatever viewers feel",
    "person": "emotion that the person shows, whatever viewers feel",
}


def subject(record: EmotionRecord) -> Subject:
    """What the labels of a record describe."""
    has_units, has_box = record.action_units is not None, record.box is not None
    return subject_of(record.label_set, has_units=has_units, has_box=has_box)


def facts_text(record: EmotionRecord, facts: Sequence[FactName] = ALL_FACTS) -> str:
    """One line per known fact, in a fixed order."""
    known = {name: value for name in ALL_FACTS if name in facts and (value := fact(record, name))}
    explained = {**_EXPLAINED, "emotion": _EMOTION[subject(record)]}
    return "\n".join(f"{explained[name]}: {value}" for name, value in known.items())


def fact(record: EmotionRecord, name: FactName) -> str | None:
    """One fact as text, or None if unknown."""
    if name in ("emotion", "caption"):
        return getattr(record, name)
    value = getattr(record.attributes, name)
    if value is None or value == []:
        return None
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    return plain(value)


def plain(name: str) -> str:
    """A vocabulary term as words (`dining_room` becomes `dining room`)."""
    return " ".join(name.replace("_", " ").replace("/", " or ").split())
