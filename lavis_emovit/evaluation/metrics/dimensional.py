"""Valence, arousal and other numbers: how well the predicted numbers agree with the true ones.

An invalid answer counts as the worst possible one: the end of the scale that is farther from the truth. So an answer
without a usable number is never better than one with a number on the scale. Metrics of valid answers are also given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmarks import Axis
from lavis_emovit.evaluation.metrics.comparison import NumbersComparison, answered_by_both, compare_numbers
from lavis_emovit.evaluation.metrics.registry import Headline, Metric, register_metric
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import resamples_of, value_arrays, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow


class AgreementOfNumbers(Result):
    """Predicted against true numbers. `ccc`, `pcc` and `spearman` are None if constants leave them undefined."""

    ccc: float | None
    pcc: float | None
    spearman: float | None = None
    rmse: float
    mae: float
    sign_agreement: float


class DimensionMetrics(Result):
    """One dimension, over the `num_samples` answered rows with a true number.

    Attributes:
        all, valid_only: the metrics over all of them, and over valid answers only (None if there are none).
        intervals: metric -> its interval over all of them; metrics that are undefined on most resamples are missing.
    """

    name: str
    num_samples: int
    num_invalid: int
    all: AgreementOfNumbers
    valid_only: AgreementOfNumbers | None
    intervals: dict[str, Interval]


class DimensionalMetrics(Result):
    """All dimensions; `mean_ccc` is their unweighted mean, None if one is undefined."""

    scale: tuple[float, float]
    num_errors: int
    dimensions: dict[str, DimensionMetrics]
    mean_ccc: float | None
    mean_ccc_interval: Interval | None


def dimensional_metrics(
    rows: Sequence[PredictionRow],
    names: Sequence[str] = ("valence", "arousal"),
    *,
    scale: tuple[float, float] = (-1.0, 1.0),
    num_resamples: int = NUM_RESAMPLES,
    group_by: str | None = None,
) -> DimensionalMetrics:
    """Agreement of `values` with `true_values`.

    Args:
        rows: a row without the true number of a dimension is skipped there.
        names: the dimensions, keys of the rows' `true_values`.
        scale: both ends; an invalid answer counts as the farther one.
        num_resamples, group_by: as in `classification_metrics`.

    Raises:
        DataError: no answered rows, a dimension without a true number in any row, or a row without its group.
    """
    answered = without_errors(rows)
    resamples = resamples_of(answered, group_by, num_resamples)
    dimensions: dict[str, DimensionMetrics] = {}
    mean_ccc_R = np.zeros(num_resamples)
    for name in names:
        known, true_M, predicted_M = value_arrays(answered, name)
        features_NF = features_of(answered, name, scale)
        is_valid_M = np.isfinite(predicted_M)
        resampled = agreements(resamples.sums(features_NF))
        ranks_NF = np.zeros_like(features_NF)
        ranks_NF[known] = agreement_features(average_ranks(true_M), average_ranks(features_NF[known, 2]))
        # The ranks are those of all rows: to rank each resample would take many times as long.
        resampled["spearman"] = agreements(resamples.sums(ranks_NF))["pcc"]
        over_all = _agreement(true_M, features_NF[known, 2])
        whole = over_all.model_dump(exclude_none=True)
        found = {key: resamples.interval(resampled[key], value) for key, value in whole.items()}
        dimensions[name] = DimensionMetrics(
            name=name,
            num_samples=len(known),
            num_invalid=int((~is_valid_M).sum()),
            all=over_all,
            valid_only=_agreement(true_M[is_valid_M], predicted_M[is_valid_M]) if is_valid_M.any() else None,
            intervals={key: interval for key, interval in found.items() if interval is not None},
        )
        mean_ccc_R += resampled["ccc"] / len(names)
    cccs = [dimension.all.ccc for dimension in dimensions.values() if dimension.all.ccc is not None]
    mean_ccc = float(np.mean(cccs)) if len(cccs) == len(names) else None
    return DimensionalMetrics(
        scale=scale,
        num_errors=len(rows) - len(answered),
        dimensions=dimensions,
        mean_ccc=mean_ccc,
        mean_ccc_interval=None if mean_ccc is None else resamples.interval(mean_ccc_R, mean_ccc),
    )


def compare_dimensional(
    before: Sequence[PredictionRow],
    after: Sequence[PredictionRow],
    names: Sequence[str] = ("valence", "arousal"),
    *,
    scale: tuple[float, float] = (-1.0, 1.0),
    num_resamples: int = NUM_RESAMPLES,
    group_by: str | None = None,
) -> NumbersComparison:
    """Compare the mean CCC of two models; arguments and errors as in `compare_models` and `dimensional_metrics`."""
    firsts, seconds, num_left_out = answered_by_both(before, after)
    resamples = resamples_of(firsts, group_by, num_resamples)
    values, resampled = [], []
    for rows in (firsts, seconds):
        value, value_R = 0.0, np.zeros(num_resamples)
        for name in names:
            features_NF = features_of(rows, name, scale)
            value += float(agreements(features_NF.sum(axis=0)[None])["ccc"][0]) / len(names)
            value_R += agreements(resamples.sums(features_NF))["ccc"] / len(names)
        values.append(value)
        resampled.append(value_R)
    return compare_numbers("mean CCC", values, resampled, resamples, num_left_out)


def farther_end(true_M: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """float64 [M], the end of the scale that is farther from each true number; the lower one for the exact middle."""
    low, high = scale
    if not low < high:
        raise ValueError(f"the lower end of a scale comes first, got {scale}")
    return np.where(true_M >= (low + high) / 2, low, high).astype(np.float64)


def filled_in(true_M: np.ndarray, predicted_M: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """float64 [M], the predicted numbers, with the farther end of the scale in place of invalid ones."""
    return np.where(np.isfinite(predicted_M), predicted_M, farther_end(true_M, scale))


def agreement_features(true_M: np.ndarray, predicted_M: np.ndarray) -> np.ndarray:
    """float64 [M, 8], whose sums `agreements` takes: 1, x, y, x^2, y^2, x y, |x - y|, whether the signs agree."""
    x, y = true_M, predicted_M
    return np.column_stack([np.ones_like(x), x, y, x**2, y**2, x * y, abs(x - y), np.sign(x) == np.sign(y)])


def agreements(sums_RF: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of R resamples, from the sums of `agreement_features`.

    CCC = 2 s_xy / (s_x^2 + s_y^2 + (m_x - m_y)^2), with variances over n (Lin 1989, "A Concordance Correlation
    Coefficient to Evaluate Reproducibility"); PCC = s_xy / (s_x s_y); RMSE and MAE in units of the scale; sign
    agreement is the share of numbers on the same side of zero, zero being a side itself (SAGR, Nicolaou et al. 2011).

    Returns:
        name -> float64 [R]; NaN for an empty resample, for a PCC of a constant, for a CCC of two equal constants.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y, square_x, square_y, product, distance, same_sign = (sums_RF[:, 1:] / sums_RF[:, :1]).T
        # Rounding can leave a constant with a variance of about 1e-17.
        variance_x = _zero_if_tiny(square_x - mean_x**2, square_x)
        variance_y = _zero_if_tiny(square_y - mean_y**2, square_y)
        covariance = np.where((variance_x == 0) | (variance_y == 0), 0.0, product - mean_x * mean_y)
        return {
            "ccc": 2 * covariance / (variance_x + variance_y + (mean_x - mean_y) ** 2),
            "pcc": np.clip(covariance / np.sqrt(variance_x * variance_y), -1, 1),
            "rmse": np.sqrt(np.clip(square_x - 2 * product + square_y, 0, None)),
            "mae": distance,
            "sign_agreement": same_sign,
        }


def features_of(rows: Sequence[PredictionRow], name: str, scale: tuple[float, float]) -> np.ndarray:
    """float64 [N, 8], the features of the rows with a true number, invalid answers filled in; zeros for other rows."""
    known, true_M, predicted_M = value_arrays(rows, name)
    if not known:
        raise DataError(f"no row has a true '{name}', so it cannot be measured (true_values has no such key)")
    features_MF = agreement_features(true_M, filled_in(true_M, predicted_M, scale))
    features_NF = np.zeros((len(rows), features_MF.shape[1]))
    features_NF[known] = features_MF
    return features_NF


def average_ranks(values_M: np.ndarray) -> np.ndarray:
    """float64 [M], the ranks from 1; equal values have the mean of their ranks."""
    _, place_M, counts = np.unique(values_M, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place_M]


def _agreement(true_M: np.ndarray, predicted_M: np.ndarray) -> AgreementOfNumbers:
    found = agreements(agreement_features(true_M, predicted_M).sum(axis=0)[None])
    ranks = agreement_features(average_ranks(true_M), average_ranks(predicted_M))
    found["spearman"] = agreements(ranks.sum(axis=0)[None])["pcc"]
    values = {name: float(value[0]) if np.isfinite(value[0]) else None for name, value in found.items()}
    return AgreementOfNumbers.model_validate(values)


def _zero_if_tiny(variance: np.ndarray, square: np.ndarray) -> np.ndarray:
    return np.where(variance <= 1e-12 * np.maximum(square, 1e-300), 0.0, variance)


def most(parts: Mapping[str, Any]) -> tuple[int, int]:
    """The largest `num_samples` and the largest `num_invalid` of the parts of a result, for a headline."""
    return max(one.num_samples for one in parts.values()), max(one.num_invalid for one in parts.values())


register_metric(
    Metric(
        "affect",
        kinds=("valence_arousal",),
        result=DimensionalMetrics,
        keys={"dimensions": get_args(Axis)},
        less_is_better=frozenset({"rmse", "mae", "num_invalid", "num_errors"}),
        measure=lambda measured: dimensional_metrics(measured.rows, measured.settings.axes, group_by=measured.group_by),
        headline=Headline(
            "mean_ccc",
            title="mean CCC",
            counts=lambda result: most(result.dimensions),
            compare=lambda before, after: compare_dimensional(
                before.rows, after.rows, before.settings.axes, group_by=before.group_by
            ),
        ),
    )
)
