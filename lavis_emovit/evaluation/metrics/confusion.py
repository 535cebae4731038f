"""The metrics that follow from a confusion matrix, for many matrices at once."""

from __future__ import annotations

import numpy as np


def confusion_metrics(counts_RK: np.ndarray, num_labels: int) -> dict[str, np.ndarray]:
    """Accuracy, balanced accuracy, macro F1 and weighted F1 of R confusion matrices: name -> float64 [R].

    Args:
        counts_RK: [R, C * (C + 1)], flat matrices: true labels down, predictions across, invalid ones last.
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
