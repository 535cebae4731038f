"""Answers to open questions that several people answered, such as VQAv2, by the accuracy of that benchmark.

An answer is worth min(1, k / 3) if k of the other people gave it, as a mean over the people that are left out in turn
(Antol et al., ICCV 2015). All texts are compared in the normal form of LAVIS's evaluator. That evaluator leaves the
answers of people as they are, because those of VQAv2 are in this form already.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.categories import CategoryMetrics, category_metrics
from lavis_emovit.evaluation.metrics.question_accuracy import accuracy_headline
from lavis_emovit.evaluation.metrics.registry import Metric, register_metric
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import GROUP, question_groups, resamples_of, row_name, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow

_ENOUGH = 3
"""So many people with the same answer make it right."""


class VqaMetrics(Result):
    """`accuracy` is the mean over the `num_samples` answered questions; `num_invalid` answers are empty, worth 0."""

    num_samples: int
    num_invalid: int
    num_errors: int
    accuracy: float
    accuracy_interval: Interval
    categories: dict[str, dict[str, CategoryMetrics]]


def vqa_metrics(
    rows: Sequence[PredictionRow], *, group_by: str | None = None, slices: Sequence[str] = ()
) -> VqaMetrics:
    """Measure rows with an `answer` and those of people in `labels`, repeated as often as given.

    Raises:
        DataError: no answered rows, or a row without answers of people.
    """
    answered = without_errors(rows)
    for row in answered:
        if not row.labels:
            raise DataError(f"{row_name(row)} has no answers of people, so nothing can be measured on it")
    accuracy_N = np.array([vqa_accuracy(row.answer or "", row.labels or ()) for row in answered])
    resamples = resamples_of(answered, question_groups(answered, group_by))
    return VqaMetrics(
        num_samples=len(answered),
        num_invalid=sum(not (row.answer or "").strip() for row in answered),
        num_errors=len(rows) - len(answered),
        accuracy=float(accuracy_N.mean()),
        accuracy_interval=resamples.mean_interval(accuracy_N),
        categories=category_metrics(answered, {"accuracy": accuracy_N}, resamples, skip=(GROUP, *slices)),
    )


def vqa_accuracy(answer: str, given: Sequence[str]) -> float:
    """The accuracy of one answer, in [0, 1]; with the answer of one person alone, whether it is the same."""
    said, people = _normal(answer), [_normal(one) for one in given]
    if len(people) == 1:
        return float(people[0] == said)
    same = people.count(said)
    return float(np.mean([min(1.0, (same - (one == said)) / _ENOUGH) for one in people]))


def _normal(text: str) -> str:
    """Lower case, without punctuation and articles, numbers as digits; a text of nothing else stays as it is."""
    text = " ".join(text.lower().split())
    evaluator = _evaluator()
    return evaluator.processDigitArticle(evaluator.processPunctuation(text)) or text


@cache
def _evaluator() -> Any:
    from lavis.common.vqa_tools.vqa_eval import VQAEval

    return VQAEval()


def _accuracy(row: PredictionRow) -> float:
    return vqa_accuracy(row.answer or "", row.labels or ())


register_metric(
    Metric(
        "vqa",
        kinds=("vqa",),
        result=VqaMetrics,
        less_is_better=frozenset({"num_invalid", "num_errors"}),
        measure=lambda measured: vqa_metrics(
            measured.rows, group_by=measured.group_by, slices=measured.settings.slices
        ),
        headline=accuracy_headline(_accuracy),
    )
)
