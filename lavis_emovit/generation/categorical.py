"""The categorical instruction: name the emotion of the image, out of a list of options. It needs no language model."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence

from lavis_emovit.emotion.labels import LabelSet, get_label_set
from lavis_emovit.emotion.questions import (
    OPEN_WORDINGS,
    OptionOrder,
    categorical_answer,
    categorical_prompt,
)
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, Instruction


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
