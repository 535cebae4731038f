"""Valence, arousal and other numbers: how near the model's numbers come to the true ones, and how well they move along.

An invalid answer stays in the denominator as the worst answer that could have been given: the end of the scale that is
farther from the truth. So an answer without a usable number is never better than one with a number on the scale. What
the valid answers alone would give stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.resampling import NUM_RESAMPLES, Resamples
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import group_indices, value_arrays, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow


class AgreementOfNumbers(Result):
    """Said and true numbers. `ccc` and `pcc` are None where a constant leaves them undefined."""

    ccc: float | None
    pcc: float | None
    rmse: float
    mae: float
    sign_agreement: float


class DimensionMetrics(Result):
    """One dimension.

    Attributes:
        num_samples: answered rows that know the true number; everything is over these.
        num_invalid: those without a usable answer, counted as the far end of the scale.
        all, valid_only: the metrics over all of them, and over the valid answers alone (None where there are none).
        intervals: metric -> its interval over all of them; a metric that most draws leave undefined is missing.
    """

    name: str
    num_samples: int
    num_invalid: int
    all: AgreementOfNumbers
    valid_only: AgreementOfNumbers | None
    intervals: dict[str, Interval]


class DimensionalMetrics(Result):
    """All dimensions; `mean_ccc` is their unweighted mean, None where one is undefined."""

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
    seed: int = 0,
    group_by: str | None = None,
) -> DimensionalMetrics:
    """Agreement of `values` with `true_values`.

    Args:
        rows: predictions; a row without the true number of a dimension is no part of that dimension.
        names: the dimensions, keys of the rows' `true_values`.
        scale: both ends of the scale that the numbers are on; an invalid answer counts as the farther one.
        num_resamples, seed, group_by: of the intervals, as in `classification_metrics`.

    Raises:
        DataError: no answered rows, a dimension that no row knows, or a row without its group.
    """
    answered = without_errors(rows)
    groups_N = group_indices(answered, group_by)
    resamples = Resamples(len(answered), groups_N, num_resamples=num_resamples, seed=seed)
    dimensions: dict[str, DimensionMetrics] = {}
    mean_ccc_R = np.zeros(num_resamples)
    for name in names:
        known, true_M, said_M = value_arrays(answered, name)
        if not known:
            raise DataError(f"no row knows the true '{name}', so it cannot be measured (true_values has no such key)")
        is_valid_M = np.isfinite(said_M)
        filled_M = np.where(is_valid_M, said_M, farther_end(true_M, scale))
        # Rows that do not know the dimension take part in the draws with nothing in them.
        features_NF = np.zeros((len(answered), NUM_FEATURES))
        features_NF[known] = agreement_features(true_M, filled_M)
        resampled = agreements(resamples.sums(features_NF))
        over_all = _agreement(true_M, filled_M)
        whole = {key: value for key, value in over_all.model_dump().items() if value is not None}
        found = {key: resamples.interval(resampled[key], value) for key, value in whole.items()}
        dimensions[name] = DimensionMetrics(
            name=name,
            num_samples=len(known),
            num_invalid=int((~is_valid_M).sum()),
            all=over_all,
            valid_only=_agreement(true_M[is_valid_M], said_M[is_valid_M]) if is_valid_M.any() else None,
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


def farther_end(true_M: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """float64 [M], the end of the scale that lies farther from each true number; the lower one from the very middle."""
    low, high = scale
    if not low < high:
        raise ValueError(f"a scale runs from its lower to its higher end, got {scale}")
    return np.where(true_M >= (low + high) / 2, low, high).astype(np.float64)


# 1, x, y, x^2, y^2, x y, |x - y|, and whether the signs agree.
NUM_FEATURES = 8


def agreement_features(true_M: np.ndarray, said_M: np.ndarray) -> np.ndarray:
    """float64 [M, 8], what `agreements` needs the sums of."""
    same_sign_M = np.sign(true_M) == np.sign(said_M)
    columns = (
        np.ones_like(true_M), true_M, said_M, true_M**2, said_M**2, true_M * said_M, abs(true_M - said_M), same_sign_M,
    )  # fmt: skip
    return np.column_stack(columns)


def agreements(sums_RF: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of many draws at once, from the sums of `agreement_features`.

    CCC = 2 s_xy / (s_x^2 + s_y^2 + (m_x - m_y)^2), with variances over n (Lin 1989, "A Concordance Correlation
    Coefficient to Evaluate Reproducibility"); PCC = s_xy / (s_x s_y); RMSE and MAE in units of the scale; sign
    agreement is the share of numbers on the same side of zero, zero being a side itself (SAGR, Nicolaou et al. 2011).

    Returns:
        name -> float64 [R]; NaN for an empty draw, for a PCC with a constant, for a CCC with two equal constants.
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


def _agreement(true_M: np.ndarray, said_M: np.ndarray) -> AgreementOfNumbers:
    found = agreements(agreement_features(true_M, said_M).sum(axis=0)[None])
    values = {name: float(value[0]) for name, value in found.items()}
    return AgreementOfNumbers.model_validate({k: value if np.isfinite(value) else None for k, value in values.items()})


def _zero_if_tiny(variance: np.ndarray, square: np.ndarray) -> np.ndarray:
    return np.where(variance <= 1e-12 * np.maximum(square, 1e-300), 0.0, variance)
