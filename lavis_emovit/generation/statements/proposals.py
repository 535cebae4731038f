"""What one model says about an image: words of emotion with reasons, a situation, a viewer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lavis_emovit.chat.json_text import find_json, object_schema
from lavis_emovit.emotion.parrott import SECONDARY_OF
from lavis_emovit.emotion.wheels import emotion_wheels

_TEXT = {"type": "string"}
SCHEMA = object_schema(
    words={"type": "array", "items": object_schema(word=_TEXT, reason=_TEXT)},
    situation=object_schema(text=_TEXT, word=_TEXT),
    viewer=object_schema(role=_TEXT, more=_TEXT, less=_TEXT),
)


@dataclass(frozen=True)
class Proposal:
    """The readable reply of one model."""

    model: str
    words: tuple[tuple[str, str], ...]  # (word, reason), strongest first
    situation: tuple[str, str]  # (text, word)
    viewer: tuple[str, str, str]  # (role, more, less)


class Attachment:
    """Places of words on Parrott's tree, at its secondary level.

    Args:
        custom: word -> secondary emotion, for words that the tree lacks; they take precedence.
    """

    def __init__(self, custom: Mapping[str, str] | None = None):
        self._custom = {tidy(word): secondary for word, secondary in (custom or {}).items()}

    def __call__(self, word: str) -> tuple[str, str] | None:
        """The word in its base form and its secondary emotion; None if it has no place on the tree."""
        word = tidy(word)
        if word in self._custom:
            return word, self._custom[word]
        base = word if word in SECONDARY_OF else emotion_wheels().word(word)
        return (base, SECONDARY_OF[base]) if base in SECONDARY_OF else None


def read_proposal(text: str, model: str) -> Proposal | str:
    """The proposal of a reply, or a text that describes the problem; replies are never repaired."""
    value = find_json(text)
    if not isinstance(value, dict):
        return "not one JSON object"
    words, situation, viewer = value.get("words"), value.get("situation"), value.get("viewer")
    if not isinstance(words, list) or not words:
        return "words is no list of words"
    pairs = [_texts(item, "word", "reason") for item in words]
    if None in pairs:
        return "an item of words lacks a text under word or reason"
    if (given := _texts(situation, "text", "word")) is None:
        return "situation lacks text or word"
    if (seen := _texts(viewer, "role", "more", "less")) is None:
        return "viewer lacks role, more or less"
    found = tuple((pair[0], pair[1]) for pair in pairs if pair is not None)
    return Proposal(model, found, (given[0], given[1]), (seen[0], seen[1], seen[2]))


def _texts(value: Any, *keys: str) -> list[str] | None:
    if not isinstance(value, dict):
        return None
    found = [" ".join(text.split()).rstrip(".") for key in keys if isinstance(text := value.get(key), str)]
    return found if len(found) == len(keys) and all(found) else None


def tidy(word: str) -> str:
    """The form in which words are compared."""
    return " ".join(word.casefold().split())
