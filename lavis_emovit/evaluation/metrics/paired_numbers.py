"""Two models on the same instances where answers are numbers: the difference of mean CCC, or of mean F1 over units.

Both models are measured on the same draws, so that what is hard about a draw for both does not widen the interval.
McNemar's test has no place here: a number is not right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.action_units import mean_on_draws, measure_unit, units_of
from lavis_emovit.evaluation.metrics.comparison import answered_by_both, paired_rows
from lavis_emovit.evaluation.metrics.dimensional import NUM_FEATURES, agreement_features, agreements, farther_end
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES, Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import group_indices, value_arrays
from lavis_emovit.evaluation.predictions import PredictionRow


class NumbersComparison(Result):
    """A metric of numbers of two models on the same instances.

    Attributes:
        metric: `mean CCC` or `mean F1`.
        num_pairs: instances that both answered; `num_left_out` are those on which either failed with an error.
        before, after, difference: the metric of each, and after minus before.
        interval: paired bootstrap of the difference, None where most draws leave it undefined.
    """

    metric: str
    num_pairs: int
    num_left_out: int
    before: float
    after: float
    difference: float
    interval: Interval | None


def compare_dimensional(
    before: Sequence[PredictionRow],
    after: Sequence[PredictionRow],
    names: Sequence[str] = ("valence", "arousal"),
    *,
    scale: tuple[float, float] = (-1.0, 1.0),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    group_by: str | None = None,
) -> NumbersComparison:
    """Compare the mean CCC of two models.

    Args:
        before, after: rows of the two, in any order.
        names, scale, num_resamples, seed, group_by: as in `dimensional_metrics`.

    Raises:
        DataError: other instances, no pair that both answered, a dimension that no row knows or whose CCC is undefined.
    """
    firsts, seconds, num_left_out = answered_by_both(paired_rows(before, after))
    resamples = Resamples(len(firsts), group_indices(firsts, group_by), num_resamples=num_resamples, seed=seed)
    values, on_draws = [], []
    for rows in (firsts, seconds):
        value, value_R = 0.0, np.zeros(num_resamples)
        for name in names:
            known, true_M, said_M = value_arrays(rows, name)
            if not known:
                raise DataError(f"no row knows the true '{name}', so nothing can be compared by it")
            features_NF = np.zeros((len(rows), NUM_FEATURES))
            filled_M = np.where(np.isfinite(said_M), said_M, farther_end(true_M, scale))
            features_NF[known] = agreement_features(true_M, filled_M)
            value += float(agreements(features_NF.sum(axis=0)[None])["ccc"][0]) / len(names)
            value_R += agreements(resamples.sums(features_NF))["ccc"] / len(names)
        values.append(value)
        on_draws.append(value_R)
    return _comparison("mean CCC", values, on_draws, resamples, num_left_out)


def compare_action_units(
    before: Sequence[PredictionRow],
    after: Sequence[PredictionRow],
    *,
    thresholds: tuple[float, float] = (0.5, 0.5),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    group_by: str | None = None,
) -> NumbersComparison:
    """Compare the mean F1 of two models over the units for which both have one.

    Args:
        before, after: rows of the two, in any order.
        thresholds: from which value on a unit is active, for the rows of each, since one may hold intensities and the
            other decisions.
        num_resamples, seed, group_by: as in `action_unit_metrics`.

    Raises:
        DataError: other instances, no pair that both answered, no unit with an F1 of both.
    """
    firsts, seconds, num_left_out = answered_by_both(paired_rows(before, after))
    resamples = Resamples(len(firsts), group_indices(firsts, group_by), num_resamples=num_resamples, seed=seed)
    found: tuple[list[float], list[float]] = ([], [])
    drawn: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for name in sorted({*units_of(firsts)} & {*units_of(seconds)}):
        both = [measure_unit(rows, name, at, None, resamples) for rows, at in zip((firsts, seconds), thresholds)]
        if any(unit.f1 is None for unit, _, _ in both):
            continue
        for place, (unit, f1_R, _) in enumerate(both):
            found[place].append(unit.f1 or 0.0)
            drawn[place].append(f1_R)
    if not found[0]:
        raise DataError("there is no action unit for which both models have an F1")
    values = [float(np.mean(of_model)) for of_model in found]
    return _comparison("mean F1", values, [mean_on_draws(of_model) for of_model in drawn], resamples, num_left_out)


def _comparison(
    metric: str, values: Sequence[float], on_draws: Sequence[np.ndarray], resamples: Resamples, num_left_out: int
) -> NumbersComparison:
    difference = values[1] - values[0]
    if not np.isfinite(difference):
        raise DataError(f"the {metric} of one of the two is undefined: its numbers and the true ones are constant")
    return NumbersComparison(
        metric=metric,
        num_pairs=resamples.num_rows,
        num_left_out=num_left_out,
        before=values[0],
        after=values[1],
        difference=difference,
        interval=resamples.interval(on_draws[1] - on_draws[0], difference),
    )
