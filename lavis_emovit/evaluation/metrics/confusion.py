"""The metrics that follow from a confusion matrix, on all rows and on many resamples at once."""

from __future__ import annotations

import numpy as np

from lavis_emovit.evaluation.metrics.resampling import Resamples


def confusion_metrics(true_N: np.ndarray, predicted_N: np.ndarray, num_labels: int) -> dict[str, float]:
    """Accuracy, balanced accuracy, both macro F1 and weighted F1; predictions of C or more are invalid."""
    found = _metrics(_one_hot(true_N, predicted_N, num_labels).sum(axis=0)[None])
    return {name: float(values_R[0]) for name, values_R in found.items()}


def resampled_metrics(
    true_N: np.ndarray,
    predicted_N: np.ndarray,
    num_labels: int,
    resamples: Resamples,
    inside_N: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The same on resamples: name -> float64 [R]. With `inside_N`, bool, of these rows; NaN where none is resampled."""
    features_NF = _one_hot(true_N, predicted_N, num_labels)
    with np.errstate(invalid="ignore"):
        return _metrics(resamples.sums(features_NF if inside_N is None else features_NF * inside_N[:, None]))


def _one_hot(true_N: np.ndarray, predicted_N: np.ndarray, num_labels: int) -> np.ndarray:
    """float64 [N, 3 C]: for each label whether it is predicted rightly, true, predicted."""
    labels_C = np.arange(num_labels)
    true_NC, predicted_NC = true_N[:, None] == labels_C, predicted_N[:, None] == labels_C
    return np.concatenate([true_NC & predicted_NC, true_NC, predicted_NC], axis=1).astype(np.float64)


def _metrics(counts_RF: np.ndarray) -> dict[str, np.ndarray]:
    right_RC, support_RC, predicted_RC = np.split(counts_RF, 3, axis=1)
    total_R = support_RC.sum(axis=1)
    occurs_RC, seen_RC = support_RC > 0, support_RC + predicted_RC > 0
    recall_RC = right_RC / np.where(occurs_RC, support_RC, 1)
    f1_RC = 2 * right_RC / np.where(seen_RC, support_RC + predicted_RC, 1)
    return {
        "accuracy": right_RC.sum(axis=1) / total_R,
        "balanced_accuracy": recall_RC.sum(axis=1) / occurs_RC.sum(axis=1),
        "macro_f1": f1_RC.sum(axis=1) / seen_RC.sum(axis=1),
        "macro_f1_present": (f1_RC * occurs_RC).sum(axis=1) / occurs_RC.sum(axis=1),
        "weighted_f1": (f1_RC * support_RC).sum(axis=1) / total_R,
    }
