"""Valence, arousal and action units.

Properties: CCC, PCC, RMSE and MAE agree with Lin's formula, SciPy and scikit-learn, also on a resample; ICC agrees with
the analysis of variance and the published table of Shrout and Fleiss; F1 agrees with scikit-learn; an invalid answer
counts as the worst answer, so refusing is never better; errors and rows without a true number are skipped and counted;
errors name what cannot be measured.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, precision_score, recall_score

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics import action_unit_metrics, dimensional_metrics
from lavis_emovit.evaluation.metrics.action_units import intraclass_correlation
from lavis_emovit.evaluation.metrics.dimensional import agreement_features, agreements
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.evaluation.predictions import PredictionRow

# Shrout and Fleiss 1979, table 2: six targets rated by four judges.
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


def lin(x: np.ndarray, y: np.ndarray) -> float:
    """Lin 1989, equation 2, with variances over n."""
    return 2 * ((x - x.mean()) * (y - y.mean())).mean() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def icc_by_anova(ratings: np.ndarray) -> float:
    """ICC(3,1) from the mean squares of a two-way layout, written out."""
    n, k = ratings.shape
    grand = ratings.mean()
    targets = k * ((ratings.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    total = ((ratings - grand) ** 2).sum()
    between_judges = n * ((ratings.mean(axis=0) - grand) ** 2).sum()
    residual = (total - targets * (n - 1) - between_judges) / ((n - 1) * (k - 1))
    return (targets - residual) / (targets + (k - 1) * residual)


def rows_of(true, predicted, **changes) -> list[PredictionRow]:
    return [
        PredictionRow(
            instance_id=f"i{n}",
            record_id=f"r{n}",
            label=None,
            prediction=None,
            true_values=known,
            values=values,
            **{key: value[n] for key, value in changes.items()},
        )
        for n, (known, values) in enumerate(zip(true, predicted))
    ]


def affect_rows(x: np.ndarray, y: np.ndarray, **changes) -> list[PredictionRow]:
    predicted = [{"valence": None if np.isnan(value) else float(value)} for value in y]
    return rows_of([{"valence": float(value)} for value in x], predicted, **changes)


@pytest.fixture
def affect():
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, size=80)
    return x, np.clip(0.7 * x + 0.2 + generator.normal(scale=0.3, size=80), -1, 1)


def test_agreement_follows_the_published_formulas(affect):
    x, y = affect
    found = dimensional_metrics(affect_rows(x, y), ("valence",)).dimensions["valence"]
    assert found.all.ccc == pytest.approx(lin(x, y))
    assert found.all.pcc == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found.all.rmse == pytest.approx(np.sqrt(np.mean((x - y) ** 2)))
    assert found.all.mae == pytest.approx(mean_absolute_error(x, y))
    assert found.all.sign_agreement == pytest.approx(np.mean(np.sign(x) == np.sign(y)))
    assert found.all == found.valid_only
    for name, interval in found.intervals.items():
        assert interval.low < getattr(found.all, name) < interval.high, name


def test_examples_of_lin():
    """Perfect agreement is 1, reversal is -1, a constant shift by d with variance v gives v / (v + d^2 / 2)."""
    x = np.array([-0.5, 0.0, 0.5, 1.0])

    def ccc(y):
        return dimensional_metrics(affect_rows(x, y), ("valence",)).dimensions["valence"].all.ccc

    assert ccc(x) == pytest.approx(1)
    assert ccc(2 * x.mean() - x) == pytest.approx(-1)
    assert ccc(x + 0.3) == pytest.approx(x.var() / (x.var() + 0.3**2 / 2))
    assert ccc(np.full(4, 0.2)) == 0


def test_resample_is_the_same_as_its_repeated_rows(affect):
    x, y = affect
    draws = np.concatenate(list(Resamples(80, num_resamples=20, seed=1).weights()))
    resampled = agreements(draws @ agreement_features(x, y))
    for r, weights in enumerate(draws.astype(int)):
        picked = np.repeat(np.arange(80), weights)
        assert resampled["ccc"][r] == pytest.approx(lin(x[picked], y[picked]))
        assert resampled["pcc"][r] == pytest.approx(stats.pearsonr(x[picked], y[picked]).statistic)


def test_an_invalid_answer_is_the_far_end_of_the_scale():
    rows = affect_rows(np.array([0.5, -0.25, 0.0]), np.array([np.nan, -0.25, np.nan]))
    found = dimensional_metrics(rows, ("valence",)).dimensions["valence"]
    assert (found.num_samples, found.num_invalid) == (3, 2)
    assert found.all.mae == pytest.approx((1.5 + 0 + 1) / 3)
    assert found.all.sign_agreement == pytest.approx(1 / 3)
    assert found.valid_only.mae == 0
    silent = [row.model_copy(update={"values": None}) for row in rows]
    assert dimensional_metrics(silent, ("valence",)).dimensions["valence"].valid_only is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=2, max_size=8),
    st.integers(0, 7),
)
def test_refusing_is_never_better_than_answering(pairs, refused):
    x, y = np.array(pairs).T
    without = y.copy()
    without[refused % len(y)] = np.nan
    answered, silent = (
        dimensional_metrics(affect_rows(x, predicted), ("valence",), num_resamples=2).dimensions["valence"].all
        for predicted in (y, without)
    )
    assert silent.rmse >= answered.rmse - 1e-12
    assert silent.mae >= answered.mae - 1e-12
    assert silent.sign_agreement <= answered.sign_agreement or x[refused % len(y)] == 0


def test_dimensions_errors_and_undefined_values():
    true = [{"valence": 0.1, "arousal": 0.2}, {"valence": 0.3}, {"valence": -0.4, "arousal": 0.6}]
    rows = rows_of(true, [{"valence": 0.1, "arousal": 0.1}, {"valence": 0.2}, {"valence": -0.1, "arousal": 0.5}])
    error = PredictionRow(instance_id="e", record_id="e", label=None, prediction=None, error="no image")
    found = dimensional_metrics([*rows, error])
    assert found.num_errors == 1
    assert [found.dimensions[name].num_samples for name in ("valence", "arousal")] == [3, 2]
    assert found.mean_ccc == pytest.approx(np.mean([d.all.ccc for d in found.dimensions.values()]))
    constant = dimensional_metrics(affect_rows(np.full(3, 0.5), np.full(3, 0.5)), ("valence",))
    assert (constant.mean_ccc, constant.mean_ccc_interval) == (None, None)
    assert constant.dimensions["valence"].all.pcc is None
    assert set(constant.dimensions["valence"].intervals) == {"rmse", "mae", "sign_agreement"}
    with pytest.raises(DataError, match="no row has a true 'dominance'"):
        dimensional_metrics(rows, ("dominance",))
    with pytest.raises(DataError, match=r"all 1 rows are errors.*no image"):
        dimensional_metrics([error])
    with pytest.raises(ValueError, match="lower end of a scale comes first"):
        dimensional_metrics(rows, scale=(1, -1))


def test_icc_agrees_with_shrout_and_fleiss():
    assert icc_by_anova(SHROUT_FLEISS) == pytest.approx(0.71, abs=0.005)
    for one, other in ((0, 1), (0, 3), (2, 3)):
        x, y = SHROUT_FLEISS[:, one], SHROUT_FLEISS[:, other]
        sums = np.array([[6, x.sum(), y.sum(), (x**2).sum(), (y**2).sum(), (x * y).sum()]])
        assert intraclass_correlation(sums)[0] == pytest.approx(icc_by_anova(np.column_stack([x, y])))


@pytest.fixture
def unit_rows():
    generator = np.random.default_rng(2)
    true = [{"AU6": float(a), "AU12": float(b)} for a, b in generator.integers(0, 6, size=(60, 2))]
    predicted = [{name: float(np.clip(v + generator.integers(-2, 3), 0, 5)) for name, v in row.items()} for row in true]
    return rows_of(true, predicted)


def test_units_agree_with_scikit_learn_and_the_analysis_of_variance(unit_rows):
    found = action_unit_metrics(unit_rows, threshold=2, intensity_scale=(0, 5))
    assert list(found.units) == ["AU6", "AU12"]
    for name, unit in found.units.items():
        true = np.array([row.true_values[name] for row in unit_rows])
        predicted = np.array([row.values[name] for row in unit_rows])
        assert unit.f1 == pytest.approx(f1_score(true >= 2, predicted >= 2))
        assert unit.precision == pytest.approx(precision_score(true >= 2, predicted >= 2))
        assert unit.recall == pytest.approx(recall_score(true >= 2, predicted >= 2))
        assert unit.accuracy == pytest.approx(accuracy_score(true >= 2, predicted >= 2))
        assert unit.icc == pytest.approx(icc_by_anova(np.column_stack([true, predicted])))
        assert unit.f1_interval.low < unit.f1 < unit.f1_interval.high
        assert unit.icc_interval.low < unit.icc < unit.icc_interval.high
    assert found.mean_f1 == pytest.approx(np.mean([unit.f1 for unit in found.units.values()]))
    assert found.mean_icc == pytest.approx(np.mean([unit.icc for unit in found.units.values()]))
    assert found.mean_f1_interval.low < found.mean_f1 < found.mean_f1_interval.high


def test_units_counted_by_hand_with_invalid_answers_as_wrong():
    true = [{"AU1": 1, "AU2": 0}, {"AU1": 1, "AU2": 0}, {"AU1": 0, "AU2": 0}, {"AU1": 0}]
    rows = rows_of(true, [{"AU1": 1, "AU2": 0}, {"AU1": None, "AU2": 0}, {"AU1": None, "AU2": 0}, None])
    found = action_unit_metrics(rows)
    one, two = found.units["AU1"], found.units["AU2"]
    # A hit, a miss, and two false alarms.
    assert (one.num_samples, one.num_invalid, one.support, one.predicted) == (4, 3, 2, 3)
    assert one.f1 == pytest.approx(2 * 1 / (2 + 3))
    assert one.accuracy == 0.25
    # Never active and never predicted: no F1, so the mean ignores it.
    assert (two.num_samples, two.f1, two.precision, two.recall, two.accuracy) == (3, None, None, None, 1.0)
    assert (found.mean_f1, found.num_f1) == (one.f1, 1)
    assert (found.mean_icc, found.num_icc) == (None, 0)
    assert found.mean_accuracy == pytest.approx((0.25 + 1) / 2)


def test_units_that_cannot_be_measured_are_refused():
    rows = rows_of([{"valence": 0.1}], [None])
    with pytest.raises(DataError, match="no row has a true value for an action unit"):
        action_unit_metrics(rows)
    with pytest.raises(DataError, match="no row has a true value for 'AU12'"):
        action_unit_metrics(rows, ["AU12"])


def test_people_are_resampled_if_rows_name_them(affect):
    x, y = affect
    repeated = [np.repeat(values[:20], 4) for values in (x, y)]
    people = [{"person": f"p{n // 4}"} for n in range(80)]
    rows = affect_rows(*repeated, slices=people)
    width = {}
    for group in (None, "person"):
        interval = dimensional_metrics(rows, ("valence",), group_by=group).dimensions["valence"].intervals["mae"]
        width[group] = interval.high - interval.low
    # Four copies of a row add no information: the interval is that of 20 rows, twice as wide as that of 80.
    assert width["person"] == pytest.approx(2 * width[None], rel=0.25)
    alone = dimensional_metrics(affect_rows(x[:20], y[:20]), ("valence",)).dimensions["valence"].intervals["mae"]
    assert width["person"] == pytest.approx(alone.high - alone.low)
    with pytest.raises(DataError, match=r"has no 'face'.*its slices: person"):
        dimensional_metrics(rows, ("valence",), group_by="face")
