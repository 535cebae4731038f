"""Metrics by a field of the rows, such as the person, the scene or the status of the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.resampling import bootstrap_interval
from lavis_emovit.evaluation.metrics.rows import label_indices, prediction_indices, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow

SMALL_SLICE = 30
"""Slices with fewer answered rows are marked, because their metrics are uncertain."""

_ROW_FIELDS = ("label", "status", "variant")


@dataclass(frozen=True)
class Slice:
    """The rows with one value of a field."""

    value: str | None  # None: the rows without one
    num_samples: int  # answered rows; `num_errors` are the others
    num_errors: int
    is_small: bool
    metrics: Any  # None if all rows are errors


def slice_rows(rows: Sequence[PredictionRow], field: str) -> dict[str | None, list[PredictionRow]]:
    """The rows by the value of a field, in alphabetical order; rows without a value come last, under None.

    The field is a key of the rows' `slices`, or `label`, `status` or `variant`. DataError if no row has it.
    """
    by_value: dict[str | None, list[PredictionRow]] = {}
    for row in rows:
        value = getattr(row, field) if field in _ROW_FIELDS else (row.slices or {}).get(field)
        by_value.setdefault(value, []).append(row)
    if set(by_value) <= {None}:
        available = [*sorted({name for row in rows for name in row.slices or {}}), *_ROW_FIELDS]
        raise DataError(f"no row has a field '{field}' to slice by (available: {', '.join(available)})")
    return {value: by_value[value] for value in sorted(by_value, key=lambda value: (value is None, value or ""))}


def slice_metrics(
    rows: Sequence[PredictionRow],
    field: str,
    measure: Callable[[list[PredictionRow]], Any],
    *,
    small: int = SMALL_SLICE,
) -> list[Slice]:
    """Metrics of each slice of `slice_rows`, such as `lambda rows: classification_metrics(rows, labels)`."""
    slices = []
    for value, members in slice_rows(rows, field).items():
        count = sum(row.error is None for row in members)
        metrics = measure(members) if count else None
        slices.append(Slice(value, count, len(members) - count, count < small, metrics))
    return slices


def _measure(measured: MeasuredRows) -> dict[str, Any] | None:
    def accuracy(rows: list[PredictionRow]) -> dict[str, Any]:
        answered = without_errors(rows)
        right_N = label_indices(answered, measured.labels) == prediction_indices(answered, measured.labels)
        interval = bootstrap_interval(right_N.astype(np.float64))
        return {"accuracy": float(right_N.mean()), "interval": interval.model_dump()}

    names = measured.settings.slices
    return {name: [vars(one) for one in slice_metrics(measured.rows, name, accuracy)] for name in names} or None


register_metric(Metric("slices", kinds=("emotion", "explanation"), measure=_measure))
