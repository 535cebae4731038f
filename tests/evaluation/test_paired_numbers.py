"""Paired comparisons of numbers.

Properties: the difference of mean CCC and its interval follow Lin's formula on the same resamples; two equal models
have no difference on any resample, although each has a wide interval; errors are skipped by pair; intensities and
decisions about the same units can be compared; errors name what cannot be compared.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics import dimensional_metrics
from lavis_emovit.evaluation.metrics.action_units import compare_action_units
from lavis_emovit.evaluation.metrics.dimensional import compare_dimensional
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.evaluation.predictions import PredictionRow


def lin(x: np.ndarray, y: np.ndarray) -> float:
    return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def rows_of(true: np.ndarray, predicted: np.ndarray) -> list[PredictionRow]:
    """One row for each image, columns valence and arousal."""
    return [
        PredictionRow(
            instance_id=f"i{n:03d}",
            record_id=f"i{n:03d}",
            label=None,
            prediction=None,
            true_values=dict(zip(("valence", "arousal"), true[n].tolist())),
            values=dict(zip(("valence", "arousal"), predicted[n].tolist())),
        )
        for n in range(len(true))
    ]


@pytest.fixture
def numbers():
    generator = np.random.default_rng(3)
    true = generator.uniform(-1, 1, size=(60, 2))
    first = np.clip(true + generator.normal(scale=0.6, size=true.shape), -1, 1)
    second = np.clip(true + generator.normal(scale=0.2, size=true.shape), -1, 1)
    return true, first, second


def test_difference_of_mean_ccc_follows_the_formula_on_the_same_resamples(numbers):
    true, first, second = numbers
    found = compare_dimensional(rows_of(true, first), rows_of(true, second)[::-1], num_resamples=50)

    def mean_ccc(predicted, picked):
        return np.mean([lin(true[picked, axis], predicted[picked, axis]) for axis in (0, 1)])

    everything = np.arange(len(true))
    assert found.before == pytest.approx(mean_ccc(first, everything))
    assert found.difference == pytest.approx(mean_ccc(second, everything) - mean_ccc(first, everything))
    draws = []
    for weights in np.concatenate(list(Resamples(len(true), num_resamples=50).weights())):
        picked = np.repeat(everything, weights.astype(int))
        draws.append(mean_ccc(second, picked) - mean_ccc(first, picked))
    assert [found.interval.low, found.interval.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]))
    assert found.interval.low > 0


def test_equal_models_have_no_difference(numbers):
    true, first, _ = numbers
    found = compare_dimensional(rows_of(true, first), rows_of(true, first))
    assert (found.difference, found.interval.low, found.interval.high) == (0, 0, 0)
    alone = dimensional_metrics(rows_of(true, first)).mean_ccc_interval
    assert alone.high - alone.low > 0.1


def test_errors_are_skipped_by_pair_and_incomparable_rows_are_refused(numbers):
    true, first, second = numbers
    before, after = rows_of(true, first), rows_of(true, second)
    before[4] = before[4].model_copy(update={"values": None, "error": "no image"})
    found = compare_dimensional(before, after)
    assert (found.num_pairs, found.num_left_out) == (59, 1)
    with pytest.raises(DataError, match="'i059' is in only one of the two lists"):
        compare_dimensional(before, after[:-1])
    with pytest.raises(DataError, match="answered by both models; 1 failed"):
        compare_dimensional(before[4:5], after[4:5])
    with pytest.raises(DataError, match="no row has a true 'power'"):
        compare_dimensional(before, after, ("power",))
    constant = rows_of(np.zeros_like(true), np.zeros_like(true))
    with pytest.raises(DataError, match="mean CCC of one model is undefined"):
        compare_dimensional(constant, constant)


def test_intensities_and_decisions_about_units_can_be_compared():
    generator = np.random.default_rng(5)
    levels = generator.integers(0, 6, size=(80, 2)).astype(float)
    said_levels = np.clip(levels + generator.integers(-3, 4, size=levels.shape), 0, 5)
    said_flags = np.where(generator.random(levels.shape) < 0.9, levels >= 2, levels < 2).astype(float)

    def rows(true, predicted):
        names = ("AU4", "AU12")
        return [
            PredictionRow(
                instance_id=str(n),
                record_id=str(n),
                label=None,
                prediction=None,
                true_values=dict(zip(names, true[n].tolist())),
                values=dict(zip(names, predicted[n].tolist())),
            )
            for n in range(len(true))
        ]

    found = compare_action_units(
        rows(levels, said_levels), rows((levels >= 2).astype(float), said_flags), thresholds=(2.0, 0.5)
    )
    truth = levels >= 2
    assert found.before == pytest.approx(np.mean([f1_score(truth[:, u], said_levels[:, u] >= 2) for u in (0, 1)]))
    assert found.after == pytest.approx(np.mean([f1_score(truth[:, u], said_flags[:, u] > 0) for u in (0, 1)]))
    assert found.interval.low <= found.difference <= found.interval.high
