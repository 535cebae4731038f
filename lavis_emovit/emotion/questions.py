"""The categorical instruction: name the picture's emotion, one out of a list of options. It needs no language model.

Training and evaluation ask with the same words, so both take them from here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from lavis_emovit.emotion.labels import LabelSet, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, Instruction

# What stands before the label in every answer; evaluation scores the candidates behind it.
CATEGORICAL_ANSWER_PREFIX = "Predict emotion: "

# Several wordings of one question, for training with variety and for measuring how much the wording matters. Numbers
# are written into provenance: append, never reorder.
CATEGORICAL_WORDINGS: tuple[str, ...] = (
    "Which of these emotions fits the picture best: {options}? "
    "Give one of them, in the form 'Predict emotion: <emotion>'.",
    "Look at the image and pick the feeling that it conveys from this list: {options}. "
    "Write 'Predict emotion: ' and then the word you picked.",
    "The choices are {options}. Name the single emotion that matches the picture, written as "
    "'Predict emotion: <choice>'; no other words count.",
    "What emotion comes across here? The allowed words are {options}. "
    "Reply with 'Predict emotion: ' followed by one allowed word.",
)

# The same without a list, for models that are to find the word themselves. Append, never reorder.
OPEN_WORDINGS: tuple[str, ...] = (
    "What emotion does this picture call up? Answer in the form 'Predict emotion: <emotion>'.",
    "Find the one word for the feeling that this image conveys, and write it behind 'Predict emotion: '.",
    "How would most people feel in front of this picture? Reply with 'Predict emotion: ' and a single noun.",
)

OptionOrder = Literal["fixed", "shuffled", "rotated"]


def categorical_prompt(label_set: LabelSet, options_order: Sequence[str] | None = None, wording: int = 1) -> str:
    """The question.

    Args:
        label_set: where the options come from.
        options_order: the labels in the order to list them; left out, the label set's own.
        wording: which of `CATEGORICAL_WORDINGS`, counted from 1.

    Raises:
        DataError: no such wording, or an order that is not one of exactly these labels.
    """
    if not 1 <= wording <= len(CATEGORICAL_WORDINGS):
        raise DataError(f"categorical wording {wording} does not exist; there are 1 to {len(CATEGORICAL_WORDINGS)}")
    options = tuple(options_order) if options_order is not None else label_set.labels
    if sorted(options) != sorted(label_set.labels):
        raise DataError(f"options {list(options)} are not the labels of '{label_set.name}': {list(label_set.labels)}")
    return CATEGORICAL_WORDINGS[wording - 1].format(options=", ".join(options))


def categorical_answer(label: str) -> str:
    """The answer that training teaches for a label."""
    return CATEGORICAL_ANSWER_PREFIX + label


def categorical_instruction(
    record: EmotionRecord, label_set: LabelSet, wording: int = 1, options_order: Sequence[str] | None = None
) -> Instruction:
    """Question and answer for one record.

    Raises:
        DataError: the record has no emotion, or one outside the label set.
    """
    if record.emotion is None:
        raise DataError(f"record '{record.id}' has no emotion, so it cannot be asked for one")
    return Instruction(
        kind="categorical",
        question=categorical_prompt(label_set, options_order, wording),
        answer=categorical_answer(label_set.canonical(record.emotion)),
        provenance=f"template:categorical/{wording}",
    )


def open_instruction(record: EmotionRecord, label_set: LabelSet, wording: int = 1) -> Instruction:
    """Question without options, and answer, for one record.

    Raises:
        DataError: the record has no emotion, or one outside the label set, or there is no such wording.
    """
    if record.emotion is None:
        raise DataError(f"record '{record.id}' has no emotion, so it cannot be asked for one")
    if not 1 <= wording <= len(OPEN_WORDINGS):
        raise DataError(f"open wording {wording} does not exist; there are 1 to {len(OPEN_WORDINGS)}")
    return Instruction(
        kind="categorical",
        question=OPEN_WORDINGS[wording - 1],
        answer=categorical_answer(label_set.canonical(record.emotion)),
        provenance=f"template:categorical-open/{wording}",
    )


def _ordered(labels: Sequence[str], order: OptionOrder, choose: random.Random) -> list[str]:
    ordered = list(labels)
    if order == "shuffled":
        choose.shuffle(ordered)
    elif order == "rotated":
        start = choose.randrange(len(ordered))
        ordered = ordered[start:] + ordered[:start]
    return ordered


def add_categorical(
    records: Iterable[EmotionRecord],
    *,
    wordings: Sequence[int] = (1,),
    option_order: OptionOrder = "fixed",
    seed: int = 0,
    open_set: bool = False,
) -> Iterator[EmotionRecord]:
    """Append a categorical instruction to every record that has an emotion; the others pass as they are.

    Wording and order of options depend on seed and id only, never on the records around.

    Args:
        records: records whose label set is known.
        wordings: the wordings to choose from, each as likely.
        option_order: `fixed` lists the labels alphabetically, `shuffled` in a new order for every record, `rotated`
            alphabetically from another label on, so that each stands at every place equally often.
        seed: seed of both choices.
        open_set: ask without a list of options, in the words of `OPEN_WORDINGS`.

    Raises:
        DataError: a record's label set is missing or unknown, its emotion is no member, or a wording does not exist.
    """
    for record in records:
        if record.emotion is None:
            yield record
            continue
        if record.label_set is None:
            raise DataError(f"record '{record.id}' has an emotion but names no label set; set `label_set`")
        label_set = get_label_set(record.label_set)
        digest = hashlib.sha256(f"categorical/{seed}/{record.id}".encode()).digest()
        choose = random.Random(int.from_bytes(digest[:8], "big"))
        wording = choose.choice(list(wordings))
        options = _ordered(label_set.labels, option_order, choose)
        if open_set:
            instruction = open_instruction(record, label_set, wording)
        else:
            instruction = categorical_instruction(record, label_set, wording, options)
        yield record.model_copy(update={"instructions": [*record.instructions, instruction]})
