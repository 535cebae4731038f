"""Two askings about one benchmark, compared record by record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.metrics import compare_action_units, compare_dimensional, compare_models
from lavis_emovit.evaluation.predictions import PredictionRow

GROUP = "group"
"""The slice that names a row's person or session; intervals draw whole groups where all rows have one."""


def plain_rows(settings: BenchmarkSettings, rows: Sequence[PredictionRow]) -> list[PredictionRow]:
    """The rows of the first variant of the question, and those of baselines, which read none."""
    plain = settings.variants[0].name
    return [row for row in rows if row.variant in (None, plain)]


def group_key(rows: Sequence[PredictionRow]) -> str | None:
    """What whole groups are drawn by, or None where a row has no group."""
    return GROUP if all((row.slices or {}).get(GROUP) is not None for row in rows) else None


def holds_intensities(rows: Sequence[PredictionRow]) -> bool:
    """Whether truths of action units are intensities, as in rows of baselines, and not decisions (1 and 0)."""
    return any(value not in (0.0, 1.0) for row in rows for value in (row.true_values or {}).values())


def unit_threshold(rows: Sequence[PredictionRow], settings: BenchmarkSettings) -> float:
    """Value from which a unit is active in these rows."""
    return settings.active_from if holds_intensities(rows) else 0.5


def compare_askings(
    settings: BenchmarkSettings,
    label_set: LabelSet | None,
    before: Sequence[PredictionRow],
    after: Sequence[PredictionRow],
) -> dict[str, Any]:
    """The difference of two askings in the headline metric, on the plain variant.

    Returns:
        the values of `PairedComparison` (kinds with labels) or `NumbersComparison`, or `problem`: why there is none.
    """
    firsts, seconds = ([_by_record(row) for row in plain_rows(settings, rows)] for rows in (before, after))
    group_by = group_key([*firsts, *seconds])
    try:
        if label_set is not None:
            return compare_models(firsts, seconds, label_set.labels, group_by=group_by).model_dump(mode="json")
        if settings.kind == "valence_arousal":
            return compare_dimensional(firsts, seconds, group_by=group_by).model_dump(mode="json")
        if settings.kind == "action_units":
            thresholds = (unit_threshold(firsts, settings), unit_threshold(seconds, settings))
            units = compare_action_units(firsts, seconds, thresholds=thresholds, group_by=group_by)
            return units.model_dump(mode="json")
    except DataError as error:
        return {"problem": str(error)}
    return {"problem": f"answers of kind '{settings.kind}' have no headline figure to compare"}


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for there being several, so that they hold together (Holm 1979).

    The k-th smallest of m is multiplied by m - k + 1; none is made smaller than one before it, none larger than 1.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for place, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - place) * p_values[i]))
        adjusted[i] = least
    return adjusted


def _by_record(row: PredictionRow) -> PredictionRow:
    """Named by its record, since a baseline's rows are and those of a variant are not."""
    return row.model_copy(update={"instance_id": row.record_id})
