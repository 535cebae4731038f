"""Sensitivity: how much a score depends on the wording of the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.results import Result
from lavis_emovit.evaluation.metrics.rows import is_right
from lavis_emovit.evaluation.metrics.slices import slice_rows
from lavis_emovit.evaluation.predictions import PredictionRow


class TaskSensitivity(Result):
    """One task. `ratio`, of standard deviation and mean, is None if the mean is zero; `range` is best minus worst."""

    scores: dict[str, float]
    mean: float
    std: float
    range: float
    ratio: float | None


class Sensitivity(Result):
    """`sensitivity` is the mean of the tasks' ratios, lower is better; None if a task has no ratio."""

    tasks: dict[str, TaskSensitivity]
    sensitivity: float | None


def sensitivity(scores: Mapping[str, Mapping[str, float]]) -> Sensitivity:
    """Mean over tasks of the standard deviation over instructions, divided by the mean over instructions.

    `scores` are task -> variant of the instruction -> mean score, such as accuracy; two variants or more (else
    DataError).

    Named after the metric of MultiInstruct (Xu, Shen and Huang, ACL 2023). This is our reading of its formula, which we
    did not check against the paper's code: the kind of standard deviation (here over n) and the score are unconfirmed.
    So compare these numbers only with each other.
    """
    if not scores:
        raise DataError("no task to compute the sensitivity of")
    tasks = {task: _task(task, of_variants) for task, of_variants in scores.items()}
    ratios = [task.ratio for task in tasks.values() if task.ratio is not None]
    return Sensitivity(tasks=tasks, sensitivity=float(np.mean(ratios)) if len(ratios) == len(tasks) else None)


def accuracy_of_variants(rows: Sequence[PredictionRow]) -> dict[str, float]:
    """Accuracy under each `variant`; invalid answers are wrong. DataError for a variant without an answered row."""
    accuracies = {}
    for variant, members in slice_rows(rows, "variant").items():
        answered = [row for row in members if row.error is None]
        if variant is None:
            raise DataError(f"prediction of instance '{members[0].instance_id}' has no variant of the question")
        if not answered:
            raise DataError(f"all {len(members)} rows of variant '{variant}' are errors")
        accuracies[variant] = float(np.mean([is_right(row) for row in answered]))
    return accuracies


def _task(name: str, of_variants: Mapping[str, float]) -> TaskSensitivity:
    values = np.array(list(of_variants.values()), dtype=np.float64)
    if len(values) < 2:
        raise DataError(f"task '{name}' has {len(values)} variant of the question; sensitivity needs at least two")
    if not np.isfinite(values).all():
        raise DataError(f"task '{name}' has a score that is not a finite number: {dict(of_variants)}")
    mean, std = float(values.mean()), float(values.std())
    ratio = std / mean if mean > 0 else None
    return TaskSensitivity(scores=dict(of_variants), mean=mean, std=std, range=float(np.ptp(values)), ratio=ratio)


def _measure(measured: MeasuredRows) -> dict[str, float] | None:
    has_variants = len(measured.settings.variants) > 1 and any(row.variant is not None for row in measured.all_variants)
    return accuracy_of_variants(measured.all_variants) if has_variants else None


register_metric(Metric("variants", kinds=("emotion", "explanation", "choice", "statement"), measure=_measure))
