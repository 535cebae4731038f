"""Confusion matrices, and the metrics that follow from one, for many matrices at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lavis_emovit.evaluation.metrics.rows import label_indices, prediction_indices
from lavis_emovit.evaluation.predictions import PredictionRow


def confusion_counts(rows: Sequence[PredictionRow], labels: Sequence[str]) -> np.ndarray:
    """int64 [C, C + 1]: true labels down, predictions across, invalid predictions in the last column."""
    # scikit-learn is imported where it is used: importing it sets environment variables, which our import must not.
    from sklearn.metrics import confusion_matrix

    size = len(labels) + 1
    counts = confusion_matrix(label_indices(rows, labels), prediction_indices(rows, labels), labels=list(range(size)))
    return counts[:-1].astype(np.int64)


def confusion_metrics(counts_RK: np.ndarray, num_labels: int) -> dict[str, np.ndarray]:
    """Accuracy, balanced accuracy, macro F1 and weighted F1 of R confusion matrices.

    Args:
        counts_RK: [R, C * (C + 1)], each row a flat confusion matrix as `confusion_counts` returns it.

    Returns:
        name -> float64 [R], by the same rules as the metrics of these names.
    """
    counts = counts_RK.reshape(-1, num_labels, num_labels + 1)
    right_RC = np.diagonal(counts, axis1=1, axis2=2)
    support_RC, predicted_RC = counts.sum(axis=2), counts.sum(axis=1)[:, :num_labels]
    total_R = support_RC.sum(axis=1)
    occurs_RC, seen_RC = support_RC > 0, support_RC + predicted_RC > 0
    recall_RC = right_RC / np.where(occurs_RC, support_RC, 1)
    f1_RC = 2 * right_RC / np.where(seen_RC, support_RC + predicted_RC, 1)
    return {
        "accuracy": right_RC.sum(axis=1) / total_R,
        "balanced_accuracy": recall_RC.sum(axis=1) / occurs_RC.sum(axis=1),
        "macro_f1": f1_RC.sum(axis=1) / seen_RC.sum(axis=1),
        "weighted_f1": (f1_RC * support_RC).sum(axis=1) / total_R,
    }
