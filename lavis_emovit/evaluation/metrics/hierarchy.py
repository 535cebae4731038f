"""Accuracy from coarse to fine label sets: polarity first, then the emotion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lavis_emovit.emotion.labels import coarser_label, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES, Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import group_indices, label_indices, prediction_indices, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow


class LevelMetrics(Result):
    """One level.

    Attributes:
        num_samples: answered rows whose true label exists on the level; neutral has no polarity, for example.
        num_without_place: the other answered rows.
        num_invalid: predictions that are not in the label set of the rows; they are wrong on every level.
        accuracy: share of the samples whose predicted label belongs to the right label of the level.
        balanced_accuracy: its mean over the level's true labels.
        fine_accuracy_given_right: share with the right finest label among those that are right on this level, or None
            if none is.
    """

    label_set: str
    num_labels: int
    num_samples: int
    num_without_place: int
    num_invalid: int
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    fine_accuracy_given_right: float | None
    fine_accuracy_given_right_interval: Interval | None


class HierarchyMetrics(Result):
    """Levels from the coarsest to the finest, the label set of the rows."""

    levels: list[LevelMetrics]
    num_errors: int


def hierarchy_metrics(
    rows: Sequence[PredictionRow],
    label_set: str,
    coarser: Sequence[str] = ("polarity2",),
    *,
    num_resamples: int = NUM_RESAMPLES,
    group_by: str | None = None,
) -> HierarchyMetrics:
    """Measure the same predictions on coarser label sets and on their own.

    Args:
        label_set: the one of the rows, such as `webemo25`.
        coarser: coarser sets, coarsest first, such as `("polarity2", "parrott6")`.
        num_resamples, group_by: as in `classification_metrics`.

    Raises:
        DataError: no answered rows, an unknown label or set, sets without a common hierarchy, a level without any of
            the true labels, a row without its group.
    """
    answered = without_errors(rows)
    fine = get_label_set(label_set)
    true_N, predicted_N = label_indices(answered, fine.labels), prediction_indices(answered, fine.labels)
    groups_N = group_indices(answered, group_by)
    levels = []
    for name in (*coarser, label_set):
        coarse_labels = get_label_set(name).labels
        # Fine label -> coarse one, -1 for none; the extra entry is for invalid answers.
        places = [label if name == label_set else coarser_label(label, label_set, name) for label in fine.labels]
        coarse_of = np.array([*(-1 if place is None else coarse_labels.index(place) for place in places), -1])
        placed_N = coarse_of[true_N] >= 0
        if not placed_N.any():
            raise DataError(f"no true label exists in '{name}', so that level cannot be measured")
        coarse_true_M = coarse_of[true_N][placed_N]
        right_M = coarse_true_M == coarse_of[predicted_N][placed_N]
        fine_right_M = (true_N == predicted_N)[placed_N]
        groups_M = None if groups_N is None else np.unique(groups_N[placed_N], return_inverse=True)[1]
        resamples = Resamples(int(placed_N.sum()), groups_M, num_resamples=num_resamples)
        right_R, fine_right_R = resamples.means(np.column_stack([right_M, fine_right_M]).astype(np.float64)).T
        given = float(fine_right_M.sum() / right_M.sum()) if right_M.any() else None
        with np.errstate(divide="ignore", invalid="ignore"):
            given_R = fine_right_R / right_R
        given_interval = None if given is None else resamples.interval(given_R, given, (0.0, 1.0))
        recalls = [right_M[coarse_true_M == c].mean() for c in np.unique(coarse_true_M)]
        levels.append(
            LevelMetrics(
                label_set=name,
                num_labels=len(coarse_labels),
                num_samples=int(placed_N.sum()),
                num_without_place=int((~placed_N).sum()),
                num_invalid=int((predicted_N[placed_N] == len(fine)).sum()),
                accuracy=float(right_M.mean()),
                accuracy_interval=resamples.share_interval(right_R, float(right_M.mean())),
                balanced_accuracy=float(np.mean(recalls)),
                fine_accuracy_given_right=given,
                fine_accuracy_given_right_interval=given_interval,
            )
        )
    return HierarchyMetrics(levels=levels, num_errors=len(rows) - len(answered))


def _measure(measured: MeasuredRows) -> list[LevelMetrics] | None:
    if not measured.settings.coarser or measured.label_set is None:
        return None
    name = measured.label_set.name
    return hierarchy_metrics(measured.rows, name, measured.settings.coarser, group_by=measured.group_by).levels


register_metric(Metric("levels", kinds=("emotion",), measure=_measure))
