"""WAR and UAR over folds: each clip is tested once, by a model that was trained on the other folds.

WAR, the weighted average recall, is the accuracy; UAR, the unweighted average recall, is the mean recall of the classes
that occur (balanced accuracy). Papers on DFEW and MAFW report their means over five folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.confusion import confusion_metrics, resampled_metrics
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import label_indices, prediction_indices, resamples_of, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow

_NAMES = {"war": "accuracy", "uar": "balanced_accuracy"}


class Fold(Result):
    """One fold: `num_samples` answered rows."""

    num_samples: int
    num_errors: int
    war: float
    uar: float


class FoldMetrics(Result):
    """Means over the folds with intervals, which resample the rows of all folds, or whole groups of them.

    `groups` is the number of groups (persons, films); None: rows are resampled.
    """

    folds: dict[str, Fold]
    num_samples: int
    groups: int | None
    war: float
    war_interval: Interval | None
    uar: float
    uar_interval: Interval | None


def fold_metrics(
    folds: Mapping[str, Sequence[PredictionRow]],
    labels: Sequence[str],
    *,
    num_resamples: int = NUM_RESAMPLES,
    group_by: str | None = None,
) -> FoldMetrics:
    """WAR and UAR of each fold and their means.

    A group that is in several folds, such as a film, is resampled as a whole.

    Args:
        folds: name of a fold -> rows of its test split.
        labels: the labels of the set.
        num_resamples, group_by: as in `classification_metrics`.

    Raises:
        DataError: fewer than two folds, a record that is in two folds, or what `classification_metrics` refuses.
    """
    if len(folds) < 2:
        raise DataError(f"means over folds need at least two folds, got {', '.join(folds) or 'none'}")
    fold_of: dict[str, str] = {}
    for fold, rows in folds.items():
        for record in dict.fromkeys(row.record_id for row in rows):
            if fold_of.setdefault(record, fold) != fold:
                both = f"{fold_of[record]} and {fold}"
                raise DataError(f"record '{record}' is tested in the folds {both}; take the rows of test splits only")
    answered = {fold: without_errors(rows) for fold, rows in folds.items()}
    every = [row for rows in answered.values() for row in rows]
    true_N, predicted_N = label_indices(every, labels), prediction_indices(every, labels)
    fold_N = np.repeat(np.arange(len(folds)), [len(rows) for rows in answered.values()])
    resamples = resamples_of(every, group_by, num_resamples)
    found: dict[str, Fold] = {}
    values_FR: dict[str, list[np.ndarray]] = {name: [] for name in _NAMES}
    for place, (fold, rows) in enumerate(answered.items()):
        inside_N = fold_N == place
        one = confusion_metrics(true_N[inside_N], predicted_N[inside_N], len(labels))
        found[fold] = Fold(
            num_samples=len(rows),
            num_errors=len(folds[fold]) - len(rows),
            **{name: one[metric] for name, metric in _NAMES.items()},
        )
        of_resamples = resampled_metrics(true_N, predicted_N, len(labels), resamples, inside_N)
        for name, metric in _NAMES.items():
            values_FR[name].append(of_resamples[metric])
    means = {name: float(np.mean([getattr(one, name) for one in found.values()])) for name in _NAMES}
    intervals = {name: resamples.interval(np.mean(values_FR[name], axis=0), means[name], (0.0, 1.0)) for name in _NAMES}
    return FoldMetrics(
        folds=found,
        num_samples=len(every),
        groups=resamples.num_units if group_by is not None else None,
        war=means["war"],
        war_interval=intervals["war"],
        uar=means["uar"],
        uar_interval=intervals["uar"],
    )
