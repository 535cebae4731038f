"""Judged statements: accuracy by class, and how often a model says "correct" or does not answer.

The measures are those of MVEI ("Customizing Visual Emotion Evaluation for MLLMs", 2025), with a strict reader.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.categories import CategoryMetrics, category_metrics
from lavis_emovit.evaluation.metrics.question_accuracy import accuracy_headline
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import (
    GROUP,
    count_statuses,
    is_right,
    question_groups,
    resamples_of,
    row_name,
    without_errors,
)
from lavis_emovit.evaluation.predictions import PredictionRow

_CORRECT, _INCORRECT = "correct", "incorrect"


class StatementMetrics(Result):
    """Metrics of the `num_samples` judged statements; all shares but `accuracy_of_answered` are over all of them.

    Attributes:
        statuses: how written answers were read; empty for scored ones.
        accuracy: share judged right; a statement without a judgement is wrong.
        accuracy_of_answered: over the statements with a judgement, None without any.
        balanced_accuracy: mean of the accuracies on correct and on incorrect statements, None if one kind is missing.
        positive_ratio: share judged correct; `true_positive_ratio`: share that is correct.
        give_up_ratio: share without a judgement; `refused_ratio`: those among them whose answer declines.
        categories: name of a category -> value -> its accuracy, `positive` and `give_up` ratios.
    """

    num_samples: int
    num_invalid: int
    num_errors: int
    statuses: dict[str, int]
    accuracy: float
    accuracy_interval: Interval
    accuracy_of_answered: float | None
    balanced_accuracy: float | None
    positive_ratio: float
    positive_ratio_interval: Interval
    true_positive_ratio: float
    give_up_ratio: float
    give_up_ratio_interval: Interval
    refused_ratio: float
    categories: dict[str, dict[str, CategoryMetrics]]


def statement_metrics(
    rows: Sequence[PredictionRow], *, group_by: str | None = None, slices: Sequence[str] = ()
) -> StatementMetrics:
    """Measure rows with the labels `correct` and `incorrect`.

    Args:
        slices: fields of the records among the rows' `slices`, which are no categories.

    Raises:
        DataError: no answered rows, or a row with another label.
    """
    answered = without_errors(rows)
    for row in answered:
        if row.label not in (_CORRECT, _INCORRECT):
            raise DataError(f"{row_name(row)}: a statement is '{_CORRECT}' or '{_INCORRECT}', not '{row.label}'")
    right_N = np.array([is_right(row) for row in answered], dtype=np.float64)
    positive_N = np.array([row.prediction == _CORRECT for row in answered], dtype=np.float64)
    silent_N = np.array([row.prediction is None for row in answered], dtype=np.float64)
    is_true_N = np.array([row.label == _CORRECT for row in answered])
    resamples = resamples_of(answered, question_groups(answered, group_by))
    shares = {"accuracy": right_N, "positive": positive_N, "give_up": silent_N}
    means_R3 = resamples.means(np.column_stack(list(shares.values())))
    means = [float(values.mean()) for values in shares.values()]
    accuracy, positive, give_up = (resamples.share_interval(means_R3[:, n], value) for n, value in enumerate(means))
    by_truth = [float(right_N[of].mean()) for of in (is_true_N, ~is_true_N) if of.any()]
    num_silent = int(silent_N.sum())
    return StatementMetrics(
        num_samples=len(answered),
        num_invalid=num_silent,
        num_errors=len(rows) - len(answered),
        statuses=count_statuses(answered),
        accuracy=means[0],
        accuracy_interval=accuracy,
        accuracy_of_answered=float(right_N.sum() / (len(answered) - num_silent))
        if num_silent < len(answered)
        else None,
        balanced_accuracy=sum(by_truth) / 2 if len(by_truth) == 2 else None,
        positive_ratio=means[1],
        positive_ratio_interval=positive,
        true_positive_ratio=float(is_true_N.mean()),
        give_up_ratio=means[2],
        give_up_ratio_interval=give_up,
        refused_ratio=sum(row.status == "refused" for row in answered) / len(answered),
        categories=category_metrics(answered, shares, resamples, skip=(GROUP, *slices)),
    )


def _measure(measured: MeasuredRows) -> StatementMetrics:
    return statement_metrics(measured.rows, group_by=measured.group_by, slices=measured.settings.slices)


register_metric(
    Metric(
        "statements",
        kinds=("statement",),
        result=StatementMetrics,
        less_is_better=frozenset({"num_invalid", "num_errors", "give_up_ratio", "refused_ratio"}),
        measure=_measure,
        headline=accuracy_headline(is_right),
    )
)
