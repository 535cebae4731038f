"""Calibration: whether scores are probabilities, and whether confidence separates right answers from wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import Field

from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result

NUM_CALIBRATION_BINS = 15
"""Equal-width confidence bins of the expected calibration error, as in Guo et al. 2017."""

OfResamples = Callable[[np.ndarray], np.ndarray]
"""From weights [R, N], how often each row counts in each of R resamples, to a value [R] for each."""

COVERAGES = tuple(percent / 100 for percent in range(5, 101, 5))
"""Shares of the answers at which the risk-coverage curve is recorded."""


class CalibrationBin(Result):
    """Predictions with a confidence in (low, high]; the means are None for an empty bin."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


class CoveragePoint(Result):
    """`risk` is the share of wrong answers among the most confident share `coverage` of the answers."""

    coverage: float
    risk: float


class Calibration(Result):
    """`auroc` is None if all answers are right or all are wrong; intervals are None if none were requested."""

    ece: float
    brier: float
    mean_confidence: float
    bins: list[CalibrationBin]
    auroc: float | None = None
    aurc: float | None = None
    brier_binary: float | None = None
    risk_coverage: list[CoveragePoint] = Field(default_factory=list)
    ece_interval: Interval | None = None
    brier_interval: Interval | None = None
    auroc_interval: Interval | None = None
    aurc_interval: Interval | None = None
    brier_binary_interval: Interval | None = None


def softmax(scores_NC: np.ndarray) -> np.ndarray:
    """float64 [N, C], log-probabilities of candidates normalised over the candidates, at temperature 1."""
    return np.exp(log_softmax(scores_NC))


def log_softmax(scores_NC: np.ndarray) -> np.ndarray:
    """float64 [N, C], the natural logarithm of `softmax`, finite even if the softmax underflows."""
    shifted = scores_NC - scores_NC.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def calibration(
    probabilities_NC: np.ndarray,
    true_N: np.ndarray,
    num_bins: int = NUM_CALIBRATION_BINS,
    resamples: Resamples | None = None,
) -> Calibration:
    """Expected calibration error, Brier score, and how well confidence predicts whether an answer is right.

    Confidence is the highest probability, and its label is the answer. If several labels share it, the answer is right
    with the probability of a random draw among them, so the order of the labels has no effect.

    ECE is the mean, weighted by count, of |accuracy - confidence| over equal-width bins of confidence (Guo et al. 2017,
    "On Calibration of Modern Neural Networks", equation 3). Brier is the mean squared distance to the one-hot truth,
    summed over the classes (Brier 1950, equation 2), so it is in [0, 2]. The binary one is that of the event that the
    answer is right: the mean squared difference between it and the confidence, in [0, 1]. With two labels it is half
    the other, which is the usual convention for two. For AUROC and AURC see `confidence_auroc` and
    `risk_coverage_area`.

    Args:
        probabilities_NC: float [N, C], each row adding up to 1.
        true_N: int [N].
    """
    num_samples = len(true_N)
    confidence_N = probabilities_NC.max(axis=1)
    is_best_NC = probabilities_NC == probabilities_NC.max(axis=1, keepdims=True)
    correct_N = is_best_NC[np.arange(num_samples), true_N] / is_best_NC.sum(axis=1)
    edges = np.linspace(0, 1, num_bins + 1)
    bin_N = np.clip(np.searchsorted(edges, confidence_N, side="left") - 1, 0, num_bins - 1)
    in_bin_NB = np.eye(num_bins)[bin_N]
    count_B = in_bin_NB.sum(axis=0)
    confidence_B, correct_B = confidence_N @ in_bin_NB, correct_N @ in_bin_NB
    bins = [
        CalibrationBin(
            low=float(edges[b]),
            high=float(edges[b + 1]),
            count=int(count),
            confidence=float(confidence_B[b] / count) if count else None,
            accuracy=float(correct_B[b] / count) if count else None,
        )
        for b, count in enumerate(count_B)
    ]
    squared_N = ((probabilities_NC - np.eye(probabilities_NC.shape[1])[true_N]) ** 2).sum(axis=1)
    # The mean over both outcomes if the answer is right with a probability.
    binary_N = confidence_N**2 + correct_N * (1 - 2 * confidence_N)
    ece = float(np.abs(correct_B - confidence_B).sum() / num_samples)
    brier = float(squared_N.mean())
    ones = np.ones((1, num_samples))
    # Sorted once for all resamples.
    auroc_of, aurc_of = (area(confidence_N, correct_N) for area in (confidence_auroc, risk_coverage_area))
    auroc, aurc = auroc_of(ones)[0], aurc_of(ones)[0]
    intervals: dict[str, Interval | None] = {}
    if resamples is not None:
        gaps_NB = in_bin_NB * (correct_N - confidence_N)[:, None]
        means = resamples.means(np.column_stack([gaps_NB, squared_N, binary_N]))
        # Resamples repeat rows and so fill the bins more unevenly, which makes their ECE larger. They are shifted to a
        # mean equal to the ECE: the interval shows its spread, but not its own bias in bins with few answers.
        ece_R = np.abs(means[:, :num_bins]).sum(axis=1)
        intervals = {
            "ece_interval": resamples.interval(np.clip(ece_R - ece_R.mean() + ece, 0, 1), ece),
            "brier_interval": resamples.interval(means[:, num_bins], brier),
            "brier_binary_interval": resamples.interval(means[:, num_bins + 1], float(binary_N.mean())),
        }
        for name, area, value in (("auroc", auroc_of, auroc), ("aurc", aurc_of, aurc)):
            intervals[f"{name}_interval"] = resamples.interval(resamples.per_resample(area), float(value))
    return Calibration(
        ece=ece,
        brier=brier,
        brier_binary=float(binary_N.mean()),
        mean_confidence=float(confidence_N.mean()),
        bins=bins,
        auroc=float(auroc) if np.isfinite(auroc) else None,
        aurc=float(aurc),
        risk_coverage=risk_coverage_curve(confidence_N, correct_N),
        **intervals,
    )


def confidence_auroc(confidence_N: np.ndarray, correct_N: np.ndarray) -> OfResamples:
    """Area under the ROC curve of confidence as a detector of right answers; ties count half (Hanley, McNeil 1982).

    Args:
        correct_N: float [N], 1 for right, 0 for wrong, or a share between.

    Returns:
        a function of weights [R, N], how often each row counts in each of R resamples. It returns float64 [R]; NaN if
        all counted answers are right or all are wrong.
    """
    order = np.argsort(confidence_N, kind="stable")
    starts, correct_N = _tie_starts(confidence_N[order]), correct_N[order]

    def area(weights_RN: np.ndarray) -> np.ndarray:
        weights_RN = weights_RN[:, order]
        right_RG = _sum_ties(weights_RN * correct_N, starts)
        wrong_RG = _sum_ties(weights_RN, starts) - right_RG
        wrong_below_RG = np.cumsum(wrong_RG, axis=1) - wrong_RG
        pairs_R = right_RG.sum(axis=1) * wrong_RG.sum(axis=1)
        won_R = (right_RG * (wrong_below_RG + wrong_RG / 2)).sum(axis=1)
        return np.divide(won_R, pairs_R, out=np.full(len(pairs_R), np.nan), where=pairs_R > 1e-9)

    return area


def risk_coverage_area(confidence_N: np.ndarray, correct_N: np.ndarray) -> OfResamples:
    """Area under the risk-coverage curve: the mean error rate of the n most confident answers over n = 1 ... N.

    Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural Networks", with the empirical area of Geifman,
    Uziel and El-Yaniv 2019; float64 [R], in [0, 1]. Lower is better; uninformative confidence gives the share of wrong
    answers. For equal confidences the area is the mean over all their orders. Arguments and result are as in
    `confidence_auroc`; weights are whole numbers.
    """
    order = np.argsort(-confidence_N, kind="stable")
    starts, wrong_N = _tie_starts(confidence_N[order]), 1 - correct_N[order]

    def area(weights_RN: np.ndarray) -> np.ndarray:
        weights_RN = weights_RN[:, order]
        count_RG = _sum_ties(weights_RN, starts)
        wrong_RG = _sum_ties(weights_RN * wrong_N, starts)
        count_up_to_RG = np.cumsum(count_RG, axis=1)
        count_before_RG = count_up_to_RG - count_RG
        wrong_before_RG = np.cumsum(wrong_RG, axis=1)
        wrong_before_RG -= wrong_RG
        total_R = count_RG.sum(axis=1)
        # The j-th of n ties has a risk of (E + j e / n) / (S + j), with E of S wrong before and e of n wrong among
        # them. Summed over j, with H the harmonic numbers: E (H(S + n) - H(S)) + e / n (n - S (H(S + n) - H(S))).
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(total_R.max()) + 1))])
        steps_RG = harmonic.take(count_up_to_RG.astype(np.intp))
        steps_RG[:, 1:] -= steps_RG[:, :-1].copy()
        # Where nothing is counted, nothing is wrong.
        share_wrong_RG = wrong_RG / np.maximum(count_RG, 1)
        # In place, because this runs for every resample of every model: E steps + e / n (n - S steps).
        wrong_before_RG *= steps_RG
        count_before_RG *= steps_RG
        share_wrong_RG *= np.subtract(count_RG, count_before_RG, out=count_before_RG)
        return np.add(wrong_before_RG, share_wrong_RG, out=wrong_before_RG).sum(axis=1) / total_R

    return area


def risk_coverage_curve(confidence_N: np.ndarray, correct_N: np.ndarray) -> list[CoveragePoint]:
    """The share of wrong answers among the most confident 5 %, 10 %, ... 100 %, rounded up to whole answers.

    If only some of several answers with equal confidence are covered, their mean counts.
    """
    order = np.argsort(-confidence_N, kind="stable")
    starts = _tie_starts(confidence_N[order])
    sizes = np.diff([*starts, len(order)])
    wrong_G = np.add.reduceat(1 - correct_N[order], starts)
    wrong_up_to = np.cumsum(np.repeat(wrong_G / sizes, sizes))
    covered = np.maximum(1, np.ceil(np.array(COVERAGES) * len(order) - 1e-9)).astype(np.int64)
    risks = np.clip(wrong_up_to[covered - 1] / covered, 0, 1).tolist()
    return [CoveragePoint(coverage=coverage, risk=risk) for coverage, risk in zip(COVERAGES, risks)]


def _tie_starts(sorted_N: np.ndarray) -> np.ndarray:
    """Where each run of equal values begins."""
    return np.concatenate([[0], np.flatnonzero(np.diff(sorted_N)) + 1])


def _sum_ties(values_RN: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return values_RN if len(starts) == values_RN.shape[1] else np.add.reduceat(values_RN, starts, axis=1)
