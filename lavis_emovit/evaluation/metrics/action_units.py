"""Facial action units: whether each is active (F1), and how strongly (ICC).

An invalid answer counts as wrong: as a miss if the unit is active, as a false alarm if not, and as the farther end
of the scale for the intensity.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.comparison import NumbersComparison, answered_by_both, compare_numbers
from lavis_emovit.evaluation.metrics.dimensional import agreement_features, filled_in, most
from lavis_emovit.evaluation.metrics.registry import Headline, MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES, Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import resamples_of, value_arrays, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow

# Ends of the intensity scale of the Facial Action Coding System, A to E as 1 to 5.
FACS_INTENSITIES = (0.0, 5.0)

_UNIT = re.compile(r"AU(\d+)$")
_FEATURES_AT_ONCE = 500_000  # rows of all units that are measured together; nine numbers each, 36 MB


class UnitMetrics(Result):
    """One action unit, over the `num_samples` answered rows with a true value for it.

    Attributes:
        support, predicted: how often it is active, and how often it is predicted (an invalid answer counts as a
            prediction if the unit is not active).
        precision, recall, f1: None if their denominators are zero.
        icc: ICC(3,1) of the intensities, None without intensities or if all of them are the same.
    """

    name: str
    num_samples: int
    num_invalid: int
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    f1_interval: Interval | None
    accuracy: float
    icc: float | None
    icc_interval: Interval | None


class ActionUnitMetrics(Result):
    """The means are unweighted, over the `num_f1` or `num_icc` units for which the metric is defined.

    `micro_f1` counts all decisions about all units together, so frequent units weigh more.
    """

    threshold: float
    num_errors: int
    units: dict[str, UnitMetrics]
    mean_f1: float | None
    mean_f1_interval: Interval | None
    num_f1: int
    micro_f1: float | None = None
    micro_f1_interval: Interval | None = None
    mean_accuracy: float
    mean_icc: float | None
    mean_icc_interval: Interval | None
    num_icc: int


def action_unit_metrics(
    rows: Sequence[PredictionRow],
    units: Sequence[str] | None = None,
    *,
    threshold: float = 0.5,
    intensity_scale: tuple[float, float] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    group_by: str | None = None,
) -> ActionUnitMetrics:
    """F1, accuracy and ICC of each unit and their means.

    Args:
        rows: a row without a true value for a unit (its dataset does not code the unit) is skipped there.
        units: names such as `AU12`; None for all units with a true value in any row, by number.
        threshold: value from which a unit is active, in truth and prediction: 0.5 for 1 and 0, 2 for DISFA's
            intensities. It is 0.5 where `occurrence_only` of a row names the unit, and such rows have no ICC.
        intensity_scale: both ends of the scale if values are intensities, (0, 5) in FACS; None for no ICC.
        num_resamples, group_by: as in `classification_metrics`.

    Raises:
        DataError: no answered rows, no units, a unit without a true value in any row, or a row without its group.
    """
    answered = without_errors(rows)
    names = list(units) if units is not None else _units_of(answered)
    if not names:
        raise DataError("no row has a true value for an action unit (a key such as 'AU12' in true_values)")
    resamples = resamples_of(answered, group_by, num_resamples)
    found = _measure_units(answered, names, threshold, intensity_scale, resamples)
    f1s = [(one.metrics.f1, one.f1s) for one in found if one.metrics.f1 is not None]
    iccs = [(one.metrics.icc, one.iccs) for one in found if one.metrics.icc is not None]
    micro_f1 = float(_f1(np.sum([one.decisions for one in found], axis=0)))
    micro_f1_R = _f1(np.sum([one.resampled_decisions for one in found], axis=0))
    mean_f1, mean_f1_interval = _mean_of_units(f1s, resamples)
    mean_icc, mean_icc_interval = _mean_of_units(iccs, resamples)
    return ActionUnitMetrics(
        threshold=threshold,
        num_errors=len(rows) - len(answered),
        units={one.metrics.name: one.metrics for one in found},
        mean_f1=mean_f1,
        mean_f1_interval=mean_f1_interval,
        num_f1=len(f1s),
        micro_f1=micro_f1 if np.isfinite(micro_f1) else None,
        micro_f1_interval=resamples.interval(micro_f1_R, micro_f1, (0.0, 1.0)) if np.isfinite(micro_f1) else None,
        mean_accuracy=float(np.mean([one.metrics.accuracy for one in found])),
        mean_icc=mean_icc,
        mean_icc_interval=mean_icc_interval,
        num_icc=len(iccs),
    )


def intraclass_correlation(sums_RF: np.ndarray) -> np.ndarray:
    """ICC(3,1) of two raters, truth and model: two-way mixed, single, consistency (Shrout and Fleiss 1979).

    ICC = (BMS - EMS) / (BMS + (k - 1) EMS) with k = 2, from the mean squares between targets and of the residual. A
    constant offset between the two does not lower it.

    Args:
        sums_RF: [R, 6], sums of 1, x, y, x^2, y^2 and x y over each resample.

    Returns:
        float64 [R], in [-1, 1]; NaN for fewer than two targets or no variance.
    """
    count, x, y, xx, yy, xy = sums_RF.T
    with np.errstate(divide="ignore", invalid="ignore"):
        # With two raters, BMS and EMS are (s_x^2 + s_y^2 + 2 s_xy) / 2 and (s_x^2 + s_y^2 - 2 s_xy) / 2, with variances
        # over n - 1, so that ICC = 2 s_xy / (s_x^2 + s_y^2).
        spread = (xx - x**2 / count) + (yy - y**2 / count)
        both = 2 * (xy - x * y / count)
        scale = np.maximum(xx + yy, 1e-300)
        return np.where((count < 2) | (spread <= 1e-12 * scale), np.nan, both / spread)


class _Unit(NamedTuple):
    """A unit in M rows with a true value for it, and in all N rows as numbers that are added up."""

    name: str
    is_active: np.ndarray  # [M]
    predicted_active: np.ndarray  # [M]
    num_invalid: int
    # [N, 3 or 9], 1 where it is a hit, active, predicted; then, with intensities, the terms of the ICC.
    features: np.ndarray


class _MeasuredUnit(NamedTuple):
    """A unit, with its numbers on the resamples."""

    metrics: UnitMetrics
    decisions: np.ndarray  # [3], how often it is a hit, active, predicted
    resampled_decisions: np.ndarray  # [R, 3]
    f1s: np.ndarray  # [R]
    iccs: np.ndarray  # [R]


def _measure_units(
    rows: Sequence[PredictionRow],
    names: Sequence[str],
    threshold: float,
    intensity_scale: tuple[float, float] | None,
    resamples: Resamples,
) -> list[_MeasuredUnit]:
    """The metrics of each unit; several units go through the resamples together."""
    at_once = max(1, _FEATURES_AT_ONCE // len(rows))
    found = []
    for start in range(0, len(names), at_once):
        units = [_unit(rows, name, threshold, intensity_scale) for name in names[start : start + at_once]]
        sums_RF = resamples.sums(np.hstack([unit.features for unit in units]))
        parts = np.split(sums_RF, len(units), axis=1)
        found += [_measured(unit, part_RF, resamples) for unit, part_RF in zip(units, parts)]
    return found


def _unit(
    rows: Sequence[PredictionRow], name: str, threshold: float, intensity_scale: tuple[float, float] | None
) -> _Unit:
    known, true_M, predicted_M = value_arrays(rows, name)
    if not known:
        raise DataError(f"no row has a true value for '{name}', so it cannot be measured")
    is_valid_M = np.isfinite(predicted_M)
    thresholds_M = np.array([rows[i].active_from(name, threshold) for i in known])
    is_active_M = true_M >= thresholds_M
    predicted_active_M = np.where(is_valid_M, np.where(is_valid_M, predicted_M, 0.0) >= thresholds_M, ~is_active_M)
    features_MF = np.column_stack([is_active_M & predicted_active_M, is_active_M, predicted_active_M])
    if intensity_scale is not None:
        is_graded_M = np.array([name not in (rows[i].occurrence_only or ()) for i in known])
        filled_M = filled_in(true_M, predicted_M, intensity_scale)
        products_MF = agreement_features(true_M, filled_M)[:, :6] * is_graded_M[:, None]
        features_MF = np.hstack([features_MF, products_MF])
    features_NF = np.zeros((len(rows), features_MF.shape[1]))
    features_NF[known] = features_MF
    return _Unit(name, is_active_M, predicted_active_M, int((~is_valid_M).sum()), features_NF)


def _measured(unit: _Unit, sums_RF: np.ndarray, resamples: Resamples) -> _MeasuredUnit:
    totals_F = unit.features.sum(axis=0)
    hits, support, predicted = (int(total) for total in totals_F[:3])
    f1_R = _f1(sums_RF[:, :3])
    f1 = 2 * hits / (support + predicted) if support + predicted else None
    icc, icc_R = None, np.empty(0)
    if len(totals_F) > 3:
        value = float(intraclass_correlation(totals_F[None, 3:])[0])
        icc = value if np.isfinite(value) else None
        icc_R = intraclass_correlation(sums_RF[:, 3:])
    metrics = UnitMetrics(
        name=unit.name,
        num_samples=len(unit.is_active),
        num_invalid=unit.num_invalid,
        support=support,
        predicted=predicted,
        precision=hits / predicted if predicted else None,
        recall=hits / support if support else None,
        f1=f1,
        f1_interval=None if f1 is None else resamples.interval(f1_R, f1, (0.0, 1.0)),
        accuracy=float((unit.is_active == unit.predicted_active).mean()),
        icc=icc,
        icc_interval=None if icc is None else resamples.interval(icc_R, icc),
    )
    return _MeasuredUnit(metrics, totals_F[:3], sums_RF[:, :3], f1_R, icc_R)


def _f1(decisions_RF: np.ndarray) -> np.ndarray:
    """F1 from hits, active and predicted [..., 3]; NaN if there is neither an active nor a predicted unit."""
    hits, support, predicted = np.moveaxis(decisions_RF, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * hits / (support + predicted)


def _mean_of_units(
    found: Sequence[tuple[float, np.ndarray]], resamples: Resamples
) -> tuple[float | None, Interval | None]:
    """The mean over the units, with its interval."""
    if not found:
        return None, None
    mean = float(np.mean([value for value, _ in found]))
    return mean, resamples.interval(_mean_on_resamples([resampled for _, resampled in found]), mean)


def _mean_on_resamples(values_UR: Sequence[np.ndarray]) -> np.ndarray:
    """float64 [R], the mean over the units that are defined on each resample."""
    return np.ma.masked_invalid(np.column_stack(values_UR)).mean(axis=1).filled(np.nan)


def _units_of(rows: Sequence[PredictionRow]) -> list[str]:
    names = {name for row in rows for name in row.true_values or ()}
    return sorted(filter(_UNIT.match, names), key=lambda name: int(name[2:]))


def compare_action_units(
    before: Sequence[PredictionRow],
    after: Sequence[PredictionRow],
    *,
    thresholds: tuple[float, float] = (0.5, 0.5),
    num_resamples: int = NUM_RESAMPLES,
    group_by: str | None = None,
) -> NumbersComparison:
    """Compare the mean F1 of two models over the units for which both have one (else DataError), as `compare_models`.

    `thresholds` has the value from which a unit is active for each model, because one may have intensities.
    """
    firsts, seconds, num_left_out = answered_by_both(before, after)
    resamples = resamples_of(firsts, group_by, num_resamples)
    names, sides = sorted({*_units_of(firsts)} & {*_units_of(seconds)}), ((firsts, seconds), thresholds)
    measured = [_measure_units(rows, names, at, None, resamples) for rows, at in zip(*sides)]
    found = [both for both in zip(*measured) if all(one.metrics.f1 is not None for one in both)]
    if not found:
        raise DataError("there is no action unit for which both models have an F1")
    values = [float(np.mean([one.metrics.f1 or 0.0 for one in of_model])) for of_model in zip(*found)]
    resampled = [_mean_on_resamples([one.f1s for one in of_model]) for of_model in zip(*found)]
    return compare_numbers("mean F1", values, resampled, resamples, num_left_out)


def unit_threshold(rows: Sequence[PredictionRow], active_from: float) -> float:
    """Value from which a unit is active in the rows of one model: intensities (of baselines) or decisions (1 and 0)."""
    return active_from if _has_intensities(rows) else 0.5


def _has_intensities(rows: Sequence[PredictionRow]) -> bool:
    # Rows with an error have the truth of the dataset; the others of a language model have decisions.
    answered = (row for row in rows if row.error is None)
    return any(value not in (0.0, 1.0) for row in answered for value in (row.true_values or {}).values())


def _measure(measured: MeasuredRows) -> ActionUnitMetrics:
    return action_unit_metrics(
        measured.rows,
        threshold=unit_threshold(measured.rows, measured.settings.active_from),
        intensity_scale=FACS_INTENSITIES if _has_intensities(measured.rows) else None,
        group_by=measured.group_by,
    )


def _compare(before: MeasuredRows, after: MeasuredRows) -> NumbersComparison:
    first, second = (unit_threshold(one.rows, one.settings.active_from) for one in (before, after))
    return compare_action_units(before.rows, after.rows, thresholds=(first, second), group_by=before.group_by)


register_metric(
    Metric(
        "action_units",
        kinds=("action_units",),
        result=ActionUnitMetrics,
        less_is_better=frozenset({"num_errors"}),
        measure=_measure,
        headline=Headline("mean_f1", title="mean F1", counts=lambda result: most(result.units), compare=_compare),
    )
)
