"""Robustness: how much the answers to one question change with its wording, options, persona and mode.

The same questions are compared in all variants; a question that failed with an error in one of them is left out of all
(`num_left_out`). An answer that cannot be read, a refusal among them, is an answer of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from lavis_emovit.evaluation.benchmarks import Variant
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import is_right, question_groups, resamples_of
from lavis_emovit.evaluation.predictions import PredictionRow


class VariantMetrics(Result):
    """One variant: shares over the compared questions. `unread` answers are wrong; `refused` ones are among them."""

    accuracy: float
    unread: float
    refused: float
    first_option: float | None  # share of answers with the first listed option; None without options


class RobustnessMetrics(Result):
    """How answers differ between variants, over the `num_questions` answered in all of them.

    Attributes:
        accuracy_mean, accuracy_std, accuracy_min: over the variants; the deviation is over n.
        flip_rate: share of questions whose answer differs between two variants, mean over all pairs of variants.
        flips: choice (`wording`, `order`, ...) -> flip rate over the pairs that differ in it alone.
        order_bias: share of answers with the first listed option minus 1 / C, over the variants that list options.
        persona_shift: persona -> total variation distance between the answers with it and without, from 0 to 1, other
            choices being equal; unread answers are a class of their own.
        refused: share of refusals in all variants together.
    """

    num_questions: int
    num_left_out: int
    accuracy_mean: float
    accuracy_std: float
    accuracy_min: float
    flip_rate: float
    flip_rate_interval: Interval | None
    flips: dict[str, float]
    order_bias: float | None
    order_bias_interval: Interval | None
    persona_shift: dict[str, float]
    refused: float
    variants: dict[str, VariantMetrics]


def robustness_metrics(
    rows: Sequence[PredictionRow],
    variants: Sequence[Variant],
    labels: Sequence[str] = (),
    *,
    group_by: str | None = None,
) -> RobustnessMetrics | None:
    """Measure rows of several `variants`; None if fewer than two of them have rows, or no question was answered in all.

    Args:
        labels: of the label set, in its order, for rows without `options`.
    """
    by_variant: dict[Variant, dict[str, PredictionRow]] = {variant: {} for variant in variants}
    named = {variant.name: variant for variant in variants}
    for row in rows:
        if row.variant in named:
            by_variant[named[row.variant]][row.question_id] = row
    by_variant = {variant: found for variant, found in by_variant.items() if found}
    questions = dict.fromkeys(name for found in by_variant.values() for name in found)
    compared = [name for name in questions if all(name in of and of[name].error is None for of in by_variant.values())]
    if len(by_variant) < 2 or not compared:
        return None
    found = {variant: [of[name] for name in compared] for variant, of in by_variant.items()}
    first = next(iter(found.values()))
    resamples = resamples_of(first, question_groups(first, group_by))
    flips_N, flips = _flips(found)
    bias_N = _first_option_bias(found, labels)
    of_variants = {variant.name: _variant_metrics(variant, of, labels) for variant, of in found.items()}
    accuracies = np.array([one.accuracy for one in of_variants.values()])
    return RobustnessMetrics(
        num_questions=len(compared),
        num_left_out=len(questions) - len(compared),
        accuracy_mean=float(accuracies.mean()),
        accuracy_std=float(accuracies.std()),
        accuracy_min=float(accuracies.min()),
        flip_rate=float(flips_N.mean()),
        flip_rate_interval=resamples.mean_interval(flips_N),
        flips=flips,
        order_bias=float(bias_N.mean()) if bias_N is not None else None,
        order_bias_interval=resamples.mean_interval(bias_N, (-1.0, 1.0)) if bias_N is not None else None,
        persona_shift=_persona_shift(found),
        refused=float(np.mean([one.refused for one in of_variants.values()])),
        variants=of_variants,
    )


def _flips(found: dict[Variant, list[PredictionRow]]) -> tuple[np.ndarray, dict[str, float]]:
    """float64 [N], the share of pairs of variants that disagree on each question; and by the choice that differs."""
    of_pairs: list[np.ndarray] = []
    by_choice: dict[str, list[float]] = {}
    for (one, firsts), (other, seconds) in combinations(found.items(), 2):
        differs_N = np.array([a.prediction != b.prediction for a, b in zip(firsts, seconds)], dtype=np.float64)
        of_pairs.append(differs_N)
        changed = [name for name, choice in one.choices.items() if other.choices[name] != choice]
        if len(changed) == 1:
            by_choice.setdefault(changed[0], []).append(float(differs_N.mean()))
    return np.mean(of_pairs, axis=0), {choice: float(np.mean(rates)) for choice, rates in by_choice.items()}


def _first_listed(variant: Variant, row: PredictionRow, labels: Sequence[str]) -> tuple[str, int] | None:
    """The first listed option and the number of options; None for a question without options."""
    options = row.options or (variant.options(labels, row.record_id) if variant.order is not None and labels else ())
    return (options[0], len(options)) if options else None


def _first_option_bias(found: dict[Variant, list[PredictionRow]], labels: Sequence[str]) -> np.ndarray | None:
    """float64 [N], mean over the variants that list options."""
    columns = []
    for variant, rows in found.items():
        listed = [_first_listed(variant, row, labels) for row in rows]
        if None not in listed:
            columns.append([(row.prediction == one[0]) - 1 / one[1] for row, one in zip(rows, listed) if one])
    return np.mean(columns, axis=0) if columns else None


def _persona_shift(found: dict[Variant, list[PredictionRow]]) -> dict[str, float]:
    """The mean over the variants that have a partner with the first persona and else the same choices."""
    plain = next(iter(found)).persona
    shifts: dict[str, list[float]] = {}
    for variant, rows in found.items():
        partner = found.get(replace(variant, persona=plain))
        if variant.persona != plain and partner is not None:
            counts = [Counter(row.prediction for row in of) for of in (rows, partner)]
            distance = sum(abs(counts[0][one] - counts[1][one]) for one in {*counts[0], *counts[1]}) / (2 * len(rows))
            shifts.setdefault(variant.persona, []).append(distance)
    return {persona: float(np.mean(distances)) for persona, distances in shifts.items()}


def _variant_metrics(variant: Variant, rows: Sequence[PredictionRow], labels: Sequence[str]) -> VariantMetrics:
    listed = [_first_listed(variant, row, labels) for row in rows]
    first = [row.prediction == one[0] for row, one in zip(rows, listed) if one is not None]
    return VariantMetrics(
        accuracy=float(np.mean([is_right(row) for row in rows])),
        unread=float(np.mean([row.prediction is None for row in rows])),
        refused=float(np.mean([row.status == "refused" for row in rows])),
        first_option=float(np.mean(first)) if first else None,
    )


def _measure(measured: MeasuredRows) -> RobustnessMetrics | None:
    labels = measured.label_set.labels if measured.label_set is not None else ()
    variants = measured.settings.variants
    if len(variants) < 2:
        return None
    return robustness_metrics(measured.all_variants, variants, labels, group_by=measured.group_by)


register_metric(
    Metric(
        "robustness",
        kinds=("emotion", "choice", "statement"),
        result=RobustnessMetrics,
        less_is_better=frozenset({"accuracy_std", "flip_rate", "order_bias", "refused", "num_left_out"}),
        measure=_measure,
    )
)
