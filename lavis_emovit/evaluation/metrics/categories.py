"""Shares of answers by the categories of their questions, such as the class of a statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.predictions import PredictionRow


class CategoryMetrics(Result):
    """The answers with one value of a category, such as `class: scene context`.

    Attributes:
        values: name of a share -> the share over all answers of the category, and `intervals` its interval.
    """

    num_samples: int
    values: dict[str, float]
    intervals: dict[str, Interval | None]


def category_metrics(
    rows: Sequence[PredictionRow], values_N: Mapping[str, np.ndarray], resamples: Resamples, skip: Sequence[str] = ()
) -> dict[str, dict[str, CategoryMetrics]]:
    """Name of a category -> its value -> means of `values_N` (name -> float [N] in [0, 1]) over its answers.

    Answers without the category have no place in it, so its `num_samples` may be less than all together. `skip` names
    fields of `slices` that are no categories.
    """
    names = sorted({name for row in rows for name in row.slices or {}} - set(skip))
    members: dict[tuple[str, str], np.ndarray] = {}
    for name in names:
        of_row = np.array([(row.slices or {}).get(name, "") for row in rows], dtype=object)
        has_one = np.array([name in (row.slices or {}) for row in rows])
        for value in sorted(set(of_row[has_one])):
            members[name, value] = (has_one & (of_row == value)).astype(np.float64)
    if not members:
        return {}
    # One product for all: how many answers of a category a resample has, and the sums of their values.
    features = [
        column for inside_N in members.values() for column in (inside_N, *(v * inside_N for v in values_N.values()))
    ]
    sums_RF = resamples.sums(np.column_stack(features))
    width = 1 + len(values_N)
    found: dict[str, dict[str, CategoryMetrics]] = {}
    for place, ((name, value), inside_N) in enumerate(members.items()):
        counts_R, *totals = sums_RF[:, place * width : (place + 1) * width].T
        means = {key: float(v[inside_N > 0].mean()) for key, v in values_N.items()}
        intervals: dict[str, Any] = {}
        for key, total_R in zip(values_N, totals):
            means_R = np.divide(total_R, counts_R, out=np.full(len(counts_R), np.nan), where=counts_R > 0)
            intervals[key] = resamples.interval(means_R, means[key], (0.0, 1.0))
        found.setdefault(name, {})[value] = CategoryMetrics(
            num_samples=int(inside_N.sum()), values=means, intervals=intervals
        )
    return found
