"""The kinds of instructions that a model writes: each is one `Kind` in `KINDS`, with its prompt in `prompts/`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lavis_emovit.chat.json_text import object_schema
from lavis_emovit.emotion.questions import DESCRIPTION_QUESTIONS, EXPLANATION_QUESTIONS, categorical_answer, chooser
from lavis_emovit.generation import offline
from lavis_emovit.generation.facts import subject
from lavis_emovit.generation.reading import Pair, Reading, read_pairs, read_text
from lavis_emovit.records import EmotionRecord, InstructionKind

# Steps that write questions and answers from templates, without a model.
TEMPLATES = ("categorical", "affect", "attribute", "expression")

_TEXT = {"type": "string"}
_PAIR = object_schema(question=_TEXT, answer=_TEXT)
_REASON = " Reason: "
# Training cuts answers at 256 tokens (`model.max_output_txt_len`), and an English word takes up to 1.35 tokens.
MAX_WORDS = 190


@dataclass(frozen=True)
class Kind:
    name: InstructionKind  # name in records; also the name of the command and of the prompt
    summary: str  # help text of the command
    schema: Mapping[str, Any]  # JSON schema of the reply
    num_pairs: int  # pairs in a complete reply
    words: tuple[int, int]  # fewest and most words of an answer
    output_tokens: int  # tokens of a typical reply, for estimates
    read: Callable[[str, EmotionRecord], Reading]  # reply and record -> pairs
    # Record and random generator -> content of the reply of the offline writer.
    write_offline: Callable[[EmotionRecord, random.Random], Mapping[str, Any]]
    needs_emotion: bool = False  # whether only images with an emotion get this kind
    claims_after: str = ""  # the model wrote the part of the answer after this text; empty if it wrote the whole answer

    def offline_reply(self, record: EmotionRecord, sample: int = 0, seed: int = 0) -> str:
        """The reply of the offline writer, as JSON text. Another sample or seed gives other words."""
        choose = chooser(f"offline/{self.name}/{sample}", record.id, seed)
        return json.dumps(self.write_offline(record, choose), ensure_ascii=False)


def _read_explanation(text: str, record: EmotionRecord) -> Reading:
    opening = f"{categorical_answer(record.emotion or '')}.{_REASON}"
    return _with_question(read_text(text, "reason"), EXPLANATION_QUESTIONS[subject(record)], record, opening)


def _with_question(reading: Reading, questions: tuple[str, ...], record: EmotionRecord, opening: str = "") -> Reading:
    question = chooser("question", record.id).choice(questions)
    return Reading([Pair(question, opening + pair.answer) for pair in reading.pairs], reading.problems)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "conversation",
            "Write two simple questions and a complex one about each image.",
            object_schema(simple_1=_PAIR, simple_2=_PAIR, complex=_PAIR),
            num_pairs=3,
            words=(1, MAX_WORDS),
            output_tokens=320,
            read=lambda text, record: read_pairs(text),
            write_offline=offline.conversation,
        ),
        Kind(
            "reasoning",
            "Write one question beyond description, with a reasoned answer.",
            _PAIR,
            num_pairs=1,
            words=(15, MAX_WORDS),
            output_tokens=220,
            read=lambda text, record: read_pairs(text),
            write_offline=offline.reasoning,
        ),
        Kind(
            "description",
            "Write a detailed description of the image and its mood.",
            object_schema(description=_TEXT),
            num_pairs=1,
            words=(20, MAX_WORDS),
            output_tokens=180,
            read=lambda text, record: _with_question(read_text(text, "description"), DESCRIPTION_QUESTIONS, record),
            write_offline=offline.description,
        ),
        Kind(
            "explanation",
            "Write the emotion and the reason for it.",
            object_schema(reason=_TEXT),
            num_pairs=1,
            words=(10, MAX_WORDS),
            output_tokens=120,
            read=_read_explanation,
            write_offline=offline.explanation,
            needs_emotion=True,
            claims_after=_REASON,
        ),
    )
}
