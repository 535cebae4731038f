"""Sensitivity: how much a score depends on the wording of the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.results import Result
from lavis_emovit.evaluation.metrics.slices import slice_rows
from lavis_emovit.evaluation.predictions import PredictionRow


class TaskSensitivity(Result):
    """One task: its score under each variant, their mean, standard deviation and the ratio of the two.

    `ratio` is None where the mean is zero; `range` is the best score minus the worst.
    """

    scores: dict[str, float]
    mean: float
    std: float
    range: float
    ratio: float | None


class Sensitivity(Result):
    """`sensitivity` is the mean of the tasks' ratios, lower is better; None where a task has none."""

    tasks: dict[str, TaskSensitivity]
    sensitivity: float | None


def sensitivity(scores: Mapping[str, Mapping[str, float]]) -> Sensitivity:
    """Mean over tasks of the standard deviation over instructions, divided by the mean over instructions.

    After MultiInstruct (Xu, Shen and Huang, ACL 2023), which gives the metric its name. The formula here is our reading
    of it: it has not been checked against the paper's code, and neither the kind of standard deviation (here over n, of
    the instructions that were asked) nor the score that it is taken of is confirmed. So compare our figures with each
    other only.

    Args:
        scores: task -> variant of the instruction -> mean score, such as accuracy.

    Raises:
        DataError: no task, a task with fewer than two variants, or a score that is no finite number.
    """
    if not scores:
        raise DataError("no task to take the sensitivity of")
    tasks = {task: _task(task, of_variants) for task, of_variants in scores.items()}
    ratios = [task.ratio for task in tasks.values() if task.ratio is not None]
    return Sensitivity(tasks=tasks, sensitivity=float(np.mean(ratios)) if len(ratios) == len(tasks) else None)


def accuracy_of_variants(rows: Sequence[PredictionRow]) -> dict[str, float]:
    """Accuracy under each `variant` of the rows of one task; errors are left out, invalid answers are wrong.

    Raises:
        DataError: a row without a variant, or a variant without an answered row.
    """
    accuracies = {}
    for variant, members in slice_rows(rows, "variant").items():
        answered = [row for row in members if row.error is None]
        if variant is None:
            raise DataError(f"prediction of instance '{members[0].instance_id}' names no variant of the question")
        if not answered:
            raise DataError(f"all {len(members)} rows of variant '{variant}' are errors")
        accuracies[variant] = float(np.mean([row.prediction == row.label for row in answered]))
    return accuracies


def _task(name: str, of_variants: Mapping[str, float]) -> TaskSensitivity:
    values = np.array(list(of_variants.values()), dtype=np.float64)
    if len(values) < 2:
        raise DataError(f"task '{name}' has {len(values)} variant of the question; sensitivity needs two or more")
    if not np.isfinite(values).all():
        raise DataError(f"task '{name}' has a score that is no finite number: {dict(of_variants)}")
    mean, std = float(values.mean()), float(values.std())
    return TaskSensitivity(
        scores=dict(of_variants),
        mean=mean,
        std=std,
        range=float(np.ptp(values)),
        ratio=std / mean if mean > 0 else None,
    )
