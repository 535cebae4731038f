"""The categorical instruction: which emotion does the image show? It needs no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.questions import OPEN_WORDINGS, OptionOrder, categorical_answer, categorical_prompt, chooser
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, Instruction


def add_categorical(records: Iterable[EmotionRecord], **options: Any) -> Iterator[EmotionRecord]:
    """Append the `categorical_instruction` to every record with an emotion; other records stay unchanged."""
    for record in records:
        if record.emotion is not None:
            instructions = [*record.instructions, categorical_instruction(record, **options)]
            record = record.model_copy(update={"instructions": instructions})
        yield record


def categorical_instruction(
    record: EmotionRecord,
    *,
    wordings: Sequence[int] = (1,),
    option_order: OptionOrder = "fixed",
    seed: int = 0,
    open_set: bool = False,
) -> Instruction:
    """The question for the emotion of a record that has one.

    Wording and order of the options depend only on seed and id. All `wordings` are equally likely. `rotated` lists the
    labels alphabetically from a random one on, so each label has every position equally often. `open_set` asks without
    a list of options, with `OPEN_WORDINGS`. DataError if a label set is missing or unknown, an emotion is not a member,
    or a wording does not exist.
    """
    if record.label_set is None:
        raise DataError(f"record '{record.id}' has an emotion but names no label set; set `label_set`")
    label_set = get_label_set(record.label_set)
    choose = chooser("categorical", record.id, seed)
    wording = choose.choice(list(wordings))
    options = list(label_set.labels)
    if option_order == "shuffled":
        choose.shuffle(options)
    elif option_order == "rotated":
        start = choose.randrange(len(options))
        options = options[start:] + options[:start]
    if open_set and not 1 <= wording <= len(OPEN_WORDINGS):
        raise DataError(f"open wording {wording} does not exist; there are 1 to {len(OPEN_WORDINGS)}")
    return Instruction(
        kind="categorical",
        question=OPEN_WORDINGS[wording - 1] if open_set else categorical_prompt(label_set, options, wording),
        answer=categorical_answer(label_set.canonical(record.emotion or "")),
        provenance=f"template:categorical{'-open' if open_set else ''}/{wording}",
    )
