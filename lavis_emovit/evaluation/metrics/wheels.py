"""Emotions in free words, compared by the clusters of emotion wheels.

Precision P and recall R of an image's clusters are averaged over the images, F is 2 P R / (P + R) of the averages, and
the result is the mean over the wheels: the metric of AffectGPT (Lian et al., ICML 2025). A wheel that has none of an
image's words cannot judge it: such images are counted by wheel, and compared figures need equal counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lavis_emovit.emotion.wheels import Wheels, emotion_wheels
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.comparison import NumbersComparison, answered_by_both, compare_numbers
from lavis_emovit.evaluation.metrics.registry import Headline, MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import resamples_of, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow

_MAX_NAMED = 20


class WheelMetrics(Result):
    """One wheel, over the `num_samples` images with a word on it; `num_off_wheel` images have none.

    Attributes:
        words: number of different true words; `coverage` is the share of them that the wheel has, and `off_wheel` names
            the first others, most frequent first.
    """

    num_samples: int
    num_off_wheel: int
    words: int
    coverage: float
    off_wheel: list[str]
    precision: float | None
    recall: float | None
    f1: float | None
    f1_interval: Interval | None


class WordMetrics(Result):
    """Means over the wheels that have a word of some image.

    `num_invalid` answers name no word of any wheel; they have a precision and a recall of 0.
    """

    num_samples: int
    num_invalid: int
    num_errors: int
    num_words: float  # mean number of words that an answer names
    precision: float
    recall: float
    f1: float
    f1_interval: Interval | None
    wheels: dict[str, WheelMetrics]


def word_metrics(rows: Sequence[PredictionRow], wheels: Wheels, *, group_by: str | None = None) -> WordMetrics:
    """Measure rows with true words in `labels` and those of the answer in `predictions`.

    Raises:
        DataError: no answered rows, or no wheel has a true word.
    """
    answered = without_errors(rows)
    scores_NF = _scores(answered, wheels)
    resamples = resamples_of(answered, group_by)
    resampled = _means(resamples.sums(scores_NF))
    values = _means(scores_NF.sum(axis=0, keepdims=True))
    found = {}
    for place, name in enumerate(wheels.wheels):
        precision, recall, f1 = (float(value) for value in values[0, :, place])
        is_measured = bool(np.isfinite(f1))
        found[name] = WheelMetrics(
            num_samples=int(scores_NF[:, 3 * place].sum()),
            num_off_wheel=len(answered) - int(scores_NF[:, 3 * place].sum()),
            **_coverage(answered, wheels, name),
            precision=precision if is_measured else None,
            recall=recall if is_measured else None,
            f1=f1 if is_measured else None,
            f1_interval=resamples.interval(resampled[:, 2, place], f1) if is_measured else None,
        )
    if all(one.f1 is None for one in found.values()):
        example = (answered[0].labels or ("",))[0]
        raise DataError(f"no wheel ({', '.join(found)}) has any true word of these rows, such as '{example}'")
    mean_R3, (precision, recall, f1) = _over_wheels(resampled), _over_wheels(values)[0]
    return WordMetrics(
        num_samples=len(answered),
        num_invalid=sum(not row.predictions for row in answered),
        num_errors=len(rows) - len(answered),
        num_words=float(np.mean([len(row.predictions or ()) for row in answered])),
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        f1_interval=resamples.interval(mean_R3[:, 2], float(f1)),
        wheels=found,
    )


def compare_words(
    before: Sequence[PredictionRow], after: Sequence[PredictionRow], wheels: Wheels, *, group_by: str | None = None
) -> NumbersComparison:
    """The difference in F1 of two models on the same images; raises as `compare_models`."""
    firsts, seconds, num_left_out = answered_by_both(before, after)
    resamples = resamples_of(firsts, group_by)
    scores = [_scores(rows, wheels) for rows in (firsts, seconds)]
    values = [float(_over_wheels(_means(one.sum(axis=0, keepdims=True)))[0, 2]) for one in scores]
    resampled = [_over_wheels(_means(resamples.sums(one)))[:, 2] for one in scores]
    return compare_numbers("f1", values, resampled, resamples, num_left_out, (-1.0, 1.0))


def _scores(rows: Sequence[PredictionRow], wheels: Wheels) -> np.ndarray:
    """float64 [N, 3 W]: for each wheel, 1 where it has a true word, then precision and recall there, else 0."""
    scores_NF = np.zeros((len(rows), 3 * len(wheels.wheels)))
    for n, row in enumerate(rows):
        true = [word for label in row.labels or () if (word := wheels.word(label)) is not None]
        for place, name in enumerate(wheels.wheels):
            wanted, given = wheels.clusters(true, name), wheels.clusters(row.predictions or (), name)
            if wanted:
                shared = len(wanted & given)
                scores_NF[n, 3 * place : 3 * place + 3] = 1, shared / len(given) if given else 0, shared / len(wanted)
    return scores_NF


def _means(sums_RF: np.ndarray) -> np.ndarray:
    """float64 [R, 3, W], precision, recall and F1 of each wheel; NaN where a wheel has no true word."""
    counts_RW, precisions_RW, recalls_RW = (sums_RF[:, start::3] for start in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        precisions_RW, recalls_RW = precisions_RW / counts_RW, recalls_RW / counts_RW
        together_RW = precisions_RW + recalls_RW
        f1_RW = np.where(together_RW == 0, 0.0, 2 * precisions_RW * recalls_RW / together_RW)
    return np.stack([precisions_RW, recalls_RW, f1_RW], axis=1)


def _over_wheels(values_R3W: np.ndarray) -> np.ndarray:
    """float64 [R, 3], the means over the wheels that have a true word."""
    return np.ma.masked_invalid(values_R3W).mean(axis=2).filled(np.nan)


def _coverage(rows: Sequence[PredictionRow], wheels: Wheels, name: str) -> dict[str, Any]:
    cluster_of = wheels.wheel(name).cluster_of
    counts: dict[str, int] = {}
    for row in rows:
        for label in row.labels or ():
            counts[label] = counts.get(label, 0) + 1
    by_count = sorted(counts, key=lambda label: (-counts[label], label))
    missing = [label for label in by_count if wheels.word(label) not in cluster_of]
    return {
        "words": len(counts),
        "coverage": 1 - len(missing) / len(counts) if counts else 0.0,
        "off_wheel": missing[:_MAX_NAMED],
    }


def _wheels_of(measured: MeasuredRows) -> Wheels:
    return emotion_wheels(measured.settings.wheels)


register_metric(
    Metric(
        "words",
        kinds=("words",),
        result=WordMetrics,
        less_is_better=frozenset({"num_invalid", "num_errors"}),
        measure=lambda measured: word_metrics(measured.rows, _wheels_of(measured), group_by=measured.group_by),
        headline=Headline(
            "f1",
            title="wheel F1",
            counts=lambda result: (result.num_samples, result.num_invalid),
            compare=lambda before, after: compare_words(
                before.rows, after.rows, _wheels_of(before), group_by=before.group_by
            ),
        ),
    )
)
