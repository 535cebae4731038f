"""Metrics broken down by a field of the rows: by person, by scene, by how the answer was read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.predictions import PredictionRow

SMALL_SLICE = 30
"""Slices with fewer answered rows are marked: their figures say little."""

_OWN_FIELDS = ("label", "status", "variant")

MetricsT = TypeVar("MetricsT")


@dataclass(frozen=True)
class Slice(Generic[MetricsT]):
    """The rows with one value of a field.

    Attributes:
        value: of the field; None for the rows that have none.
        num_samples: answered rows; `num_errors` are the others.
        is_small: whether there are fewer than was asked for.
        metrics: of these rows, or None where all are errors.
    """

    value: str | None
    num_samples: int
    num_errors: int
    is_small: bool
    metrics: MetricsT | None


def slice_rows(rows: Sequence[PredictionRow], field: str) -> dict[str | None, list[PredictionRow]]:
    """The rows by the value of a field, values in alphabetical order, those without one last under None.

    Args:
        field: a key of the rows' `slices`, or `label`, `status` or `variant`.

    Raises:
        DataError: no row has the field; those that there are are named.
    """
    by_value: dict[str | None, list[PredictionRow]] = {}
    for row in rows:
        value = getattr(row, field) if field in _OWN_FIELDS else (row.slices or {}).get(field)
        by_value.setdefault(value, []).append(row)
    if set(by_value) <= {None}:
        there = sorted({name for row in rows for name in row.slices or {}})
        raise DataError(f"no row has a field '{field}' to slice by (there are: {', '.join([*there, *_OWN_FIELDS])})")
    return {value: by_value[value] for value in sorted(by_value, key=lambda value: (value is None, value or ""))}


def slice_metrics(
    rows: Sequence[PredictionRow],
    field: str,
    measure: Callable[[list[PredictionRow]], MetricsT],
    *,
    small: int = SMALL_SLICE,
) -> list[Slice[MetricsT]]:
    """Metrics of each slice.

    Args:
        rows: predictions.
        field: as in `slice_rows`.
        measure: any of the metrics here, with its other arguments filled in, such as
            `lambda rows: classification_metrics(rows, labels)`.
        small: slices with fewer answered rows are marked.
    """
    slices = []
    for value, members in slice_rows(rows, field).items():
        num_samples = sum(row.error is None for row in members)
        slices.append(
            Slice(
                value=value,
                num_samples=num_samples,
                num_errors=len(members) - num_samples,
                is_small=num_samples < small,
                metrics=measure(members) if num_samples else None,
            )
        )
    return slices
