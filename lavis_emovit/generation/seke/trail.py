"""Source of each level: marks in the record, and a row with all details in `seke.jsonl`."""

from __future__ import annotations

from typing import Any

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.generation.seke.completion import Outcome
from lavis_emovit.generation.seke.levels import MARK, without_generated
from lavis_emovit.generation.seke.settings import LEVELS
from lavis_emovit.records import EmotionRecord

_GENERATED_SET = "expressions8"


def with_levels(outcome: Outcome, annotator: str) -> EmotionRecord:
    """The record with the kept levels, and with their marks in `extra`.

    `seke_<level>_by` is `person`, the name of the annotator, or both joined by ` + ` (units that people did not code);
    `seke_given` lists every generated value, so the next run recognises them; `seke_<level>_uncertainty` comes from
    `Estimate` and is absent after a single answer. Intensities of generated units are 1 and 0.
    """
    record = without_generated(outcome.case.record)
    levels, estimate = outcome.levels, outcome.estimate
    changes: dict[str, Any] = {}
    given: list[str] = []
    marks: dict[str, str | int | float | bool] = {}
    if levels.expression is not None:
        changes["emotion"] = levels.expression
        if record.label_set is None:
            changes["label_set"] = marks["label_set"] = _GENERATED_SET
        else:
            changes["emotion"] = _label_in_set(levels.expression, record.label_set)
        given.append("expression")
    for axis in ("valence", "arousal"):
        if getattr(levels, axis) is not None and getattr(record, axis) is None:
            changes[axis] = round(getattr(levels, axis), 4)
            given.append(axis)
    if levels.units:
        new = {unit: float(active) for unit, active in sorted(levels.units.items())}
        changes["action_units"] = {**(record.action_units or {}), **new}
        given += [f"unit:{unit}" for unit in new]
    marks["given"] = " ".join(given)
    known = outcome.case.known
    by_people = {
        "expression": known.expression is not None,
        "affect": known.valence is not None or known.arousal is not None,
        "units": bool(known.units),
    }
    for level in LEVELS:
        parts = ["person"] if by_people[level] else []
        parts += [annotator] if level in outcome.case.wanted and levels.has(level) else []
        if parts:
            marks[f"{level}_by"] = " + ".join(parts)
    if estimate is not None:
        stated = {
            "expression": estimate.expression,
            "valence": estimate.valence,
            "arousal": estimate.arousal,
            "units": estimate.uncertainty("units"),
        }
        marks |= {f"{name}_uncertainty": round(value, 4) for name, value in stated.items() if value is not None}
        if estimate.units:
            marks["unit_uncertainties"] = " ".join(f"{unit}:{value:.4g}" for unit, value in estimate.units.items())
        marks["num_answers"] = estimate.num_answers
        marks["verdicts"] = " ".join(f"{level}:{verdict}" for level, verdict in outcome.verdicts.items())
    extra = {**record.extra, **{f"{MARK}{name}": value for name, value in marks.items()}}
    return record.model_copy(update={**changes, "extra": extra})


def story(outcome: Outcome, annotator: str) -> dict[str, Any]:
    """All details of a face, for JSON."""
    estimate = outcome.estimate
    row: dict[str, Any] = {
        "record": outcome.case.record.id,
        "annotator": annotator,
        "known": outcome.case.known.plain(),
        "wanted": list(outcome.case.wanted),
        "attempts": outcome.attempts,
    }
    if estimate is not None:
        row["aggregate"] = estimate.levels.plain()
        row["uncertainty"] = {
            level: round(value, 4)
            for level in outcome.case.wanted
            if (value := estimate.uncertainty(level)) is not None
        }
    row["findings"] = [{"rule": item.rule, "levels": list(item.levels), "text": item.text} for item in outcome.findings]
    row |= {"review": outcome.review, "verdicts": outcome.verdicts, "discarded": outcome.reasons}
    row |= {"levels": outcome.levels.plain(), "num_calls": outcome.num_calls}
    return row


def _label_in_set(expression: str, label_set: str) -> str:
    """The spelling of an expression in the record's label set (`happy` for happiness)."""
    try:
        return get_label_set(label_set).canonical(expression)
    except DataError:
        return expression
