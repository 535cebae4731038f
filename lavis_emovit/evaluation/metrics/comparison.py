"""Two models on the same instances: the difference, its paired interval, and McNemar's test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.confusion import confusion_metrics, resampled_metrics
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES, Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import label_indices, prediction_indices, resamples_of
from lavis_emovit.evaluation.predictions import PredictionRow


class NumbersComparison(Result):
    """A metric of two models on the same instances.

    Attributes:
        num_pairs: instances that both answered; `num_left_out` are those on which either failed with an error.
        interval: paired bootstrap of the difference: both models are measured on the same resamples. None if the
            difference is undefined on most of them.
    """

    metric: str
    num_pairs: int
    num_left_out: int
    before: float
    after: float
    difference: float
    interval: Interval | None


class PairedComparison(NumbersComparison):
    """`accuracy`, `balanced_accuracy`, `macro_f1`, `macro_f1_present` or `weighted_f1` of two models.

    Attributes:
        num_only_before, num_only_after: instances that only one of the two predicted correctly.
        p_value: of McNemar's exact test on these, two-sided; it is about accuracy, whatever the metric.
    """

    num_only_before: int
    num_only_after: int
    p_value: float


def compare_models(
    before: Sequence[PredictionRow],
    after: Sequence[PredictionRow],
    labels: Sequence[str],
    *,
    metric: str = "accuracy",
    num_resamples: int = NUM_RESAMPLES,
    group_by: str | None = None,
) -> PairedComparison:
    """Compare the labels that two models predicted on the same instances.

    Args:
        metric: one of those that `PairedComparison` names.
        num_resamples, group_by: as in `classification_metrics`.

    Raises:
        DataError: different or repeated instances, different labels, no pair that both answered, or an unknown metric.
    """
    firsts, seconds, num_left_out = answered_by_both(before, after)
    true_N = label_indices(firsts, labels)
    num_labels = len(labels)
    resamples = resamples_of(firsts, group_by, num_resamples)
    values, resampled, right = [], [], []
    for rows in (firsts, seconds):
        predicted_N = prediction_indices(rows, labels)
        all_rows = confusion_metrics(true_N, predicted_N, num_labels)
        if metric not in all_rows:
            raise DataError(f"unknown metric '{metric}' to compare models by (valid: {', '.join(all_rows)})")
        values.append(all_rows[metric])
        right.append(predicted_N == true_N)
        if metric != "accuracy":
            resampled.append(resampled_metrics(true_N, predicted_N, num_labels, resamples)[metric])
    if metric == "accuracy":
        resampled = list(resamples.means(np.column_stack(right).astype(np.float64)).T)
    only_before, only_after = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    compared = compare_numbers(metric, values, resampled, resamples, num_left_out, (-1.0, 1.0))
    return PairedComparison(
        **dict(compared),
        num_only_before=only_before,
        num_only_after=only_after,
        p_value=mcnemar_exact(only_before, only_after),
    )


def compare_answers(
    before: Sequence[PredictionRow],
    after: Sequence[PredictionRow],
    score: Callable[[PredictionRow], float],
    metric: str,
    *,
    group_by: str | None = None,
) -> NumbersComparison:
    """Compare the mean of a value in [0, 1] of each answer; with values of 0 and 1 alone also by McNemar's test."""
    firsts, seconds, num_left_out = answered_by_both(before, after)
    resamples = resamples_of(firsts, group_by)
    scores_N2 = np.array([[score(first), score(second)] for first, second in zip(firsts, seconds)], dtype=np.float64)
    means_R2 = resamples.means(scores_N2)
    values = [float(value) for value in scores_N2.mean(axis=0)]
    compared = compare_numbers(metric, values, list(means_R2.T), resamples, num_left_out, (-1.0, 1.0))
    if not np.isin(scores_N2, (0.0, 1.0)).all():
        return compared
    only_before, only_after = (int((scores_N2[:, one] > scores_N2[:, 1 - one]).sum()) for one in (0, 1))
    return PairedComparison(
        **dict(compared),
        num_only_before=only_before,
        num_only_after=only_after,
        p_value=mcnemar_exact(only_before, only_after),
    )


def compare_numbers(
    metric: str,
    values: Sequence[float],
    resampled: Sequence[np.ndarray],
    resamples: Resamples,
    num_left_out: int,
    value_range: tuple[float, float] | None = None,
) -> NumbersComparison:
    """The comparison of two models from a metric of each, on all rows and [R] on the resamples; see `interval` there.

    Raises:
        DataError: the metric of one model is undefined.
    """
    difference = values[1] - values[0]
    if not np.isfinite(difference):
        raise DataError(f"the {metric} of one model is undefined, because its values and the true ones are constant")
    return NumbersComparison(
        metric=metric,
        num_pairs=resamples.num_rows,
        num_left_out=num_left_out,
        before=values[0],
        after=values[1],
        difference=difference,
        interval=resamples.interval(resampled[1] - resampled[0], difference, value_range),
    )


def mcnemar_exact(num_only_before: int, num_only_after: int) -> float:
    """Two-sided p value of McNemar's exact test (McNemar 1947) on the instances that only one model got right."""
    # The binomial distribution as an incomplete beta function, because importing `scipy.stats` takes seconds.
    from scipy.special import betainc

    total, least = num_only_before + num_only_after, min(num_only_before, num_only_after)
    if 2 * least == total:
        return 1.0
    return min(1.0, 2 * float(betainc(total - least, least + 1, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for multiple tests (Holm 1979).

    The k-th smallest of m is multiplied by m - k + 1, then raised to at least the one before it and capped at 1.
    """
    order = np.argsort(p_values, kind="stable")
    raised = np.maximum.accumulate(np.sort(p_values) * np.arange(len(order), 0, -1)).clip(max=1.0)
    return raised[np.argsort(order)].tolist()


def answered_by_both(
    before: Sequence[PredictionRow], after: Sequence[PredictionRow]
) -> tuple[list[PredictionRow], list[PredictionRow], int]:
    """The rows of each model where neither failed, in the order of their instances, and the number of other pairs.

    Raises:
        DataError: the instances or their labels differ, one is repeated in a list, or no pair is left.
    """
    for rows in (before, after):
        repeated = [name for name, count in Counter(row.instance_id for row in rows).items() if count > 1]
        if repeated:
            names = ", ".join(f"'{name}'" for name in repeated[:5]) + (", ..." if len(repeated) > 5 else "")
            raise DataError(f"{len(repeated)} instances have several rows in one list: {names}; keep one row for each")
    row_before, row_after = ({row.instance_id: row for row in rows} for rows in (before, after))
    if row_before.keys() != row_after.keys():
        odd = min(row_before.keys() ^ row_after.keys())
        raise DataError(f"instance '{odd}' is in only one of the two lists; a paired comparison needs the same ones")
    if not row_before:
        raise DataError("no predictions to compare: the lists of rows are empty")
    pairs = [(row_before[name], row_after[name]) for name in sorted(row_before)]
    for first, second in pairs:
        if first.label != second.label:
            where = f"instance '{first.instance_id}'"
            raise DataError(f"{where}: labels '{first.label}' and '{second.label}' cannot be compared")
    answered = [(first, second) for first, second in pairs if first.error is None and second.error is None]
    if not answered:
        raise DataError(f"no instance was answered by both models; {len(pairs)} failed with an error")
    firsts, seconds = zip(*answered)
    return list(firsts), list(seconds), len(pairs) - len(answered)
