"""Metrics of label predictions, with numpy and scikit-learn.

An invalid answer counts as wrong: it stays in the denominator and has its own column in the confusion matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.calibration import Calibration, calibration, softmax
from lavis_emovit.evaluation.metrics.comparison import compare_models
from lavis_emovit.evaluation.metrics.confusion import resampled_metrics
from lavis_emovit.evaluation.metrics.registry import Headline, Metric, register_metric
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES, Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import (
    count_statuses,
    label_indices,
    prediction_indices,
    resamples_of,
    score_matrix,
    without_errors,
)
from lavis_emovit.evaluation.predictions import PredictionRow


class ClassMetrics(Result):
    """One class. Precision is None if the class was never predicted, recall if it never occurs."""

    label: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


class ClassificationMetrics(Result):
    """Metrics of the `num_samples` rows that were answered, in [0, 1] except Brier, which is in [0, 2].

    `statuses` counts how generated answers were read; it is empty for scored answers. `accuracy_of_valid` ignores
    invalid answers, for comparison with publications that drop them. `confusion` has true labels down and predictions
    across, invalid ones in the last column.
    """

    labels: list[str]
    num_samples: int
    num_invalid: int
    num_errors: int = 0
    statuses: dict[str, int] = Field(default_factory=dict)
    accuracy: float
    accuracy_interval: Interval
    accuracy_of_valid: float | None = None
    balanced_accuracy: float
    balanced_accuracy_interval: Interval | None = None
    macro_f1: float
    macro_f1_interval: Interval | None = None
    macro_f1_present: float | None = None
    macro_f1_present_interval: Interval | None = None
    weighted_f1: float
    weighted_f1_interval: Interval | None = None
    chance: float
    majority_baseline: float
    majority_label: str
    per_class: list[ClassMetrics]
    confusion: list[list[int]]
    top_k: dict[int, float] | None
    top_k_intervals: dict[int, Interval] | None = None
    calibration: Calibration | None


def classification_metrics(
    rows: Sequence[PredictionRow],
    labels: Sequence[str],
    *,
    top_k: Sequence[int] = (1, 2, 3),
    num_resamples: int = NUM_RESAMPLES,
    group_by: str | None = None,
) -> ClassificationMetrics:
    """All metrics of label predictions; `top_k` and `calibration` are None if no row has scores.

    Args:
        rows: each with a true label; rows with an error are counted and skipped.
        labels: the C labels of the set, in the order of the confusion matrix.
        top_k: values of k for the top-k accuracy; values of C or more are ignored.
        num_resamples: of the bootstrap of the intervals.
        group_by: a key of the rows' `slices`, such as `person`, or `record_id`, to resample whole groups.

    Raises:
        DataError: no answered rows; a true label that is missing or not in the set; scores of one label only, or that
            only some rows have, that lack a label or are not finite; a row without its group. Messages name the row.
    """
    answered = without_errors(rows)
    true_N = label_indices(answered, labels)
    predicted_N = prediction_indices(answered, labels)
    num_samples, num_labels = len(answered), len(labels)
    is_valid_N, is_right_N = predicted_N < num_labels, true_N == predicted_N
    support_C = np.bincount(true_N, minlength=num_labels)
    majority = int(support_C.argmax())
    cells_CP = np.bincount(true_N * (num_labels + 1) + predicted_N, minlength=num_labels * (num_labels + 1))
    cells_CP = cells_CP.reshape(num_labels, num_labels + 1)
    per_class = _per_class(cells_CP, labels)
    # The mean F1 ignores classes that neither occur nor are predicted, as scikit-learn does by default. A class that is
    # predicted but never occurs has an F1 of 0, which `macro_f1_present` leaves out.
    f1_S = np.array([one.f1 for one in per_class if one.f1 is not None])
    support_S = np.array([one.support for one in per_class if one.f1 is not None])
    resamples = resamples_of(answered, group_by, num_resamples)
    resampled = resampled_metrics(true_N, predicted_N, num_labels, resamples)
    values: dict[str, Any] = {
        "accuracy": float(is_right_N.mean()),
        # The mean recall over the classes that occur. scikit-learn's function would warn about invalid answers.
        "balanced_accuracy": float(np.mean([is_right_N[true_N == c].mean() for c in np.unique(true_N)])),
        "macro_f1": float(np.average(f1_S)),
        "macro_f1_present": float(np.average(f1_S[support_S > 0])),
        "weighted_f1": float(np.average(f1_S, weights=support_S)),
    }
    intervals: dict[str, Any] = {
        f"{name}_interval": resamples.share_interval(resampled[name], value) for name, value in values.items()
    }
    return ClassificationMetrics(
        labels=list(labels),
        num_samples=num_samples,
        num_invalid=int((~is_valid_N).sum()),
        num_errors=len(rows) - num_samples,
        statuses=count_statuses(answered),
        **values,
        **intervals,
        accuracy_of_valid=float(is_right_N[is_valid_N].mean()) if is_valid_N.any() else None,
        chance=1 / num_labels,
        majority_baseline=float(support_C[majority] / num_samples),
        majority_label=labels[majority],
        per_class=per_class,
        confusion=cells_CP.tolist(),
        **_by_scores(answered, labels, true_N, top_k, resamples),
    )


def top_k_shares(scores_NC: np.ndarray, true_N: np.ndarray, k: int) -> np.ndarray:
    """float64 [N], 1 if the true label is among the k best scored, else 0.

    A tie for the last place counts with the probability that a random draw selects the true label, so the order of the
    labels has no effect.
    """
    if not 1 <= k <= scores_NC.shape[1]:
        raise ValueError(f"k must lie between 1 and the number of labels {scores_NC.shape[1]}, got {k}")
    true_score_N1 = np.take_along_axis(scores_NC, true_N[:, None], axis=1)
    num_better_N = (scores_NC > true_score_N1).sum(axis=1)
    num_tied_N = (scores_NC == true_score_N1).sum(axis=1)
    return np.clip((k - num_better_N) / num_tied_N, 0, 1)


def _by_scores(
    rows: Sequence[PredictionRow],
    labels: Sequence[str],
    true_N: np.ndarray,
    top_k: Sequence[int],
    resamples: Resamples,
) -> dict[str, Any]:
    if all(row.scores is None for row in rows):
        return {"top_k": None, "calibration": None}
    if len(labels) == 1:
        raise DataError(
            f"'{labels[0]}' is the only label with scores, which says nothing; give scores of two or more labels"
        )
    probabilities_NC = softmax(score_matrix(rows, labels))
    ks = [k for k in top_k if k < len(labels)]
    shares_NK = np.array([top_k_shares(probabilities_NC, true_N, k) for k in ks]).reshape(len(ks), -1).T
    values, means_RK = shares_NK.mean(axis=0), resamples.means(shares_NK)
    return {
        "top_k": {k: float(values[i]) for i, k in enumerate(ks)},
        "top_k_intervals": {k: resamples.share_interval(means_RK[:, i], float(values[i])) for i, k in enumerate(ks)},
        "calibration": calibration(probabilities_NC, true_N, resamples=resamples),
    }


def _per_class(cells_CP: np.ndarray, labels: Sequence[str]) -> list[ClassMetrics]:
    found = []
    for c, label in enumerate(labels):
        right, support, predicted = (int(n) for n in (cells_CP[c, c], cells_CP[c].sum(), cells_CP[:, c].sum()))
        found.append(
            ClassMetrics(
                label=label,
                support=support,
                predicted=predicted,
                precision=right / predicted if predicted else None,
                recall=right / support if support else None,
                f1=2 * right / (support + predicted) if predicted or support else None,
            )
        )
    return found


register_metric(
    Metric(
        "classification",
        kinds=("emotion", "explanation"),
        result=ClassificationMetrics,
        less_is_better=frozenset({"ece", "brier", "brier_binary", "aurc", "num_invalid", "num_errors"}),
        measure=lambda measured: classification_metrics(measured.rows, measured.labels, group_by=measured.group_by),
        headline=Headline(
            "accuracy",
            title="accuracy",
            counts=lambda result: (result.num_samples, result.num_invalid),
            compare=lambda before, after: compare_models(
                before.rows, after.rows, before.labels, group_by=before.group_by
            ),
        ),
    )
)
