"""Parts of the page about a benchmark: a heading with what stands below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lavis_emovit.evaluation.benchmark_rows import result_name
from lavis_emovit.evaluation.metrics import ClassificationMetrics, Interval
from lavis_emovit.evaluation.report.grid import Grid, GridCell, percent

Result = Mapping[str, Any]
"""One of the `results` of a benchmark in metrics.json."""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix with the name of whose it is."""

    key: str
    name: str
    metrics: ClassificationMetrics


@dataclass(frozen=True)
class Part:
    """A heading with what stands below it."""

    key: str
    heading: str
    note: str = ""
    grids: Sequence[Grid] = ()
    figures: Sequence[tuple[str, Markup]] = ()
    matrices: Sequence[Matrix] = ()
    remarks: Sequence[str] = ()


def name_of(result: Result) -> str:
    """The model of a result, with the method in which it was asked."""
    return result_name(result["model"], result["method"])


def invalid_cell(num_invalid: int, num_samples: int) -> GridCell:
    """The share of answers that could not be read."""
    return GridCell(percent(num_invalid / num_samples), f"{num_invalid} of {num_samples}")


def plain(interval: Interval | None) -> dict[str, Any] | None:
    """An interval as plain values."""
    return None if interval is None else interval.model_dump()
