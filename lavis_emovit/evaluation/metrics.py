"""Classification metrics over prediction rows, on numpy and scikit-learn.

What is not a label stays in the denominator: an invalid answer is a wrong answer and gets a column of its own in the
confusion matrix. Every metric is computed from the rows alone, so it can be computed again from the file.

scikit-learn is imported where it is used: importing it sets environment variables, which an import of ours must not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.predictions import PredictionRow

INVALID = "invalid"
"""Name of the confusion matrix's last column: predictions that are not in the label set."""

NUM_CALIBRATION_BINS = 15
"""Equal-width confidence bins of the expected calibration error, as in Guo et al. 2017."""


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(_Result):
    """A confidence interval; `level` is 0.95 for 95 %."""

    low: float
    high: float
    level: float


class ClassMetrics(_Result):
    """One class. Precision is None where the class was never predicted, recall where it never occurs."""

    label: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


class CalibrationBin(_Result):
    """Predictions whose confidence lies in (low, high]; the means are None where there are none."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


class Calibration(_Result):
    """How far the softmaxed scores can be read as probabilities."""

    ece: float
    brier: float
    mean_confidence: float
    bins: list[CalibrationBin]


class ClassificationMetrics(_Result):
    """All that is measured on one list of predictions; shares and scores lie in [0, 1] (Brier in [0, 2])."""

    labels: list[str]
    num_samples: int
    num_invalid: int
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    macro_f1: float
    weighted_f1: float
    chance: float
    majority_baseline: float
    majority_label: str
    per_class: list[ClassMetrics]
    confusion: list[list[int]]
    top_k: dict[int, float] | None
    calibration: Calibration | None


def classification_metrics(
    rows: Sequence[PredictionRow],
    labels: Sequence[str],
    *,
    top_k: Sequence[int] = (1, 2, 3),
    num_resamples: int = 1000,
    seed: int = 0,
) -> ClassificationMetrics:
    """Everything at once.

    Args:
        rows: predictions, each with a true label.
        labels: the C labels of the set, in the order of the confusion matrix.
        top_k: the values of k below C for which the top-k accuracy is wanted; needs scores.
        num_resamples: bootstrap samples of the accuracy interval.
        seed: of the bootstrap.

    Returns:
        the metrics; `top_k` and `calibration` are None where no row has scores.

    Raises:
        DataError: no rows; a true label that is missing or not in the set; scores that only some rows have, that lack
            a label or are not finite. The row is named.
    """
    from sklearn.metrics import f1_score

    true_N = label_indices(rows, labels)
    predicted_N = prediction_indices(rows, labels)
    num_samples = len(rows)
    correct_N = (true_N == predicted_N).astype(np.float64)
    support_C = np.bincount(true_N, minlength=len(labels))
    majority = int(support_C.argmax())
    # As scikit-learn does by default, the mean F1 leaves out classes that neither occur nor are predicted.
    seen = [c for c in range(len(labels)) if support_C[c] or (predicted_N == c).any()]
    has_scores = any(row.scores is not None for row in rows)
    probabilities_NC = softmax(score_matrix(rows, labels)) if has_scores else None
    return ClassificationMetrics(
        labels=list(labels),
        num_samples=num_samples,
        num_invalid=int((predicted_N == len(labels)).sum()),
        accuracy=float(correct_N.mean()),
        accuracy_interval=bootstrap_interval(correct_N, num_resamples=num_resamples, seed=seed),
        balanced_accuracy=_balanced_accuracy(true_N, predicted_N),
        macro_f1=float(f1_score(true_N, predicted_N, labels=seen, average="macro", zero_division=0)),
        weighted_f1=float(f1_score(true_N, predicted_N, labels=seen, average="weighted", zero_division=0)),
        chance=1 / len(labels),
        majority_baseline=float(support_C[majority] / num_samples),
        majority_label=labels[majority],
        per_class=_per_class(true_N, predicted_N, labels),
        confusion=confusion_counts(rows, labels).tolist(),
        top_k=None
        if probabilities_NC is None
        else {k: top_k_accuracy(probabilities_NC, true_N, k) for k in top_k if k < len(labels)},
        calibration=None if probabilities_NC is None else calibration(probabilities_NC, true_N),
    )


def label_indices(rows: Sequence[PredictionRow], labels: Sequence[str]) -> np.ndarray:
    """int64 [N], the index of each row's true label. Raises DataError for no rows, no label, or an unknown one."""
    _check_labels(labels)
    if not rows:
        raise DataError("no predictions to measure: the list of rows is empty")
    index_of = {label: index for index, label in enumerate(labels)}
    indices = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        if row.label is None:
            raise DataError(f"{_name(row, i)} has no true label, so nothing can be measured on it")
        if row.label not in index_of:
            raise DataError(f"{_name(row, i)}: label '{row.label}' is not in the label set ({', '.join(labels)})")
        indices[i] = index_of[row.label]
    return indices


def prediction_indices(rows: Sequence[PredictionRow], labels: Sequence[str]) -> np.ndarray:
    """int64 [N], the index of each row's prediction, and C for what is not in the label set."""
    _check_labels(labels)
    index_of: dict[str | None, int] = {label: index for index, label in enumerate(labels)}
    return np.array([index_of.get(row.prediction, len(labels)) for row in rows], dtype=np.int64)


def confusion_counts(rows: Sequence[PredictionRow], labels: Sequence[str]) -> np.ndarray:
    """int64 [C, C + 1]: truth down, prediction across, the last column for invalid predictions."""
    from sklearn.metrics import confusion_matrix

    size = len(labels) + 1
    counts = confusion_matrix(label_indices(rows, labels), prediction_indices(rows, labels), labels=list(range(size)))
    return counts[:-1].astype(np.int64)


def score_matrix(rows: Sequence[PredictionRow], labels: Sequence[str]) -> np.ndarray:
    """float64 [N, C], the scores in the order of `labels`. Raises DataError for missing, extra or non-finite ones."""
    _check_labels(labels)
    scores_NC = np.empty((len(rows), len(labels)))
    for i, row in enumerate(rows):
        if row.scores is None:
            raise DataError(f"{_name(row, i)} has no scores; top-k and calibration need one for every label")
        if row.scores.keys() != set(labels):
            missing = [label for label in labels if label not in row.scores]
            extra = sorted(row.scores.keys() - set(labels))
            what = f"no score for '{missing[0]}'" if missing else f"a score for '{extra[0]}', which is not a label"
            raise DataError(f"{_name(row, i)} has {what}")
        scores_NC[i] = [row.scores[label] for label in labels]
    not_finite = ~np.isfinite(scores_NC)
    if not_finite.any():
        i, c = np.argwhere(not_finite)[0]
        raise DataError(f"{_name(rows[i], i)}: score of '{labels[c]}' is {scores_NC[i, c]}, not a finite number")
    return scores_NC


def softmax(scores_NC: np.ndarray) -> np.ndarray:
    """float64 [N, C], log-probabilities of candidates made to add up to 1 over the candidates."""
    shifted = scores_NC - scores_NC.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def top_k_accuracy(scores_NC: np.ndarray, true_N: np.ndarray, k: int) -> float:
    """Share of rows whose true label is among the k best scored.

    Ties at the border count with the probability that a fair draw would let the true label in, so the order of the
    labels cannot matter.
    """
    if not 1 <= k <= scores_NC.shape[1]:
        raise ValueError(f"k must lie between 1 and the number of labels {scores_NC.shape[1]}, got {k}")
    true_score_N1 = np.take_along_axis(scores_NC, true_N[:, None], axis=1)
    num_better_N = (scores_NC > true_score_N1).sum(axis=1)
    num_tied_N = (scores_NC == true_score_N1).sum(axis=1)
    return float(np.clip((k - num_better_N) / num_tied_N, 0, 1).mean())


def calibration(probabilities_NC: np.ndarray, true_N: np.ndarray, num_bins: int = NUM_CALIBRATION_BINS) -> Calibration:
    """Expected calibration error and Brier score.

    ECE is the mean, weighted by count, of |accuracy - confidence| over equal-width bins of the highest probability
    (Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3). Brier is the mean squared distance to the
    one-hot truth, summed over the classes (Brier 1950, equation 2), so it lies in [0, 2].

    Args:
        probabilities_NC: float [N, C], each row adding up to 1.
        true_N: int [N].
        num_bins: number of confidence bins.
    """
    num_samples, num_classes = probabilities_NC.shape
    confidence_N = probabilities_NC.max(axis=1)
    correct_N = probabilities_NC.argmax(axis=1) == true_N
    edges = np.linspace(0, 1, num_bins + 1)
    bin_N = np.clip(np.searchsorted(edges, confidence_N, side="left") - 1, 0, num_bins - 1)
    bins = []
    ece = 0.0
    for b in range(num_bins):
        inside = bin_N == b
        count = int(inside.sum())
        mean_confidence = float(confidence_N[inside].mean()) if count else None
        mean_accuracy = float(correct_N[inside].mean()) if count else None
        if mean_confidence is not None and mean_accuracy is not None:
            ece += count / num_samples * abs(mean_accuracy - mean_confidence)
        bins.append(
            CalibrationBin(
                low=float(edges[b]),
                high=float(edges[b + 1]),
                count=count,
                confidence=mean_confidence,
                accuracy=mean_accuracy,
            )
        )
    one_hot_NC = np.eye(num_classes)[true_N]
    return Calibration(
        ece=ece,
        brier=float(((probabilities_NC - one_hot_NC) ** 2).sum(axis=1).mean()),
        mean_confidence=float(confidence_N.mean()),
        bins=bins,
    )


def bootstrap_interval(
    values_N: np.ndarray,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Percentile bootstrap interval of the mean.

    Args:
        values_N: one value a row: 1 or 0 for right and wrong, or the difference of two models on the same row.
        num_resamples: how often N rows are drawn with replacement.
        level: of confidence.
        seed: the same seed gives the same interval.
        value_range: the least and the greatest value that a row can have.

    Returns:
        the interval. Where all values are the same, a bootstrap has no width and would claim certainty; there the exact
        binomial bound for an event that was never seen (Clopper and Pearson 1934) is put around the value.
    """
    values_N = np.asarray(values_N, dtype=np.float64)
    num_samples = len(values_N)
    if num_samples == 0:
        raise DataError("no values to take an interval of")
    tail = (1 - level) / 2
    if (values_N == values_N[0]).all():
        value, width = float(values_N[0]), 1 - tail ** (1 / num_samples)
        return Interval(low=max(value_range[0], value - width), high=min(value_range[1], value + width), level=level)
    generator = np.random.default_rng(seed)
    resamples_at_once = max(1, 4_000_000 // num_samples)  # bounds the memory at about 64 MB
    means: list[np.ndarray] = []
    for start in range(0, num_resamples, resamples_at_once):
        size = (min(resamples_at_once, num_resamples - start), num_samples)
        means.append(values_N[generator.integers(num_samples, size=size)].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(low=float(low), high=float(high), level=level)


def paired_difference(
    before: Sequence[PredictionRow], after: Sequence[PredictionRow], *, num_resamples: int = 1000, seed: int = 0
) -> tuple[float, Interval]:
    """Accuracy after minus accuracy before on the same instances, with its paired bootstrap interval.

    Raises:
        DataError: the two lists are not about the same instances with the same labels.
    """
    row_before = {row.instance_id: row for row in before}
    row_after = {row.instance_id: row for row in after}
    if row_before.keys() != row_after.keys():
        odd = min(row_before.keys() ^ row_after.keys())
        raise DataError(f"instance '{odd}' is in only one of the two lists; a paired comparison needs the same ones")
    if not row_before:
        raise DataError("no predictions to compare: the lists of rows are empty")
    differences = []
    for instance_id in sorted(row_before):
        first, second = row_before[instance_id], row_after[instance_id]
        if first.label != second.label or first.label is None:
            raise DataError(f"instance '{instance_id}': labels '{first.label}' and '{second.label}' cannot be compared")
        differences.append(float(second.prediction == second.label) - float(first.prediction == first.label))
    values_N = np.array(differences)
    interval = bootstrap_interval(values_N, num_resamples=num_resamples, seed=seed, value_range=(-1.0, 1.0))
    return float(values_N.mean()), interval


def _balanced_accuracy(true_N: np.ndarray, predicted_N: np.ndarray) -> float:
    # The mean recall over the classes that occur. scikit-learn's own function warns about predictions that never occur
    # as truth, which invalid answers are by design.
    present = np.unique(true_N)
    return float(np.mean([(predicted_N[true_N == c] == c).mean() for c in present]))


def _per_class(true_N: np.ndarray, predicted_N: np.ndarray, labels: Sequence[str]) -> list[ClassMetrics]:
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, support = precision_recall_fscore_support(
        true_N, predicted_N, labels=list(range(len(labels))), zero_division=0
    )
    result = []
    for c, label in enumerate(labels):
        predicted = int((predicted_N == c).sum())
        result.append(
            ClassMetrics(
                label=label,
                support=int(support[c]),
                predicted=predicted,
                precision=float(precision[c]) if predicted else None,
                recall=float(recall[c]) if support[c] else None,
                f1=float(f1[c]) if predicted or support[c] else None,
            )
        )
    return result


def _check_labels(labels: Sequence[str]) -> None:
    if not labels:
        raise DataError("the label set is empty")
    if len(set(labels)) != len(labels):
        raise DataError(f"the label set names a label twice: {', '.join(labels)}")


def _name(row: PredictionRow, index: int) -> str:
    return f"prediction {index + 1} (instance '{row.instance_id}')"
