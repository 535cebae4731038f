"""The kinds of instructions that a model writes: what it is asked for, and how its reply becomes pairs."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lavis_emovit.generation.categorical import categorical_answer
from lavis_emovit.generation.reading import Pair, Reading, read_pairs, read_text
from lavis_emovit.records import EmotionRecord, InstructionKind


@dataclass(frozen=True)
class Kind:
    """One kind of instruction.

    Attributes:
        name: as records have it; also the prompt's name.
        schema: JSON schema of the reply. All keys are required and no others allowed, as endpoints want it.
        num_pairs: pairs that a good reply holds.
        words: fewest and most words of an answer.
        output_tokens: of a typical reply, for estimates before there is any.
        read: reply and record -> pairs.
        needs_emotion: whether it makes no sense for a picture without emotion.
    """

    name: InstructionKind
    schema: Mapping[str, Any]
    num_pairs: int
    words: tuple[int, int]
    output_tokens: int
    read: Callable[[str, EmotionRecord], Reading]
    needs_emotion: bool = False


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_TEXT = {"type": "string"}
_PAIR = _object(question=_TEXT, answer=_TEXT)

# Questions of the kinds whose question is always the same one; chosen by record id. None names an emotion.
DESCRIPTION_QUESTIONS = (
    "Describe this picture in detail, and the mood that it has.",
    "What does the picture show? Go through the place, the things in it, the light, and how it all feels.",
    "Tell somebody who cannot see the picture what is in it and what mood it creates.",
    "Give a full account of this image, from what is visible to its atmosphere.",
)
EXPLANATION_QUESTIONS = (
    "Which emotion does this picture evoke, and why? Begin with 'Predict emotion: <emotion>.', then give the reason.",
    "What would people feel when they look at this image? Write 'Predict emotion: <emotion>. Reason: <why>'.",
    "Name the emotion that fits this picture as 'Predict emotion: <emotion>', and explain what in it leads there.",
)


def _described(text: str, record: EmotionRecord) -> Reading:
    return _with_question(read_text(text, "description"), DESCRIPTION_QUESTIONS, record, "")


def _explained(text: str, record: EmotionRecord) -> Reading:
    opening = f"{categorical_answer(record.emotion or '')}. Reason: "
    return _with_question(read_text(text, "reason"), EXPLANATION_QUESTIONS, record, opening)


def _with_question(reading: Reading, questions: tuple[str, ...], record: EmotionRecord, opening: str) -> Reading:
    question = chooser("question", record.id).choice(questions)
    return Reading([Pair(question, opening + pair.answer) for pair in reading.pairs], reading.problems)


def chooser(purpose: str, record_id: str, seed: int = 0) -> random.Random:
    """Random numbers that depend on purpose, record and seed only."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{record_id}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "conversation",
            _object(simple_1=_PAIR, simple_2=_PAIR, complex=_PAIR),
            num_pairs=3,
            words=(1, 250),
            output_tokens=320,
            read=lambda text, record: read_pairs(text),
        ),
        Kind(
            "reasoning",
            _PAIR,
            num_pairs=1,
            words=(15, 350),
            output_tokens=220,
            read=lambda text, record: read_pairs(text),
        ),
        Kind(
            "description",
            _object(description=_TEXT),
            num_pairs=1,
            words=(20, 350),
            output_tokens=180,
            read=_described,
        ),
        Kind(
            "explanation",
            _object(reason=_TEXT),
            num_pairs=1,
            words=(10, 250),
            output_tokens=120,
            read=_explained,
            needs_emotion=True,
        ),
    )
}
