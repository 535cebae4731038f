"""Several labels of one image: how well the scores of each label rank the images that have it.

Average precision (AP) of a label is the sum over thresholds of (R_n - R_(n-1)) P_n, with precision P_n and recall R_n
over the images whose score is at least the n-th threshold, without interpolation. EMOTIC (Kosti et al., CVPR 2017)
reports its mean over the 26 categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.comparison import NumbersComparison, answered_by_both, compare_numbers
from lavis_emovit.evaluation.metrics.registry import Headline, MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES, Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import resamples_of, row_name, score_matrix, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow


class LabelRanking(Result):
    """One label: `support` images have it. `ap` is None if none has; chance is the share of images that have it."""

    support: int
    chance: float
    ap: float | None
    ap_interval: Interval | None


class LabelRankingMetrics(Result):
    """Means over the `num_ap` labels that an image has; a label without one has no AP and does not count as 0."""

    num_samples: int
    num_errors: int
    labels: dict[str, LabelRanking]
    num_ap: int
    mean_ap: float
    mean_ap_interval: Interval | None
    chance: float


def label_ranking_metrics(
    rows: Sequence[PredictionRow],
    labels: Sequence[str],
    *,
    num_resamples: int = NUM_RESAMPLES,
    group_by: str | None = None,
) -> LabelRankingMetrics:
    """AP of each label and their mean, over the answered rows.

    Scores are compared between images as they are. Rows of language models have the logarithm of the softmax over the
    labels, so a label's score says how it compares with the other labels on the same image.

    Args:
        rows: with `labels`, the true ones, and `scores`.
        num_resamples, group_by: as in `classification_metrics`.

    Raises:
        DataError: no answered rows, a row without true labels, scores or its group, an unknown label, or no label that
            an image has.
    """
    answered = without_errors(rows)
    true_NC, scores_NC = _truth(answered, labels), score_matrix(answered, labels)
    resamples = resamples_of(answered, group_by, num_resamples)
    ap_RC = _resampled(true_NC, scores_NC, resamples)
    ap_C = average_precisions(true_NC, scores_NC, np.ones((1, len(answered))))[0]
    support_C = true_NC.sum(axis=0).astype(int)
    found = {
        label: LabelRanking(
            support=int(support_C[c]),
            chance=float(support_C[c] / len(answered)),
            ap=float(ap_C[c]) if support_C[c] else None,
            ap_interval=resamples.interval(ap_RC[:, c], float(ap_C[c])) if support_C[c] else None,
        )
        for c, label in enumerate(labels)
    }
    mean_ap = _mean(ap_C[None])[0]
    return LabelRankingMetrics(
        num_samples=len(answered),
        num_errors=len(rows) - len(answered),
        labels=found,
        num_ap=int((support_C > 0).sum()),
        mean_ap=float(mean_ap),
        mean_ap_interval=resamples.interval(_mean(ap_RC), float(mean_ap)),
        chance=float(np.mean([one.chance for one in found.values() if one.ap is not None])),
    )


def average_precisions(true_NC: np.ndarray, scores_NC: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """float64 [R, C], the AP of each label with the rows counted as often as `weights_RN` says; NaN without an image.

    Images with the same score are above or below a threshold together, so their order has no effect.
    """
    columns = []
    for true_N, scores_N in zip(true_NC.T, scores_NC.T):
        order = np.argsort(-scores_N, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(scores_N[order]) != 0, True))
        weights = weights_RN[:, order]
        hits = np.cumsum(weights * true_N[order], axis=1)[:, ends]
        counted = np.cumsum(weights, axis=1)[:, ends]
        # A threshold that no counted image reaches adds no recall.
        precision = np.divide(hits, counted, out=np.zeros_like(hits), where=counted > 0)
        total = hits[:, -1]
        gained = np.diff(hits, axis=1, prepend=0.0)
        area = (gained * precision).sum(axis=1)
        columns.append(np.divide(area, total, out=np.full(len(total), np.nan), where=total > 0))
    return np.column_stack(columns)


def compare_label_rankings(
    before: Sequence[PredictionRow],
    after: Sequence[PredictionRow],
    labels: Sequence[str],
    *,
    num_resamples: int = NUM_RESAMPLES,
    group_by: str | None = None,
) -> NumbersComparison:
    """Compare the mean AP of two models on the same images, as `compare_models`."""
    firsts, seconds, num_left_out = answered_by_both(before, after)
    resamples = resamples_of(firsts, group_by, num_resamples)
    true_NC = _truth(firsts, labels)
    values, resampled = [], []
    for rows in (firsts, seconds):
        scores_NC = score_matrix(rows, labels)
        values.append(float(_mean(average_precisions(true_NC, scores_NC, np.ones((1, len(rows)))))[0]))
        resampled.append(_mean(_resampled(true_NC, scores_NC, resamples)))
    return compare_numbers("mean AP", values, resampled, resamples, num_left_out)


def _resampled(true_NC: np.ndarray, scores_NC: np.ndarray, resamples: Resamples) -> np.ndarray:
    return resamples.per_resample(partial(average_precisions, true_NC, scores_NC))


def _mean(ap_RC: np.ndarray) -> np.ndarray:
    """The mean over the labels with an AP, NaN without any."""
    return np.ma.masked_invalid(ap_RC).mean(axis=1).filled(np.nan)


def _truth(rows: Sequence[PredictionRow], labels: Sequence[str]) -> np.ndarray:
    """float64 [N, C], 1 where a row has a label."""
    true_NC = np.zeros((len(rows), len(labels)))
    place = {label: c for c, label in enumerate(labels)}
    for n, row in enumerate(rows):
        if row.labels is None:
            raise DataError(f"{row_name(row)} has no true labels, so nothing can be measured on it")
        for label in row.labels:
            if label not in place:
                raise DataError(f"{row_name(row)}: label '{label}' is not in the label set ({', '.join(labels)})")
            true_NC[n, place[label]] = 1.0
    if not true_NC.any():
        raise DataError("no row has any label of the set, so no average precision is defined")
    return true_NC


def _compare(before: MeasuredRows, after: MeasuredRows) -> NumbersComparison:
    return compare_label_rankings(before.rows, after.rows, before.labels, group_by=before.group_by)


register_metric(
    Metric(
        "label_ranking",
        kinds=("labels",),
        result=LabelRankingMetrics,
        less_is_better=frozenset({"num_errors"}),
        measure=lambda measured: label_ranking_metrics(measured.rows, measured.labels, group_by=measured.group_by),
        headline=Headline("mean_ap", title="mean AP", counts=lambda result: (result.num_samples, 0), compare=_compare),
    )
)
