"""Rankings of the strongest emotions, such as the three of seven in EEmo-Bench."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.comparison import compare_answers
from lavis_emovit.evaluation.metrics.registry import Headline, Metric, register_metric
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import count_statuses, resamples_of, row_name, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow


class RankingMetrics(Result):
    """Means over the `num_samples` answered rankings of k emotions; an unread answer names none.

    Attributes:
        overlap: share of the k true emotions that the answer names, in any order.
        top1: share of answers whose first emotion is the strongest one.
        places: share of the k places with the right emotion.
        exact: share of answers with all k emotions in the right order.
        pairs: share of the k (k - 1) / 2 pairs of true emotions that the answer names in the right order.
        chance_overlap, chance_places: of a random ranking, k / C and 1 / C with C labels.
    """

    num_samples: int
    num_invalid: int
    num_errors: int
    statuses: dict[str, int]
    overlap: float
    overlap_interval: Interval
    top1: float
    top1_interval: Interval
    places: float
    places_interval: Interval
    exact: float
    exact_interval: Interval
    pairs: float
    pairs_interval: Interval
    chance_overlap: float
    chance_places: float


def ranking_metrics(rows: Sequence[PredictionRow], num_labels: int, *, group_by: str | None = None) -> RankingMetrics:
    """Measure rows with a true ranking in `labels` and the answer's in `predictions`, of `num_labels` labels.

    Raises:
        DataError: no answered rows, or a row without a true ranking.
    """
    answered = without_errors(rows)
    for row in answered:
        if not row.labels:
            raise DataError(f"{row_name(row)} has no true ranking, so nothing can be measured on it")
    resamples = resamples_of(answered, group_by)
    values_NF = np.array([[measure(row) for measure in _MEASURES.values()] for row in answered], dtype=np.float64)
    means_RF = resamples.means(values_NF)
    found: dict[str, Any] = {}
    for f, name in enumerate(_MEASURES):
        found[name] = float(values_NF[:, f].mean())
        found[f"{name}_interval"] = resamples.share_interval(means_RF[:, f], found[name])
    return RankingMetrics(
        num_samples=len(answered),
        num_invalid=sum(not row.predictions for row in answered),
        num_errors=len(rows) - len(answered),
        statuses=count_statuses(answered),
        chance_overlap=float(np.mean([len(row.labels or ()) / num_labels for row in answered])),
        chance_places=1 / num_labels,
        **found,
    )


def _overlap(row: PredictionRow) -> float:
    true, named = row.labels or (), row.predictions or ()
    return len(set(true) & set(named)) / len(true)


def _places(row: PredictionRow) -> float:
    true = row.labels or ()
    return sum(one == other for one, other in zip(true, row.predictions or ())) / len(true)


def _pairs(row: PredictionRow) -> float:
    named = row.predictions or ()
    pairs = list(combinations(row.labels or (), 2))
    if not pairs:
        return _overlap(row)
    in_order = (one in named and other in named and named.index(one) < named.index(other) for one, other in pairs)
    return sum(in_order) / len(pairs)


_MEASURES: dict[str, Callable[[PredictionRow], float]] = {
    "overlap": _overlap,
    "top1": lambda row: float((row.predictions or ())[:1] == (row.labels or ())[:1]),
    "places": _places,
    "exact": lambda row: float(row.predictions == row.labels),
    "pairs": _pairs,
}

register_metric(
    Metric(
        "rankings",
        kinds=("ranking",),
        result=RankingMetrics,
        less_is_better=frozenset({"num_invalid", "num_errors"}),
        measure=lambda measured: ranking_metrics(measured.rows, len(measured.labels), group_by=measured.group_by),
        headline=Headline(
            "overlap",
            title="overlap",
            counts=lambda result: (result.num_samples, result.num_invalid),
            compare=lambda before, after: compare_answers(
                before.rows, after.rows, _overlap, "overlap", group_by=before.group_by
            ),
        ),
    )
)
