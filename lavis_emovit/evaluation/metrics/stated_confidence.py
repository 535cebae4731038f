"""Stated confidence: whether the probabilities that answers state are true, and whether they tell right from wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lavis_emovit.evaluation.metrics.calibration import (
    CalibrationBin,
    CoveragePoint,
    confidence_auroc,
    risk_coverage_area,
    risk_coverage_curve,
)
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import is_right, question_groups, resamples_of, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow

NUM_CONFIDENCE_BINS = 10
"""Bins of equal width, closed at their lower ends and the last one at both, as published evaluations of stated
confidence have them; so 0.9 and 1.0 are in the last bin."""

# From so many different answers on it is faster not to count them.
_MOST_ALIKE = 512
# Where answers without a confidence are in an order by confidence.
_LAST, _FIRST = -1.0, 2.0


class StatedConfidence(Result):
    """Metrics of the `num_samples` answered rows; an answer without a confidence counts as the worst possible one.

    Attributes:
        num_stated, stated_share: answers with a confidence.
        ece: expected calibration error in `NUM_CONFIDENCE_BINS` bins; an answer without a confidence adds a gap of 1.
        brier: mean of (confidence - right)^2, 1 for an answer without a confidence.
        auroc: probability that a right answer is more confident than a wrong one, ties half; a right answer without a
            confidence loses all of its comparisons, a wrong one wins them. None if all answers are right or all wrong.
        aurc, risk_coverage: wrong answers among the most confident ones; those without a confidence come last.
        ece_of_stated, brier_of_stated, auroc_of_stated: over the answers with a confidence alone, as most publications
            report them; None without any.
        mean_confidence: of the answers with one; `accuracy`: of all.
    """

    num_samples: int
    num_errors: int
    num_stated: int
    stated_share: float
    accuracy: float
    mean_confidence: float | None
    ece: float
    ece_interval: Interval | None
    brier: float
    brier_interval: Interval | None
    auroc: float | None
    auroc_interval: Interval | None
    aurc: float
    aurc_interval: Interval | None
    ece_of_stated: float | None
    brier_of_stated: float | None
    auroc_of_stated: float | None
    bins: list[CalibrationBin]
    risk_coverage: list[CoveragePoint]


def stated_confidence(rows: Sequence[PredictionRow], *, group_by: str | None = None) -> StatedConfidence:
    """Measure the `confidence` of rows with a true label; an unread answer is wrong.

    Raises:
        DataError: no answered rows.
    """
    answered = without_errors(rows)
    right_N = np.array([is_right(row) for row in answered], dtype=np.float64)
    is_stated_N = np.array([row.confidence is not None for row in answered])
    confidence_N = np.array([row.confidence if row.confidence is not None else 0.0 for row in answered])
    num, num_stated = len(answered), int(is_stated_N.sum())
    bin_N = np.minimum((confidence_N * NUM_CONFIDENCE_BINS + 1e-9).astype(int), NUM_CONFIDENCE_BINS - 1)
    in_bin_NB = np.eye(NUM_CONFIDENCE_BINS)[bin_N] * is_stated_N[:, None]
    gaps_NB = in_bin_NB * (right_N - confidence_N)[:, None]
    missing_N = (~is_stated_N).astype(np.float64)
    squared_N = np.where(is_stated_N, (confidence_N - right_N) ** 2, 1.0)
    ece = float((np.abs(gaps_NB.sum(axis=0)).sum() + missing_N.sum()) / num)
    brier = float(squared_N.mean())
    # The worst order for the comparison of right and wrong ones, and the last places for coverage.
    compared_N = np.where(is_stated_N, confidence_N, np.where(right_N > 0, _LAST, _FIRST))
    covered_N = np.where(is_stated_N, confidence_N, _LAST)
    ones = np.ones((1, num))
    auroc = confidence_auroc(compared_N, right_N)(ones)[0]
    aurc = float(risk_coverage_area(covered_N, right_N)(ones)[0])
    resamples = resamples_of(answered, question_groups(answered, group_by))
    means_RF = resamples.means(np.column_stack([gaps_NB, missing_N, squared_N]))
    ece_R = np.abs(means_RF[:, :NUM_CONFIDENCE_BINS]).sum(axis=1) + means_RF[:, NUM_CONFIDENCE_BINS]
    auroc_R, aurc_R = _resampled_areas(compared_N, covered_N, right_N, resamples)
    alone = _of_stated(confidence_N[is_stated_N], right_N[is_stated_N], gaps_NB, squared_N[is_stated_N])
    return StatedConfidence(
        num_samples=num,
        num_errors=len(rows) - num,
        num_stated=num_stated,
        stated_share=num_stated / num,
        accuracy=float(right_N.mean()),
        mean_confidence=float(confidence_N[is_stated_N].mean()) if num_stated else None,
        ece=ece,
        # Shifted as the interval of scored answers: resamples fill the bins less evenly.
        ece_interval=resamples.interval(np.clip(ece_R - ece_R.mean() + ece, 0.0, 1.0), ece),
        brier=brier,
        brier_interval=resamples.interval(means_RF[:, -1], brier),
        auroc=float(auroc) if np.isfinite(auroc) else None,
        auroc_interval=resamples.interval(auroc_R, float(auroc)),
        aurc=aurc,
        aurc_interval=resamples.interval(aurc_R, aurc),
        ece_of_stated=alone[0],
        brier_of_stated=alone[1],
        auroc_of_stated=alone[2],
        bins=_bins(in_bin_NB, confidence_N, right_N),
        risk_coverage=risk_coverage_curve(covered_N, right_N),
    )


def _resampled_areas(
    compared_N: np.ndarray, covered_N: np.ndarray, right_N: np.ndarray, resamples: Resamples
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and AURC of each resample; equal answers are counted first, since stated confidences have few values."""
    alike, place_N = np.unique(np.column_stack([compared_N, covered_N, right_N]), axis=0, return_inverse=True)
    if len(alike) > _MOST_ALIKE:
        areas = (confidence_auroc(compared_N, right_N), risk_coverage_area(covered_N, right_N))
        auroc_R, aurc_R = map(resamples.per_resample, areas)
        return auroc_R, aurc_R
    counts_RK = resamples.sums(np.eye(len(alike))[place_N.ravel()])
    compared_K, covered_K, right_K = alike.T
    return confidence_auroc(compared_K, right_K)(counts_RK), risk_coverage_area(covered_K, right_K)(counts_RK)


def _of_stated(
    confidence_M: np.ndarray, right_M: np.ndarray, gaps_NB: np.ndarray, squared_M: np.ndarray
) -> tuple[float | None, float | None, float | None]:
    """ECE, Brier score and AUROC of the answers with a confidence."""
    count = len(confidence_M)
    if not count:
        return None, None, None
    auroc = confidence_auroc(confidence_M, right_M)(np.ones((1, count)))[0]
    ece = float(np.abs(gaps_NB.sum(axis=0)).sum() / count)
    return ece, float(squared_M.mean()), float(auroc) if np.isfinite(auroc) else None


def _bins(in_bin_NB: np.ndarray, confidence_N: np.ndarray, right_N: np.ndarray) -> list[CalibrationBin]:
    counts_B = in_bin_NB.sum(axis=0)
    confidence_B, right_B = confidence_N @ in_bin_NB, right_N @ in_bin_NB
    return [
        CalibrationBin(
            low=b / NUM_CONFIDENCE_BINS,
            high=(b + 1) / NUM_CONFIDENCE_BINS,
            count=int(count),
            confidence=float(confidence_B[b] / count) if count else None,
            accuracy=float(right_B[b] / count) if count else None,
        )
        for b, count in enumerate(counts_B)
    ]


def _measure(measured: MeasuredRows) -> StatedConfidence | None:
    """None for benchmarks that ask for no confidence, and for scored answers, which state none."""
    asks = measured.settings.asks_confidence and any(row.answer is not None for row in measured.rows)
    return stated_confidence(measured.rows, group_by=measured.group_by) if asks else None


register_metric(
    Metric(
        "stated_confidence",
        kinds=("emotion", "explanation", "choice", "statement"),
        result=StatedConfidence,
        less_is_better=frozenset({"ece", "brier", "aurc", "ece_of_stated", "brier_of_stated", "num_errors"}),
        measure=_measure,
    )
)
