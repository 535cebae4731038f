"""The three levels of a face: known levels, missing levels, and the levels of an answer."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lavis_emovit.chat.json_text import find_json, object_schema
from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors
from lavis_emovit.emotion.facial_knowledge import Beliefs, Evidence
from lavis_emovit.emotion.label_set import LabelSet
from lavis_emovit.emotion.labels import CUSTOM_PREFIX, get_label_set
from lavis_emovit.emotion.labels_faces import EXPRESSIONS8, FACE_SETS
from lavis_emovit.errors import DataError
from lavis_emovit.generation.seke.settings import LEVELS, LevelName
from lavis_emovit.records import EmotionRecord

EXPRESSION = "expression"
AXES = ("valence", "arousal")
PERSON = "person"
MARK = "seke_"  # prefix of the keys of `extra` that record the source of a level


def level_of(item: str) -> LevelName:
    """The level of an item: `expression`, `valence`, `arousal` or `unit:<number>`."""
    if item == EXPRESSION:
        return "expression"
    return "affect" if item in AXES else "units"


@dataclass(frozen=True)
class Levels:
    """Values of the levels; each may be missing."""

    # A label of `expressions8`. Labels by people without a counterpart there stay unchanged.
    expression: str | None = None
    valence: float | None = None  # in [-1, 1], as arousal
    arousal: float | None = None
    units: Mapping[int, bool] = field(default_factory=dict)  # action unit -> active or not

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Levels:
        """From values by item."""
        units = {int(item.removeprefix("unit:")): value for item, value in values.items() if level_of(item) == "units"}
        return cls(units=units, **{item: value for item, value in values.items() if level_of(item) != "units"})

    def get(self, item: str) -> Any:
        """Value of an item, or None."""
        if level_of(item) == "units":
            return self.units.get(int(item.removeprefix("unit:")))
        return getattr(self, item)

    def active(self) -> tuple[int, ...]:
        return tuple(sorted(unit for unit, is_active in self.units.items() if is_active))

    def has_any(self, level: LevelName) -> bool:
        """Whether a level has a value, or one of its axes."""
        return self.has(level) or (level == "affect" and (self.valence is not None or self.arousal is not None))

    def over(self, other: Levels) -> Levels:
        values = {name: value for name, value in vars(self).items() if value is not None}
        return replace(other, **{**values, "units": {**other.units, **self.units}})

    def has(self, level: LevelName) -> bool:
        """Whether a level has a value (valence and arousal: both)."""
        if level == "expression":
            return self.expression is not None
        return bool(self.units) if level == "units" else self.valence is not None and self.arousal is not None

    def without(self, items: Collection[str]) -> Levels:
        """The levels without some items."""
        names = [f"unit:{unit}" for unit in self.units] + [EXPRESSION, *AXES]
        return Levels.of({name: value for name in names if name not in items and (value := self.get(name)) is not None})

    def only(self, levels: tuple[LevelName, ...] | list[LevelName]) -> Levels:
        point = (self.valence, self.arousal) if "affect" in levels else (None, None)
        expression = self.expression if "expression" in levels else None
        return Levels(expression, *point, self.units if "units" in levels else {})

    def plain(self) -> dict[str, Any]:
        """The values that are not missing, for JSON."""
        content = {name: value for name, value in vars(self).items() if value is not None and name != "units"}
        return {**content, "units": list(self.active())} if self.units else content


@dataclass(frozen=True)
class Case:
    """A face with missing levels."""

    record: EmotionRecord
    known: Levels  # levels labelled by people, or imported from the table of a program
    wanted: tuple[LevelName, ...]  # the missing levels
    classes: tuple[str, ...] = EXPRESSIONS8.labels  # expressions to choose from
    units: tuple[int, ...] = FACIAL_UNITS  # action units to decide on, those that people did not code
    axes: tuple[str, ...] = AXES  # of valence and arousal, those that people did not label

    @property
    def items(self) -> tuple[str, ...]:
        """What is missing: `expression`, `valence`, `arousal`, `unit:<number>`."""
        expression = (EXPRESSION,) if "expression" in self.wanted else ()
        axes = self.axes if "affect" in self.wanted else ()
        units = tuple(f"unit:{unit}" for unit in self.units) if "units" in self.wanted else ()
        return (*expression, *axes, *units)

    def narrowed(self, items: Collection[str]) -> Case:
        """The case with only these of its items missing. Values of the others are not known to it."""
        kept = [item for item in self.items if item in items]
        wanted = tuple(level for level in LEVELS if any(level_of(item) == level for item in kept))
        units = tuple(unit for unit in self.units if f"unit:{unit}" in kept)
        return replace(self, wanted=wanted, units=units, axes=tuple(axis for axis in AXES if axis in kept))


def without_generated(record: EmotionRecord) -> EmotionRecord:
    """The record without the levels, marks and instructions of an earlier run."""
    trail = {name: value for name, value in record.extra.items() if name.startswith(MARK)}
    if not trail:
        return record
    changes: dict[str, Any] = {
        "extra": {name: value for name, value in record.extra.items() if name not in trail},
        "instructions": [item for item in record.instructions if not item.provenance.startswith("seke:")],
    }
    given = str(trail.get(f"{MARK}given", "")).split()
    if "expression" in given:
        changes |= {"emotion": None}
        changes |= {"label_set": None} if f"{MARK}label_set" in trail else {}
    changes |= {name: None for name in ("valence", "arousal") if name in given}
    units = {int(number) for word in given if (number := word.removeprefix("unit:")) != word and number.isdecimal()}
    if units and record.action_units is not None:
        kept = {unit: value for unit, value in record.action_units.items() if unit not in units}
        changes["action_units"] = kept or None
    return record.model_copy(update=changes)


def case_of(record: EmotionRecord, *, active_from: float, hide: LevelName | None = None) -> Case | None:
    """Known and missing levels of a face, or None if nothing is missing. Levels of an earlier run count as missing.

    With `hide`, only this level is missing (to measure how well it is completed), and None if no person labelled it.
    DataError if the emotion is not a facial expression.
    """
    record = without_generated(record)
    known = known_levels(record, active_from)
    if hide is not None:
        if not known.has(hide) or sources_of(record, known)[hide] != PERSON:
            return None
        others: list[LevelName] = [level for level in LEVELS if level != hide]
        units = tuple(sorted(set(known.units) & set(FACIAL_UNITS))) if hide == "units" else ()
        if hide == "units" and not units:
            return None
        return Case(record, known.only(others), (hide,), _classes(record), units)
    open_units = tuple(unit for unit in FACIAL_UNITS if unit not in known.units)
    missing = {"expression": not known.has("expression"), "affect": not known.has("affect"), "units": bool(open_units)}
    wanted: tuple[LevelName, ...] = tuple(level for level in LEVELS if missing[level])
    if not wanted:
        return None
    classes = _choices(record) if "expression" in wanted else _classes(record)
    axes = tuple(axis for axis in AXES if getattr(known, axis) is None)
    return Case(record, known, wanted, classes, open_units, axes)


def evidence_of(case: Case, priors: FacialPriors) -> Evidence:
    """The known levels of a case, with the intensities of units that have one; no expression that `priors` lack.

    An expression by a program comes with the votes of the record, if it has any.
    """
    known, record = case.known, case.record
    expression = known.expression if known.expression in priors.expressions else None
    graded = set(known.active()) - record.occurrence_only
    intensities = {unit: value for unit, value in (record.action_units or {}).items() if unit in graded}
    votes: dict[str, float] = {}
    if expression is not None and record.votes and sources_of(record, known)["expression"] != PERSON:
        for label, share in record.votes.items():
            if (name := label_in(EXPRESSIONS8.name, label)) is not None and name in priors.expressions:
                votes[name] = votes.get(name, 0.0) + share  # labels of a custom set may be synonyms
    return Evidence(expression, known.valence, known.arousal, known.units, intensities, votes)


def likeliest_levels(beliefs: Beliefs, case: Case) -> Levels:
    """The likeliest values of the missing levels, those that the beliefs are about."""
    affect = {axis: mixture.mean for axis in case.axes if (mixture := getattr(beliefs, axis)).parts}
    units = {unit: beliefs.units[unit] > 0.5 for unit in case.units if unit in beliefs.units}
    return Levels(beliefs.likeliest()[0][0], **affect, units=units).only(case.wanted)


def sources_of(record: EmotionRecord, known: Levels) -> dict[LevelName, str]:
    """Level with a known value -> who gave it: `person`, or the program that its import named."""
    return {level: str(record.extra.get(f"{level}_by", PERSON)) for level in LEVELS if known.has_any(level)}


def known_levels(record: EmotionRecord, active_from: float) -> Levels:
    """The levels of a record without generated levels. DataError if the emotion is not one of its set of faces."""
    return Levels(_expression(record), record.valence, record.arousal, record.active_units(active_from))


def _expression(record: EmotionRecord) -> str | None:
    if record.emotion is None:
        return None
    if (label := label_in(_face_set(record).name, record.emotion)) is None:
        raise DataError(
            f"record '{record.id}': emotion '{record.emotion}' is not a label of '{record.label_set}'; correct one of "
            "the two."
        )
    return label_in(EXPRESSIONS8.name, label) or record.emotion


def _face_set(record: EmotionRecord) -> LabelSet:
    """The label set of a record. DataError if it is unknown, or does not describe faces."""
    names = {label_set.name for label_set in FACE_SETS}
    if record.label_set not in names and not str(record.label_set).startswith(CUSTOM_PREFIX):
        raise DataError(
            f"record '{record.id}': label set '{record.label_set}' has no facial expressions. This step needs faces "
            f"with a label set of {', '.join(sorted(names))}."
        )
    try:
        return get_label_set(str(record.label_set))
    except DataError as error:
        raise DataError(f"record '{record.id}': {error}") from None


def label_in(label_set: str, label: str) -> str | None:
    """The spelling of a label in a set, such as `happy` for happiness; None if it is not there."""
    try:
        return get_label_set(label_set).canonical(label)
    except DataError:
        return None


def own_label(label_set: str, expression: str) -> str | None:
    """The label of a set that means an expression of `expressions8`, such as `happy`; None if there is none."""
    labels = get_label_set(label_set).labels
    return next((label for label in labels if label_in(EXPRESSIONS8.name, label) == expression), None)


def _classes(record: EmotionRecord) -> tuple[str, ...]:
    """The labels of the record's label set if all of them are expressions, else all eight."""
    labels = get_label_set(record.label_set or EXPRESSIONS8.name).labels
    found = tuple(name for label in labels if (name := label_in(EXPRESSIONS8.name, label)) is not None)
    return found if len(found) == len(labels) else EXPRESSIONS8.labels


def _choices(record: EmotionRecord) -> tuple[str, ...]:
    """The expressions that a missing emotion can be. DataError if the record's label set cannot hold the answer."""
    if record.label_set is None:
        return EXPRESSIONS8.labels
    label_set = _face_set(record)
    found = tuple(name for name in _classes(record) if own_label(label_set.name, name) is not None)
    is_custom = label_set.name.startswith(CUSTOM_PREFIX)
    if len(set(found)) < (len(label_set) if is_custom else 2):
        raise DataError(
            f"record '{record.id}': its emotion is missing, and the labels of '{label_set.name}' are not different "
            f"ones of {', '.join(EXPRESSIONS8.labels)}. Remove `label_set` to let this step choose one of these."
        )
    return found


def schema_of(case: Case) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    if "expression" in case.wanted:
        properties["expression"] = {"type": "string", "enum": list(case.classes)}
    if "affect" in case.wanted:
        properties |= {name: {"type": "number", "minimum": -1, "maximum": 1} for name in case.axes}
    if "units" in case.wanted:
        properties["units"] = {"type": "array", "items": {"type": "integer", "enum": list(case.units)}}
    return object_schema(**properties)


def read_answer(text: str, case: Case) -> Levels | str:
    """The levels of an answer, or a text that describes the problem; answers are never repaired.

    All missing levels are required: an expression of the classes, numbers in [-1, 1], and a list of different units of
    the case.
    """
    value = find_json(text)
    return read_levels(value, case) if isinstance(value, dict) else "not one JSON object"


def read_levels(value: Mapping[str, Any], case: Case) -> Levels | str:
    """The missing levels of a case in a JSON object, or a text that describes the problem."""
    expression: str | None = None
    point: dict[str, float] = {}
    units: dict[int, bool] = {}
    if "expression" in case.wanted:
        given = value.get("expression")
        expression = label_in(EXPRESSIONS8.name, given) if isinstance(given, str) else None
        if expression not in case.classes:
            return f"expression {given!r} is none of {', '.join(case.classes)}"
    if "affect" in case.wanted:
        for name in case.axes:
            number = value.get(name)
            # Booleans are integers to Python.
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
                return f"{name} {number!r} is no number"
            if not -1.0 <= number <= 1.0:
                return f"{name} {number!r} is not within -1 and 1"
            point[name] = float(number)
    if "units" in case.wanted:
        listed = value.get("units")
        if not isinstance(listed, list) or any(isinstance(item, bool) or not isinstance(item, int) for item in listed):
            return f"units {listed!r} is no list of whole numbers"
        if len(set(listed)) != len(listed) or set(listed) - set(case.units):
            return f"units {listed} are not different ones out of {list(case.units)}"
        units = {unit: unit in listed for unit in case.units}
    return Levels(expression, point.get("valence"), point.get("arousal"), units)
