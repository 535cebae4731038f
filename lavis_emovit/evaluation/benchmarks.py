"""Benchmarks: which records and which questions; `truths` says what is true about the records.

A benchmark names a registered dataset and a split. Its questions depend on the record and the settings alone, so all
models get the same ones.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationInfo, field_validator, model_validator

from lavis_emovit.emotion.facial import FACIAL_UNITS
from lavis_emovit.emotion.labels import LabelSet, LabelSetName, Subject, get_label_set, subject_of
from lavis_emovit.emotion.questions import MODES, PERSONAS, Scale, num_wordings
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.personas import NO_PERSONA, read_personas
from lavis_emovit.evaluation.prompt_settings import OPTIONS, QUESTION, STATEMENT, Prompt, PromptSettings
from lavis_emovit.records import EmotionRecord, InstructionKind
from lavis_emovit.settings import Settings, added_field, each_once, nearest_name

Kind = Literal[
    "emotion",
    "labels",
    "valence_arousal",
    "action_units",
    "explanation",
    "caption",
    "instruction",
    "choice",
    "statement",
    "ranking",
    "words",
    "vqa",
]
Axis = Literal["valence", "arousal", "dominance"]
Mode = Literal["direct", "caption", "context"]
Method = Literal["likelihood", "likelihood_sum", "likelihood_calibrated", "generation"]
OptionOrder = Literal["fixed", "reversed", "shuffled"]
OptionMarks = Literal["none", "letters", "numbers"]

AXES: tuple[Axis, ...] = ("valence", "arousal")
OWN_KINDS = ("choice", "statement", "vqa")
"""Kinds that ask all questions or statements of a record, a row each."""
_PROMPT: TypeAdapter[PromptSettings] = TypeAdapter(Prompt)
_VARIED = ("wordings", "with_options", "option_orders", "option_marks", "personas", "modes")
# What a prompt of these kinds has a place for.
_PLACES: dict[Kind, tuple[str, ...]] = {
    "choice": (QUESTION, OPTIONS),
    "statement": (STATEMENT,),
    "vqa": (QUESTION,),
    "ranking": (OPTIONS,),
    "words": (),
}
# Settings that only these kinds have.
_KINDS_OF: dict[str, tuple[Kind, ...]] = {
    "coarser": ("emotion",),
    "instruction": ("instruction", "explanation"),
    "with_options": ("emotion",),
    "option_orders": ("emotion", "choice"),
    "option_marks": ("emotion", "choice"),
    "axes": ("valence_arousal",),
    "scale": ("valence_arousal",),
    "confidence": ("emotion", "choice", "statement"),
    "personas": ("emotion", "choice", "statement"),
    "modes": ("emotion", "choice", "statement"),
    "wheels": ("words",),
}
ALL_SPLITS = "all"
"""The `split` of a benchmark over a whole dataset."""


class BenchmarkSettings(Settings):
    """One entry of `suite.benchmarks`.

    Attributes:
        dataset: registered name of a dataset.
        split: name of a split, or `all` for the whole dataset; baselines that learn skip the latter.
        kind: `emotion` (one label of a set), `labels` (several labels of one image, ranked by scores),
            `valence_arousal`, `action_units`, `explanation` (the emotion and why), `caption` (a funny caption, for
            people to judge), `instruction` (a question of the record itself, compared with the answer that was written
            with it), `choice` (the record's multiple choices), `statement` (its statements, correct or not), `ranking`
            (its strongest emotions in order), `words` (emotions in free words, on wheels), `vqa` (its questions with
            answers of several people).
        train_split: what baselines learn from; null skips the baselines that learn.
        config: settings over the dataset's defaults, as a recipe has them below `datasets.<name>`.
        label_set: of the answers; null: that of the records.
        coarser: coarser label sets, whose metrics are computed from the same answers (`parrott6`, `polarity2`).
        wordings: wordings of the question, numbered from 1; several of them measure how much the wording matters.
        option_orders: orders of the listed options; `shuffled` differs from record to record.
        option_marks: marks of the listed options: none, `(a) awe` or `1. awe`. An answer that is a mark ("b") counts
            only if the question has marks.
        with_options: whether the question lists the options; [true, false] includes both variants.
        limit: number of samples; the shards are shuffled, so the first ones are a random choice.
        slices: fields of the records by which metrics are split (`source`, `attributes.scene`, `extra.gender`).
        prompt: your own question instead of the wordings, for all kinds but those with numbers and `instruction`: a
            text with `{options}` where the labels are listed (and `{question}` or `{statement}` where the record has
            one), a file with one, the name of a preset, or keys of `PromptSettings`.
        max_new_tokens: longest generated answer; null: that of the prompt, or enough for the kind.
        subject: what questions are about: the feeling that a `picture` evokes, the expression of a `face`, or the state
            of a `person` in a scene; null: what the labels of the dataset describe.
        instruction: with kind `instruction`, the kind of the record's questions; one of several is drawn by its id.
            With kind `explanation`, the kind of the texts that explanations are compared with.
        axes: with kind `valence_arousal`, what is asked; `dominance` is the third.
        scale: with kind `valence_arousal` by likelihood, which answers are scored: the `steps` from 1 to 9, or five
            `levels`, which are words.
        confidence: whether written answers of kinds `emotion`, `choice` and `statement` end with a stated confidence.
        personas: who answers, by name (`none`, `optimist`, ...) or as a text of your own before the question, or a file
            with some (see `personas.py`), which are then compared with `none`; several measure how much it matters.
        persona_texts: id -> text of the personas of a file, which are here without the file.
        modes: what comes before the answer: nothing (`direct`), a description (`caption`), or what happens and why
            (`context`); other modes than `direct` need written answers.
        wheels: with kind `words`, wheels of your own, as `lavis_emovit/emotion/wheels.json`, or the public mapping.
        join_pairs: show every model the two images of a pair joined in one. Otherwise only those see them so that take
            one image in a message.
        active_from: intensity from which an action unit counts as active; one without intensities is active if present.
    """

    dataset: str = Field(min_length=1)
    kind: Kind = "emotion"
    split: str = "test"
    train_split: str | None = "train"
    config: dict[str, Any] = Field(default_factory=dict)
    label_set: LabelSetName | None = None
    coarser: tuple[LabelSetName, ...] = ()
    wordings: tuple[int, ...] = Field(default=(1,), min_length=1)
    option_orders: tuple[OptionOrder, ...] = Field(default=("fixed",), min_length=1)
    option_marks: tuple[OptionMarks, ...] = Field(default=("none",), min_length=1)
    with_options: tuple[bool, ...] = Field(default=(True,), min_length=1)
    limit: int | None = Field(default=None, ge=1)
    slices: tuple[str, ...] = ()
    prompt: Prompt | None = added_field(None)
    max_new_tokens: int | None = Field(default=None, ge=1)
    subject: Subject | None = None
    active_from: float = Field(default=1.0, gt=0.0)
    instruction: InstructionKind | None = added_field(None)
    axes: tuple[Axis, ...] = added_field(AXES, min_length=1)
    scale: Scale = added_field("steps")
    confidence: bool = added_field(False)
    wheels: str | None = added_field(None, min_length=1)
    persona_texts: dict[str, str] = added_field({})
    personas: tuple[str, ...] = added_field(("none",), min_length=1)
    join_pairs: bool = added_field(False)
    modes: tuple[Mode, ...] = added_field(("direct",), min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _marks_of_the_prompt(cls, values: Any) -> Any:
        """The marks that a prompt or the kind asks for, unless the benchmark chooses others."""
        if not isinstance(values, dict) or "option_marks" in values:
            return values
        if values.get("kind") == "choice" and values.get("prompt") is None:
            return {**values, "option_marks": ("letters",)}
        if values.get("prompt") is None:
            return values
        try:
            prompt = _PROMPT.validate_python(values["prompt"])
        except ValueError:
            return values  # the field itself reports what is wrong with it
        marks = {"option_marks": (prompt.option_marks,)} if prompt.option_marks is not None else {}
        return {**values, "prompt": prompt, **marks}

    @model_validator(mode="before")
    @classmethod
    def _personas_of_a_file(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("personas"), str):
            return values
        if values.get("persona_texts"):
            raise ValueError("persona_texts: the file of `personas` has the texts; remove one of the two")
        texts = read_personas(values["personas"])
        return {**values, "personas": (NO_PERSONA, *texts), "persona_texts": texts}

    _each_once = field_validator(*_VARIED, "axes", "coarser", "slices")(each_once)

    @field_validator("personas")
    @classmethod
    def _personas_exist(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        texts = info.data.get("persona_texts", {})
        if NO_PERSONA in texts:
            raise ValueError(f"persona_texts: '{NO_PERSONA}' is no persona and has no text; name yours otherwise")
        for name in value:
            if name not in PERSONAS and name not in texts and len(name.split()) < 2:
                known = nearest_name(name, list(PERSONAS))
                raise ValueError(f"there is no persona '{name}'{known}; write a sentence for one of your own")
        return value

    @field_validator("slices")
    @classmethod
    def _fields_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name.partition(".")[0] not in EmotionRecord.model_fields:
                raise ValueError(f"'{name}' is not a field of a record, such as source, group or extra.gender")
        return value

    @model_validator(mode="after")
    def _fits_the_kind(self) -> BenchmarkSettings:
        problems = []
        # Compared with the defaults, so that settings with every default written out can be read back.
        fields = type(self).model_fields
        for name, kinds in _KINDS_OF.items():
            if self.kind not in kinds and getattr(self, name) != fields[name].default:
                problems.append(f"{name} belongs to kind {' or '.join(map(repr, kinds))}, this one is '{self.kind}'")
        if self.kind == "instruction" and self.instruction is None:
            problems.append("kind 'instruction' needs `instruction`, such as reasoning")
        available = num_wordings(self.kind, self.subject or "picture", with_open=False in self.with_options)
        if any(not 1 <= number <= available for number in self.wordings):
            problems.append(f"wordings of kind '{self.kind}' are numbered 1 to {available}")
        if problems := problems + self._problems_of_prompt():
            raise ValueError("; ".join(problems))
        return self

    def _problems_of_prompt(self) -> list[str]:
        if self.prompt is None:
            return []
        if self.kind not in ("emotion", "labels", "explanation", "caption", *_PLACES):
            return [f"prompt: kind '{self.kind}' has questions of its own, so it has no prompt; remove it"]
        problems = []
        wanted = _PLACES.get(self.kind, ())
        for place in (OPTIONS, QUESTION, STATEMENT):
            if place in wanted and place not in self.prompt.text:
                problems.append(f"prompt: '{self.prompt.name}' has no {place}, which kind '{self.kind}' needs")
            if place not in (*wanted, OPTIONS) and place in self.prompt.text:
                problems.append(f"prompt: '{self.prompt.name}' has {place}, which kind '{self.kind}' does not have")
        if self.wordings != (1,):
            problems.append("prompt: it replaces the wordings; remove `wordings`, or make a benchmark of each")
        if self.confidence:
            problems.append("confidence: a prompt asks for it in its own words; set `confidence` of the prompt instead")
        if self.kind in ("emotion", "labels") and True in self.with_options and not self.prompt.lists_options:
            problems.append(
                f"prompt: '{self.prompt.name}' has no place for the options; write {OPTIONS} where the labels are "
                "listed, or set with_options: [false]"
            )
        if self.kind == "emotion" and False in self.with_options and self.prompt.lists_options:
            problems.append(f"prompt: '{self.prompt.name}' lists the options, so with_options must be [true]")
        if self.kind in ("caption", "statement", "words", "vqa") and self.prompt.lists_options:
            problems.append(f"prompt: '{self.prompt.name}' has {OPTIONS}, but kind '{self.kind}' has none to list")
        return problems

    @property
    def asks_confidence(self) -> bool:
        """Whether written answers state a confidence."""
        return self.confidence or (self.prompt is not None and self.prompt.confidence)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every variant of the question, the plainest first."""
        options = (self.with_options, self.option_orders, self.option_marks)
        choices = itertools.product(self.wordings, *options, self.personas, self.modes)
        # Order and marks belong to the list of options.
        made = (
            Variant(
                wording, order if listed else None, marks if listed else "none", persona, mode, self._opening(persona)
            )
            for wording, listed, order, marks, persona, mode in choices
        )
        return tuple(dict.fromkeys(made))

    def _opening(self, persona: str) -> str:
        """The text of a persona before the question."""
        if persona in self.persona_texts:
            return f"{self.persona_texts[persona]} "
        return PERSONAS.get(persona, f"{persona.strip()} ")

    @property
    def first_variant(self) -> BenchmarkSettings:
        """The same benchmark with only the plainest variant."""
        return self.model_copy(update={name: getattr(self, name)[:1] for name in _VARIED})

    def supports(self, method: Method) -> bool:
        """Whether a scoring method exists for this kind; a description before the answer needs written answers."""
        if method != "generation" and self.modes != ("direct",):
            return False
        # Free text has no candidates, and several labels are ranked by their scores. Numbers come from the softmax over
        # the candidates of one question, so sum and calibration would change nothing that is meant.
        if self.kind in ("valence_arousal", "action_units", "instruction"):
            return method in ("generation", "likelihood")
        if self.kind == "labels":
            return method != "generation"
        return method == "generation" or self.kind in ("emotion", "choice", "statement", "ranking")


class RunBenchmarkSettings(BenchmarkSettings):
    """One entry of `run.valid_benchmarks` or `run.test_benchmarks`."""

    method: Method | None = None  # null: `likelihood` if the kind has it, else `generation`

    @model_validator(mode="after")
    def _method_exists(self) -> RunBenchmarkSettings:
        if self.method is not None and not self.supports(self.method):
            raise ValueError(f"there is no method '{self.method}' for kind '{self.kind}'")
        return self

    @property
    def scoring_method(self) -> Method:
        return self.method or ("likelihood" if self.supports("likelihood") else "generation")


def check_file_names(entries: dict[str, Any]) -> dict[str, Any]:
    """The entries; their names become names of files, so a name that does not suit a file is a ValueError."""
    for name in entries:
        if not name.strip(".") or any(not (character.isalnum() or character in "-_.") for character in name):
            raise ValueError(f"'{name}' becomes a file's name: use letters, digits, '-', '_' and '.', not dots alone")
    return entries


def without_nulls(entries: Any) -> Any:
    """The entries that are not null, so that `suite.models.clip=null` on the command line removes one of a recipe."""
    return (
        {name: entry for name, entry in entries.items() if entry is not None} if isinstance(entries, dict) else entries
    )


@dataclass(frozen=True)
class Variant:
    """A variant of a question; `order` is None if no options are listed."""

    wording: int
    order: OptionOrder | None
    marks: OptionMarks = "none"
    persona: str = "none"
    mode: Mode = "direct"
    persona_text: str = field(default="", compare=False)

    @property
    def choices(self) -> dict[str, Any]:
        """What tells it from other variants."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.compare}

    @property
    def name(self) -> str:
        """For example `wording 2, options shuffled`, or `wording 1, options fixed by letters, persona child`."""
        marks = f" by {self.marks}" if self.marks != "none" else ""
        options = f"options {self.order}{marks}" if self.order else "no options"
        persona = f", persona {self.persona}" if self.persona != "none" else ""
        return f"wording {self.wording}, {options}{persona}{f', {self.mode} first' if self.mode != 'direct' else ''}"

    @property
    def opening(self) -> str:
        """The text before the question."""
        return self.persona_text + MODES[self.mode]

    def options(self, options: Sequence[str], question_id: str) -> tuple[str, ...]:
        """The options in the order of this variant; the shuffled one depends on the record or question."""
        ordered = list(options)
        if self.order == "reversed":
            ordered.reverse()
        elif self.order == "shuffled":
            digest = hashlib.sha256(f"options/{question_id}".encode()).digest()
            random.Random(int.from_bytes(digest[:8], "big")).shuffle(ordered)
        return tuple(ordered)


def record_subject(record: EmotionRecord, label_set: str | None) -> Subject:
    """What the labels and values of a record describe; `label_set` counts if the record names none."""
    has_units = bool(record.action_units)
    return subject_of(record.label_set or label_set, has_units=has_units, has_box=record.box is not None)


def label_set_of(benchmark: BenchmarkSettings, names: Sequence[str], place: str) -> LabelSet | None:
    """The label set of a benchmark whose records have the label sets `names`; None for kinds without labels.

    Raises:
        DataError: no set is chosen, and the records have none, or several.
    """
    if benchmark.kind not in ("emotion", "labels", "explanation", "ranking"):
        return None
    if benchmark.label_set is not None:
        return get_label_set(benchmark.label_set)
    if len(names) != 1:
        found = ", ".join(names) if names else "none"
        raise DataError(f"{place}: the label sets of its records are {found}; choose one as `label_set`")
    return get_label_set(names[0])


def slice_values(record: EmotionRecord, fields: Sequence[str]) -> dict[str, str]:
    """Field -> value as text, for the fields that the record has; lists are joined."""
    found = {}
    for name in fields:
        value: Any = record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        if value is not None:
            found[name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return found


def units_asked(values: dict[str, float] | None) -> tuple[int, ...]:
    """The action units of a truth, in FACS order; all seventeen units of records if it is unknown."""
    if values is None:
        return FACIAL_UNITS
    return tuple(sorted(int(name.removeprefix("AU")) for name in values))
