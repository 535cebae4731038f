"""Benchmarks: which pictures, what is true about them, what is asked, and how answers are measured.

A benchmark names a registered dataset and a split. Its questions depend on the record and the settings alone, so the
same settings ask every model the same.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lavis_emovit.emotion.facial import FACIAL_UNITS
from lavis_emovit.emotion.labels import LabelSet, LabelSetName, coarser_label, get_label_set
from lavis_emovit.emotion.questions import CATEGORICAL_WORDINGS, OPEN_WORDINGS
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings

Kind = Literal["emotion", "valence_arousal", "action_units", "explanation", "caption"]
Method = Literal["likelihood", "likelihood_sum", "likelihood_calibrated", "generation"]
OptionOrder = Literal["fixed", "reversed", "shuffled"]
OptionMarks = Literal["none", "letters", "numbers"]

AXES = ("valence", "arousal")


class BenchmarkSettings(Settings):
    """One entry of `suite.benchmarks`.

    Attributes:
        dataset: registered name of a dataset.
        kind: `emotion` (one label out of a set), `valence_arousal`, `action_units`, `explanation` (the emotion and
            why), `caption` (a funny caption, for people to judge).
        split: the records that are asked about.
        train_split: what baselines learn from; null leaves out those that learn.
        config: settings over the dataset's defaults, as a recipe has them below `datasets.<name>`.
        label_set: what is asked with; null takes the records' own.
        coarser: coarser label sets, whose metrics are computed from the same answers (`parrott6`, `polarity2`).
        wordings: wordings of the question, numbered from 1; several measure how much they matter.
        option_orders: orders of the listed options; `shuffled` is another one for every record.
        option_marks: how the listed options are marked: by nothing, as `(a) awe` or as `1. awe`. An answer by its mark
            ("b") counts only where the question has marks.
        with_options: whether the question lists the options; both may be asked.
        limit: only the first so many records of the split; the shards are shuffled, so these are a fair choice.
        slices: fields of the records by which metrics are also given (`source`, `attributes.scene`, `extra.gender`).
        max_new_tokens: the longest generated answer; null takes what the kind needs.
        subject: what valence and arousal are asked about: the feeling that a `picture` calls up, or the state that a
            `face` shows.
        active_from: intensity from which an action unit counts as active.
    """

    dataset: str = Field(min_length=1)
    kind: Kind = "emotion"
    split: str = "test"
    train_split: str | None = "train"
    config: dict[str, Any] = Field(default_factory=dict)
    label_set: LabelSetName | None = None
    coarser: tuple[str, ...] = ()
    wordings: tuple[int, ...] = Field(default=(1,), min_length=1)
    option_orders: tuple[OptionOrder, ...] = Field(default=("fixed",), min_length=1)
    option_marks: tuple[OptionMarks, ...] = Field(default=("none",), min_length=1)
    with_options: tuple[bool, ...] = Field(default=(True,), min_length=1)
    limit: int | None = Field(default=None, ge=1)
    slices: tuple[str, ...] = ()
    max_new_tokens: int | None = Field(default=None, ge=1)
    subject: Literal["picture", "face"] = "picture"
    active_from: float = Field(default=1.0, gt=0.0)

    @field_validator("coarser")
    @classmethod
    def _coarser_sets_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            get_label_set(name)
        return value

    @field_validator("wordings", "option_orders", "option_marks", "with_options")
    @classmethod
    def _each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names the same choice twice")
        return value

    @field_validator("slices")
    @classmethod
    def _fields_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name.partition(".")[0] not in EmotionRecord.model_fields:
                raise ValueError(f"'{name}' is no field of a record, such as source, group or extra.gender")
        return value

    @model_validator(mode="after")
    def _fits_the_kind(self) -> BenchmarkSettings:
        if self.kind != "emotion":
            # Compared with the defaults, so that settings with every default written out can be read back.
            fields = type(self).model_fields
            names = ("coarser", "option_orders", "option_marks", "with_options")
            asked = [name for name in names if getattr(self, name) != fields[name].default]
            if asked:
                raise ValueError(f"{', '.join(sorted(asked))} belongs to kind 'emotion', this one is '{self.kind}'")
        available = len(CATEGORICAL_WORDINGS) if self.kind == "emotion" else NUM_WORDINGS[self.kind]
        if self.kind == "emotion" and False in self.with_options:
            available = min(available, len(OPEN_WORDINGS))
        if any(not 1 <= number <= available for number in self.wordings):
            raise ValueError(f"wordings of kind '{self.kind}' are numbered 1 to {available}")
        return self

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every way in which the question is put, the plainest first."""
        made: list[Variant] = []
        choices = itertools.product(self.wordings, self.with_options, self.option_orders, self.option_marks)
        for wording, options, order, marks in choices:
            # Without a list there is no order of it, and nothing to mark.
            variant = Variant(wording, order, marks) if options else Variant(wording, None)
            if variant not in made:
                made.append(variant)
        return tuple(made)


NUM_WORDINGS: dict[str, int] = {"valence_arousal": 2, "action_units": 2, "explanation": 2, "caption": 2}


@dataclass(frozen=True)
class Variant:
    """One way of putting a question; `order` is None where no options are listed."""

    wording: int
    order: OptionOrder | None
    marks: OptionMarks = "none"

    @property
    def name(self) -> str:
        """For example `wording 2, options shuffled`, or `wording 1, options fixed by letters`."""
        marks = f" by {self.marks}" if self.marks != "none" else ""
        options = f"options {self.order}{marks}" if self.order else "no options"
        return f"wording {self.wording}, {options}"

    def options(self, label_set: LabelSet, record_id: str) -> tuple[str, ...]:
        """The options in the order in which this record's question lists them."""
        labels = list(label_set.labels)
        if self.order == "reversed":
            labels.reverse()
        elif self.order == "shuffled":
            digest = hashlib.sha256(f"options/{record_id}".encode()).digest()
            random.Random(int.from_bytes(digest[:8], "big")).shuffle(labels)
        return tuple(labels)


@dataclass(frozen=True)
class Truth:
    """What is true about a record, as far as a benchmark asks for it.

    Attributes:
        label: the emotion, by its canonical name.
        votes: label -> share.
        values: `valence`, `arousal`, or `AU12` -> intensity.
    """

    label: str | None = None
    votes: dict[str, float] | None = None
    values: dict[str, float] | None = None


def truth_of(record: EmotionRecord, benchmark: BenchmarkSettings, label_set: LabelSet | None) -> Truth | None:
    """What is true about a record, or None where the record does not say it, or not in these labels.

    Votes for what the label set does not have (a neutral share beside six emotions) are left out, and the others made
    to add up to 1 again.

    Raises:
        DataError: an emotion that neither the label set nor a hierarchy above it knows.
    """
    if benchmark.kind == "valence_arousal":
        if record.valence is None or record.arousal is None:
            return None
        return Truth(values={"valence": record.valence, "arousal": record.arousal})
    if benchmark.kind == "action_units":
        if not record.action_units:
            return None
        return Truth(values={f"AU{unit}": level for unit, level in sorted(record.action_units.items())})
    if benchmark.kind == "caption":
        return Truth()
    if record.emotion is None or label_set is None:
        return None
    try:
        label = label_in(record.emotion, record.label_set, label_set)
    except DataError as error:
        raise DataError(f"record '{record.id}': {error}") from None
    return Truth(label=label, votes=_votes_in(record, label_set)) if label is not None else None


def label_in(name: str, own: str | None, label_set: LabelSet) -> str | None:
    """A label of the set `own` in the one that is asked with, which may be coarser; None without a place there.

    Raises:
        DataError: neither the label set nor a hierarchy above `own` knows it.
    """
    if own is not None and own != label_set.name:
        try:
            return coarser_label(name, own, label_set.name)
        except DataError:
            pass  # no hierarchy joins the two; they may still spell the label alike
    return label_set.canonical(name)


def _votes_in(record: EmotionRecord, label_set: LabelSet) -> dict[str, float] | None:
    votes = dict.fromkeys(label_set.labels, 0.0)
    for name, share in (record.votes or {}).items():
        try:
            label = label_in(name, record.label_set, label_set)
        except DataError:
            continue
        if label is not None:
            votes[label] += share
    total = sum(votes.values())
    return {label: share / total for label, share in votes.items()} if total > 0 else None


def label_set_of(benchmark: BenchmarkSettings, names: Sequence[str], place: str) -> LabelSet | None:
    """The label set that a benchmark asks with; None for kinds that need none.

    Args:
        names: the label sets that the records name.
        place: the benchmark, for the message.

    Raises:
        DataError: it cannot be told.
    """
    if benchmark.kind in ("valence_arousal", "action_units", "caption"):
        return None
    if benchmark.label_set is not None:
        return get_label_set(benchmark.label_set)
    if len(names) != 1:
        found = ", ".join(names) if names else "none"
        raise DataError(f"{place}: its records name the label sets {found}; say which one to ask with, as `label_set`")
    return get_label_set(names[0])


def slice_values(record: EmotionRecord, fields: Sequence[str]) -> dict[str, str]:
    """Field -> its value as text, for the fields that the record has; lists are joined."""
    found = {}
    for name in fields:
        value: Any = record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        if value is not None:
            found[name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return found


def units_asked(values: dict[str, float] | None) -> tuple[int, ...]:
    """The action units that a truth speaks of, in FACS order; all seventeen of the field where it is not known."""
    if values is None:
        return FACIAL_UNITS
    return tuple(sorted(int(name.removeprefix("AU")) for name in values))
