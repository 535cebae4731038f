"""Facts about an image, as lines of text for a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from lavis_emovit.records import EmotionRecord

FactName = Literal[
    "emotion", "caption", "brightness", "colorfulness", "scene", "object", "facial_expression", "human_action"
]
ALL_FACTS: tuple[FactName, ...] = get_args(FactName)

_EXPLAINED = {
    "emotion": "emotion that people feel",
    "caption": "caption",
    "brightness": "brightness, from 0 (darkest) to 1",
    "colorfulness": "colourfulness, from 0 (black and white) to 1",
    "scene": "place",
    "object": "things",
    "facial_expression": "expression of the face",
    "human_action": "what the person is doing",
}


def facts_text(record: EmotionRecord, facts: Sequence[FactName] = ALL_FACTS) -> str:
    """One line per known fact, in a fixed order."""
    known = {name: value for name in ALL_FACTS if name in facts and (value := fact(record, name))}
    return "\n".join(f"{_EXPLAINED[name]}: {value}" for name, value in known.items())


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
