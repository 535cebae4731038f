"""Instructions from templates, without any model: the emotion of an image, and its valence and arousal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lavis_emovit.emotion.label_set import LabelSet
from lavis_emovit.emotion.labels import Subject, get_label_set
from lavis_emovit.emotion.questions import (
    AFFECT_QUESTIONS,
    OPEN_WORDINGS,
    OptionOrder,
    Scale,
    categorical_answer,
    categorical_prompt,
    chooser,
    scale_questions,
    templated_wording,
)
from lavis_emovit.emotion.templates import get_template
from lavis_emovit.errors import DataError
from lavis_emovit.generation.facts import subject
from lavis_emovit.records import EmotionRecord, Instruction

# Parts of an answer template that a template can write.
WRITTEN_PARTS = frozenset({"answer", "confidence"})
AFFECT_PROVENANCE = "template:affect"  # first part of the provenance of questions for valence and arousal


def add_categorical(
    records: Iterable[EmotionRecord], *, only_missing: bool = False, **options: Any
) -> Iterator[EmotionRecord]:
    """Append the `categorical_instruction` to every record with an emotion; other records stay unchanged.

    With `only_missing`, also those that have a categorical instruction.
    """
    for record in records:
        is_asked = only_missing and any(one.kind == "categorical" for one in record.instructions)
        if record.emotion is not None and not is_asked:
            instructions = [*record.instructions, categorical_instruction(record, **options)]
            record = record.model_copy(update={"instructions": instructions})
        yield record


def add_affect(
    records: Iterable[EmotionRecord], *, scale: Scale | bool = False, seed: int = 0, about: Subject | None = None
) -> Iterator[EmotionRecord]:
    """Append the `affect_instruction` to every record for which it is due, and with `scale` the `scale_instructions`
    (true: in steps); other records stay unchanged."""
    answers: Scale = "levels" if scale == "levels" else "steps"
    for record in records:
        if is_affect_due(record):
            added = [affect_instruction(record, seed=seed, about=about)]
            added += scale_instructions(record, answers, seed=seed, about=about) if scale else []
            record = record.model_copy(update={"instructions": [*record.instructions, *added]})
        yield record


def categorical_instruction(
    record: EmotionRecord,
    *,
    wordings: Sequence[int] = (1,),
    option_order: OptionOrder = "fixed",
    seed: int = 0,
    open_set: bool = False,
    template: str = "direct",
) -> Instruction:
    """The question for the emotion of a record that has one.

    With another template than `direct`, question and answer have its form; a confidence is one of 0.1, 0.2, ... 0.9,
    drawn whatever the label.

    Wording and order of the options depend only on seed and id. All `wordings` are equally likely. `rotated` lists the
    labels alphabetically from a random one on, so each label has every position equally often. `open_set` asks without
    a list of options. The wordings are those of the subject. DataError if a label set is missing or unknown, an
    emotion is not a member, or a wording does not exist.
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
    about = subject(record)
    if open_set and not 1 <= wording <= len(OPEN_WORDINGS[about]):
        raise DataError(f"open wording {wording} does not exist; there are 1 to {len(OPEN_WORDINGS[about])}")
    label = label_set.canonical(record.emotion or "")
    if (form := get_template(template)).instruction():
        contents = {"answer": label, "confidence": f"0.{choose.randrange(1, 10)}"}
        text = templated_wording(form, wording, about).replace("{options}", ", ".join(options))
        answer = form.write({part: contents[part] for part in form.part_names})
        name = f"categorical-{template}/{wording}"
        return Instruction(kind="categorical", question=text, answer=answer, provenance=f"template:{name}")
    name = "-".join(("categorical", *(("open",) if open_set else ()), *((about,) if about != "picture" else ())))
    return Instruction(
        kind="categorical",
        question=(
            OPEN_WORDINGS[about][wording - 1] if open_set else categorical_prompt(label_set, options, wording, about)
        ),
        answer=categorical_answer(label),
        provenance=f"template:{name}/{wording}",
    )


def with_label(record: EmotionRecord, label: str, label_set: LabelSet) -> tuple[EmotionRecord, int]:
    """The record with another label, and how many of its instructions are dropped because they contradict it.

    A categorical answer becomes that of the new label if the label set stays. All other instructions were written for
    the earlier label, except those about valence and arousal, and are dropped; so are `labels` and `ranking`.
    """
    if record.emotion is None:
        return record.model_copy(update={"emotion": label, "label_set": label_set.name, "labels": None}), 0
    earlier = get_label_set(record.label_set or label_set.name)
    old, kept = categorical_answer(earlier.canonical(record.emotion)), []
    for one in record.instructions:
        if one.provenance.startswith(AFFECT_PROVENANCE):
            kept.append(one)
        elif one.answer == old and earlier.name == label_set.name:
            kept.append(one.model_copy(update={"answer": categorical_answer(label)}))
    changes = {"emotion": label, "label_set": label_set.name, "labels": None, "ranking": None, "instructions": kept}
    return record.model_copy(update=changes), len(record.instructions) - len(kept)


def is_affect_due(record: EmotionRecord) -> bool:
    """Whether a record has valence and arousal, and `seke` has not asked for them."""
    is_asked = any(item.provenance.startswith("seke:affect/") for item in record.instructions)
    return record.valence is not None and record.arousal is not None and not is_asked


def affect_instruction(record: EmotionRecord, *, seed: int = 0, about: Subject | None = None) -> Instruction:
    """The question for valence and arousal of a record that has both; `about` is what they describe."""
    about = about or subject(record)
    wording = chooser("affect", record.id, seed).randrange(len(AFFECT_QUESTIONS[about]))
    return Instruction(
        kind="conversation",
        question=AFFECT_QUESTIONS[about][wording],
        answer=affect_answer(record.valence or 0.0, record.arousal or 0.0),
        provenance=f"{AFFECT_PROVENANCE}-{about}/{wording + 1}",
    )


def scale_instructions(
    record: EmotionRecord, scale: Scale = "steps", *, seed: int = 0, about: Subject | None = None
) -> list[Instruction]:
    """A question for each axis whose answer is a step from 1 to 9 or a level: those that evaluation asks by
    likelihood."""
    about = about or subject(record)
    made = []
    for axis, value in (("valence", record.valence), ("arousal", record.arousal)):
        texts, answers = scale_questions(about, axis, scale)
        wording = chooser(f"scale/{axis}", record.id, seed).randrange(len(texts))
        name = "scale" if scale == "steps" else scale
        made.append(
            Instruction(
                kind="conversation",
                question=texts[wording],
                answer=nearest_step(value or 0.0, answers),
                provenance=f"{AFFECT_PROVENANCE}-{name}-{axis}-{about}/{wording + 1}",
            )
        )
    return made


def nearest_step(value: float, answers: Sequence[str]) -> str:
    """The answer of a scale that is nearest to a value in [-1, 1]; halfway, the one nearer to the middle."""
    steps = (len(answers) - 1) / 2
    distance = math.ceil(abs(value) * steps - 0.5)
    return answers[int(steps + math.copysign(distance, value))]


def affect_answer(valence: float, arousal: float) -> str:
    return f"Valence: {valence:.2f}, arousal: {arousal:.2f}."
