"""The bootstrap: a metric on resamples of the rows, or of groups of rows.

Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979. Resamples are weights (how often each row is in a
resample), so a metric made of sums is one matrix product for all resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.results import Interval

NUM_RESAMPLES = 1000
LEVEL = 0.95
_WEIGHTS_AT_ONCE = 4_000_000  # limits the memory of an array to 32 MB
_WEIGHTS_IN_CACHE = 100_000  # 800 KB
_WEIGHTS_IN_PRODUCT = 400_000  # 3.2 MB; a product of fewer is slower, and one of more leaves the cache
_WEIGHTS_KEPT_AS_FLOATS = 2_500_000  # 20 MB
_WEIGHTS_KEPT = 32_000_000  # up to 32 MB of resamples are kept for the next metric, as bytes


class Resamples:
    """R resamples of N rows with replacement; the same seed gives the same resamples.

    With `groups_N`, the number of each row's group from 0, whole groups are drawn, because rows of one person are not
    independent.
    """

    def __init__(
        self,
        num_rows: int,
        groups_N: np.ndarray | None = None,
        *,
        num_resamples: int = NUM_RESAMPLES,
        seed: int = 0,
        level: float = LEVEL,
    ):
        if num_rows == 0:
            raise DataError("no values to compute an interval of")
        if num_resamples < 1 or not 0 < level < 1:
            raise ValueError("a bootstrap needs at least one resample and a level between 0 and 1")
        self.num_rows = num_rows
        self.num_units = num_rows if groups_N is None else int(groups_N.max()) + 1
        self._groups_N, self._num_resamples, self._seed, self._level = groups_N, num_resamples, seed, level

    def weights(self, at_once: int = _WEIGHTS_AT_ONCE) -> Iterator[np.ndarray]:
        """float64 [r, N], how often each row is in each resample, in parts of r until R are reached.

        A part has about `at_once` weights, and at least one resample.
        """
        key = self.num_units, max(self.num_units, self.num_rows), self._num_resamples, self._seed
        is_small = self._num_resamples * self.num_units <= _WEIGHTS_KEPT
        r = max(1, at_once // self.num_rows)
        for counts in _kept_draws(*key) if is_small else _draws(*key):
            for start in range(0, len(counts), r):
                weights = np.asarray(counts[start : start + r], dtype=np.float64)
                yield weights if self._groups_N is None else weights[:, self._groups_N]

    def sums(self, features_NF: np.ndarray) -> np.ndarray:
        """float64 [R, F], the sum of each feature over each resample."""
        # Each product copies the features, so the weights of many features are not divided further.
        parts = self.weights(max(_WEIGHTS_IN_PRODUCT, features_NF.size))
        return np.concatenate([weights @ features_NF for weights in parts])

    def means(self, features_NF: np.ndarray) -> np.ndarray:
        """float64 [R, F], the mean of each feature over each resample."""
        parts = self.weights(max(_WEIGHTS_IN_PRODUCT, features_NF.size))
        return np.concatenate([(w @ features_NF) / w.sum(axis=1, keepdims=True) for w in parts])

    def per_resample(self, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Join a function of weights [r, N] over all resamples; few at a time, so that they stay in the cache."""
        return np.concatenate([function(part) for part in self.weights(_WEIGHTS_IN_CACHE)])

    def interval(
        self, values_R: np.ndarray, value: float, value_range: tuple[float, float] | None = None
    ) -> Interval | None:
        """Percentile interval of a metric from its values on the resamples.

        Args:
            values_R: the metric on each resample; NaN if it is undefined.
            value_range: least and greatest value of a row, for metrics that are means over rows.

        Returns:
            the interval, or None if the metric is undefined on most resamples. If all resamples give the same value,
            the bootstrap interval would have no width. With a `value_range`, the exact binomial bound for an event
            that was never seen (Clopper and Pearson 1934) replaces it.
        """
        defined = values_R[np.isfinite(values_R)]
        if 2 * len(defined) < len(values_R):
            return None
        tail = (1 - self._level) / 2
        if value_range is not None and np.ptp(defined) < 1e-12:
            width = 1 - tail ** (1 / self.num_units)
            low, high = max(value_range[0], value - width), min(value_range[1], value + width)
        else:
            low, high = np.quantile(defined, [tail, 1 - tail])
        return Interval(low=float(low), high=float(high), level=self._level)

    def share_interval(self, values_R: np.ndarray, value: float) -> Interval:
        """As `interval`, for a metric in [0, 1] that is defined on every resample."""
        interval = self.interval(values_R, value, (0.0, 1.0))
        assert interval is not None
        return interval

    def mean_interval(self, values_N: np.ndarray, value_range: tuple[float, float] = (0.0, 1.0)) -> Interval:
        """As `interval`, for the mean of one value a row; `value_range` has the least and the greatest possible one."""
        return self.mean_intervals(values_N[:, None], value_range)[0]

    def mean_intervals(self, values_NF: np.ndarray, value_range: tuple[float, float] = (0.0, 1.0)) -> list[Interval]:
        """As `mean_interval`, for the mean of each column."""
        means_RF = self.means(values_NF)
        pairs = zip(means_RF.T, values_NF.T)
        found = [self.interval(means_R, float(values_N.mean()), value_range) for means_R, values_N in pairs]
        return [interval for interval in found if interval is not None]


def _draws(units: int, num_columns: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Whole numbers [r, units], how often each row or group is in each resample, in parts of r."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _WEIGHTS_AT_ONCE // num_columns)
    for start in range(0, num_resamples, at_once):
        r = min(at_once, num_resamples - start)
        drawn = generator.integers(units, size=(r, units)) + units * np.arange(r)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=r * units).reshape(r, units)
        yield counts.astype(np.uint8) if counts.max() < 256 else counts


@lru_cache(maxsize=4)
def _kept_draws(units: int, num_columns: int, num_resamples: int, seed: int) -> list[np.ndarray]:
    """The same; metrics and models have equally many rows, and share them. Few are kept as they are needed."""
    is_few = num_resamples * units <= _WEIGHTS_KEPT_AS_FLOATS
    return [part.astype(np.float64) if is_few else part for part in _draws(units, num_columns, num_resamples, seed)]


def bootstrap_interval(
    values_N: np.ndarray,
    *,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    value_range: tuple[float, float] = (0.0, 1.0),
    groups_N: np.ndarray | None = None,
) -> Interval:
    """Percentile bootstrap interval of the mean of one value a row, see `Resamples` and `Resamples.mean_interval`."""
    values_N = np.asarray(values_N, dtype=np.float64)
    resamples = Resamples(len(values_N), groups_N, num_resamples=num_resamples, seed=seed, level=level)
    return resamples.mean_interval(values_N, value_range)
