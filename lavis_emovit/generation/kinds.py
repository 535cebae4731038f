"""The kinds of instructions that a model writes: what it is asked for, and how its reply becomes pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lavis_emovit.emotion.questions import (
    DESCRIPTION_QUESTIONS,
    EXPLANATION_QUESTIONS,
    categorical_answer,
    chooser,
)
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


def _described(text: str, record: EmotionRecord) -> Reading:
    return _with_question(read_text(text, "description"), DESCRIPTION_QUESTIONS, record, "")


def _explained(text: str, record: EmotionRecord) -> Reading:
    opening = f"{categorical_answer(record.emotion or '')}. Reason: "
    return _with_question(read_text(text, "reason"), EXPLANATION_QUESTIONS, record, opening)


def _with_question(reading: Reading, questions: tuple[str, ...], record: EmotionRecord, opening: str) -> Reading:
    question = chooser("question", record.id).choice(questions)
    return Reading([Pair(question, opening + pair.answer) for pair in reading.pairs], reading.problems)


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
