"""Levels, pairs, slices, sensitivity, and the properties of all metrics.

Properties: metrics on each resample are those of scikit-learn; rows of one group are resampled together; intervals have
the right coverage; McNemar's p value is the binomial sum; coarse levels use published hierarchies; slices and levels
add up to the whole; errors are not in any denominator and always counted; sensitivity is the ratio from its definition;
errors name what cannot be measured.
"""

from __future__ import annotations

import math
import unicodedata

import numpy as np
import pytest
from sklearn import metrics as reference

from lavis_emovit.emotion.labels import LABEL_SETS, coarser_label, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics import (
    classification_metrics,
    compare_models,
    hierarchy_metrics,
    sensitivity,
    slice_metrics,
)
from lavis_emovit.evaluation.metrics.comparison import mcnemar_exact
from lavis_emovit.evaluation.metrics.confusion import resampled_metrics
from lavis_emovit.evaluation.metrics.resampling import Resamples, bootstrap_interval
from lavis_emovit.evaluation.metrics.rows import resamples_of
from lavis_emovit.evaluation.metrics.sensitivity import accuracy_of_variants
from lavis_emovit.evaluation.predictions import PredictionRow

LABELS = ("amusement", "anger", "awe", "sadness")


def row(number: int, label: str | None, prediction: str | None, **changes) -> PredictionRow:
    return PredictionRow(
        instance_id=f"i{number:03d}", record_id=f"r{number // 2}", label=label, prediction=prediction, **changes
    )


def random_rows(num: int, accuracy: float = 0.6, seed: int = 0, labels=LABELS) -> list[PredictionRow]:
    generator = np.random.default_rng(seed)
    true = generator.choice(labels, size=num, p=np.arange(1, len(labels) + 1) / sum(range(1, len(labels) + 1)))
    other = generator.choice([*labels, "danger"], size=num)
    right = generator.random(num) < accuracy
    return [row(n, str(t), str(t if r else o)) for n, (t, o, r) in enumerate(zip(true, other, right))]


ERROR = row(990, "awe", None, error="the image is cut off")


# ---- Draws and intervals ---------------------------------------------------------------------------------------------


def test_metrics_on_every_resample_agree_with_scikit_learn():
    rows = random_rows(60)
    true = np.array([LABELS.index(r.label) for r in rows])
    predicted = np.array([LABELS.index(r.prediction) if r.prediction in LABELS else 4 for r in rows])
    resamples = Resamples(60, num_resamples=25, seed=3)
    found = resampled_metrics(true, predicted, 4, resamples)
    for r, weights in enumerate(np.concatenate(list(resamples.weights()))):
        picked = np.repeat(np.arange(60), weights.astype(int))
        x, y = true[picked], predicted[picked]
        seen = sorted({*x} | {*y[y < 4]})
        assert found["accuracy"][r] == pytest.approx(reference.accuracy_score(x, y))
        assert found["balanced_accuracy"][r] == pytest.approx(
            reference.recall_score(x, y, average="macro", labels=np.unique(x), zero_division=0)
        )
        for average in ("macro", "weighted"):
            expected = reference.f1_score(x, y, average=average, labels=seen, zero_division=0)
            assert found[f"{average}_f1"][r] == pytest.approx(expected)


def test_intervals_contain_their_values_and_cover_a_known_accuracy():
    covered = 0
    for seed in range(40):
        found = classification_metrics(random_rows(150, accuracy=0.7, seed=seed), LABELS, num_resamples=200)
        # A wrong draw hits the right label by chance once in five.
        covered += found.accuracy_interval.low <= 0.7 + 0.3 / 5 <= found.accuracy_interval.high
        for name in ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1"):
            interval = getattr(found, f"{name}_interval")
            assert interval.low < getattr(found, name) < interval.high
    assert 34 <= covered <= 40


def test_intervals_of_perfect_predictions_have_a_width():
    found = classification_metrics([row(n, "awe", "awe") for n in range(20)], LABELS)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1"):
        assert getattr(found, f"{name}_interval").low == pytest.approx(0.025 ** (1 / 20))


def test_resamples_are_the_same_whether_kept_or_drawn_again(monkeypatch):
    resamples = Resamples(50, num_resamples=30, seed=4)
    first, again = (np.concatenate(list(resamples.weights())) for _ in range(2))
    monkeypatch.setattr("lavis_emovit.evaluation.metrics.resampling._WEIGHTS_KEPT", 0)
    monkeypatch.setattr("lavis_emovit.evaluation.metrics.resampling._WEIGHTS_AT_ONCE", 150)
    in_pieces = list(Resamples(50, num_resamples=30, seed=4).weights())
    assert len(in_pieces) == 10
    assert (first == again).all()
    assert (first.sum(axis=1) == 50).all()
    assert (np.concatenate(in_pieces) == first).all()
    assert (first != np.concatenate(list(Resamples(50, num_resamples=30, seed=5).weights()))).any()


def test_groups_are_resampled_whole():
    groups = np.array([0, 0, 0, 1, 2, 2])
    for weights in Resamples(6, groups, num_resamples=50).weights():
        assert weights.shape == (50, 6)
        assert (weights[:, 0] == weights[:, 1]).all()
        assert (weights[:, 0] == weights[:, 2]).all()
        assert (weights[:, 4] == weights[:, 5]).all()
        assert (weights[:, [0, 3, 4]].sum(axis=1) == 3).all()
    one_group = bootstrap_interval(np.array([1.0, 0.0, 1.0]), groups_N=np.zeros(3, dtype=int))
    assert (one_group.low, one_group.high) == (0.0, 1.0)
    rows = [row(n, "awe", "awe" if n % 4 < 2 else "anger") for n in range(80)]
    named = [{"group": unicodedata.normalize(("NFC", "NFD")[n % 2], f"Zo\u00eb {n // 4}")} for n in range(80)]
    people = [one.model_copy(update={"slices": slices}) for one, slices in zip(rows, named)]
    assert resamples_of(people, "group").num_units == 20
    by_row, by_record = (
        classification_metrics(rows, LABELS, group_by=g).accuracy_interval for g in (None, "record_id")
    )
    # Both rows of a record are right or both are wrong, so there is half the evidence.
    assert (by_record.high - by_record.low) == pytest.approx(math.sqrt(2) * (by_row.high - by_row.low), rel=0.15)


# ---- Errors and invalid answers --------------------------------------------------------------------------------------


def test_errors_are_not_in_the_denominator_and_always_counted():
    rows = [row(0, "awe", "awe", status="ok"), row(1, "awe", None, status="refused"), row(2, "anger", "awe")]
    without, with_error = classification_metrics(rows, LABELS), classification_metrics([ERROR, *rows], LABELS)
    assert with_error == without.model_copy(update={"num_errors": 1})
    assert (without.num_samples, without.num_invalid, without.accuracy) == (3, 1, pytest.approx(1 / 3))
    assert without.accuracy_of_valid == 0.5
    assert without.statuses == {"ok": 1, "refused": 1}
    assert classification_metrics(rows[1:2], LABELS).accuracy_of_valid is None
    with pytest.raises(DataError, match=r"all 1 rows are errors.*the image is cut off"):
        classification_metrics([ERROR], LABELS)


# ---- Levels ----------------------------------------------------------------------------------------------------------


def test_webemo_levels_counted_by_hand():
    pairs = [
        ("rage", "rage"),  # right on every level
        ("rage", "envy"),  # anger, negative
        ("rage", "horror"),  # negative
        ("zest", "rage"),  # wrong
        ("zest", "love"),  # no label of the 25
        ("surprise", "confusion"),  # a prediction that is none of the six is wrong on that level
        ("lust", "surprise"),  # positive
        ("confusion", "rage"),  # negative; none of the six
    ]
    found = hierarchy_metrics([row(n, *pair) for n, pair in enumerate(pairs)], "webemo25", ("polarity2", "parrott6"))
    polarity, parrott, fine = found.levels
    assert [level.label_set for level in found.levels] == ["polarity2", "parrott6", "webemo25"]
    assert (polarity.num_samples, polarity.num_without_place, polarity.num_invalid) == (8, 0, 1)
    assert polarity.accuracy == pytest.approx(5 / 8)
    assert polarity.fine_accuracy_given_right == pytest.approx(1 / 5)
    assert polarity.balanced_accuracy == pytest.approx((4 / 4 + 1 / 4) / 2)
    assert (parrott.num_samples, parrott.num_without_place) == (7, 1)
    assert parrott.accuracy == pytest.approx(2 / 7)
    assert parrott.fine_accuracy_given_right == pytest.approx(1 / 2)
    assert (fine.accuracy, fine.fine_accuracy_given_right) == (pytest.approx(1 / 8), 1.0)
    for level in found.levels:
        assert level.accuracy_interval.low <= level.accuracy <= level.accuracy_interval.high


def test_finest_level_is_the_classification_and_coarser_levels_are_never_worse():
    labels = get_label_set("mikels8").labels
    rows = [*random_rows(200, labels=labels), ERROR]
    coarse, fine = hierarchy_metrics(rows, "mikels8").levels
    whole = classification_metrics(rows, labels)
    assert (fine.accuracy, fine.accuracy_interval) == (whole.accuracy, whole.accuracy_interval)
    assert coarse.accuracy * coarse.fine_accuracy_given_right == pytest.approx(fine.accuracy)
    assert coarse.accuracy > fine.accuracy


def test_hierarchies_do_not_contradict_each_other():
    for label in LABEL_SETS["webemo25"].labels:
        middle = coarser_label(label, "webemo25", "webemo7")
        assert coarser_label(label, "webemo25", "polarity2") == coarser_label(middle, "webemo7", "polarity2")
        assert coarser_label(label, "webemo25", "parrott6") == (middle if middle != "confusion" else None)


def test_levels_that_cannot_be_measured_are_refused():
    with pytest.raises(DataError, match="no hierarchy leads"):
        hierarchy_metrics([row(0, "awe", "awe")], "mikels8", ("parrott6",))
    with pytest.raises(DataError, match="no true label exists in 'polarity2'"):
        hierarchy_metrics([row(0, "surprise", "surprise")], "ekman6")


# ---- Pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(1, 9), (9, 1), (0, 6), (5, 5), (3, 8)])
def test_mcnemar_is_the_binomial_sum(before, after):
    total, least = before + after, min(before, after)
    tail = sum(math.comb(total, k) for k in range(least + 1)) / 2**total
    assert mcnemar_exact(before, after) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar_exact(0, 0) == 1.0


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "weighted_f1"])
def test_two_models_on_the_same_rows(metric):
    before = random_rows(120, accuracy=0.4, seed=1)
    after = [
        old.model_copy(update={"prediction": old.label if n % 3 else old.prediction}) for n, old in enumerate(before)
    ]
    found = compare_models(before, after[::-1], LABELS, metric=metric)
    alone = [getattr(classification_metrics(rows, LABELS), metric) for rows in (before, after)]
    assert (found.before, found.after) == (pytest.approx(alone[0]), pytest.approx(alone[1]))
    assert found.difference == pytest.approx(alone[1] - alone[0])
    assert found.interval.low < found.difference < found.interval.high
    assert found.interval.low > 0
    assert found.num_only_before == 0
    assert found.num_only_after == sum(a.prediction == a.label != b.prediction for a, b in zip(after, before))
    assert found.p_value == pytest.approx(2.0 ** (1 - found.num_only_after))
    if metric == "accuracy":
        differences = [(b.prediction == b.label) - (a.prediction == a.label) for a, b in zip(before, after)]
        interval = bootstrap_interval(np.array(differences), value_range=(-1.0, 1.0))
        assert found.difference == pytest.approx(np.mean(differences))
        assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high))


def test_pairs_with_an_error_on_either_side_are_skipped_and_counted():
    rows = random_rows(10)
    failed = rows[3].model_copy(update={"prediction": None, "error": "no image"})
    found = compare_models(rows, [*rows[:3], failed, *rows[4:]], LABELS)
    assert (found.num_pairs, found.num_left_out, found.difference, found.p_value) == (9, 1, 0.0, 1.0)
    assert found.interval.low < 0 < found.interval.high
    with pytest.raises(DataError, match="no instance was answered by both"):
        compare_models([failed], [rows[3]], LABELS)
    with pytest.raises(DataError, match=r"unknown metric 'f1'.*macro_f1"):
        compare_models(rows, rows, LABELS, metric="f1")
    with pytest.raises(DataError, match="is in only one of the two lists"):
        compare_models(rows, rows[1:], LABELS)


def test_repeated_instances_are_refused_by_name():
    rows = random_rows(8)
    with pytest.raises(DataError, match="1 instances have several rows in one list: 'i003'; keep one row for each"):
        compare_models([*rows, rows[3]], rows, LABELS)
    contrary = [one.model_copy(update={"prediction": "danger"}) for one in rows]
    names = "'i000', 'i001', 'i002', 'i003', 'i004', [.]{3};"
    with pytest.raises(ValueError, match=f"8 instances have several rows in one list: {names}"):
        compare_models(rows, [*rows, *contrary], LABELS)
    with pytest.raises(DataError, match="'i001', 'i000'; keep one row for each"):
        compare_models([rows[1], *rows[:2], *rows], rows, LABELS)


# ---- Slices and sensitivity ------------------------------------------------------------------------------------------


def test_slices_add_up_to_the_whole():
    rows = [
        old.model_copy(update={"slices": {"scene": f"s{n % 3}"} if n > 8 else None})
        for n, old in enumerate(random_rows(90))
    ]
    slices = slice_metrics([*rows, ERROR], "scene", lambda part: classification_metrics(part, LABELS, num_resamples=10))
    assert [one.value for one in slices] == ["s0", "s1", "s2", None]
    assert [one.num_samples for one in slices] == [27, 27, 27, 9]
    assert [one.is_small for one in slices] == [True] * 4
    assert slices[-1].num_errors == 1
    right = sum(one.metrics.accuracy * one.num_samples for one in slices)
    assert right == pytest.approx(90 * classification_metrics(rows, LABELS).accuracy)
    by_label = slice_metrics(rows, "label", len, small=20)
    assert {one.value: one.metrics for one in by_label} == {c: sum(r.label == c for r in rows) for c in LABELS}
    assert [one.is_small for one in by_label] == [one.num_samples < 20 for one in by_label]
    broken = ERROR.model_copy(update={"slices": {"scene": "s9"}})
    assert slice_metrics([*rows, broken], "scene", len)[3].metrics is None
    with pytest.raises(DataError, match=r"no row has a field 'person'.*available: scene, label"):
        slice_metrics(rows, "person", len)


def test_sensitivity_is_the_mean_of_the_ratios():
    found = sensitivity({"fi": {"a": 0.6, "b": 0.4}, "emoset": {"a": 0.8, "b": 0.8, "c": 0.8}})
    assert found.tasks["fi"].std == pytest.approx(0.1)
    assert found.tasks["fi"].ratio == pytest.approx(0.2)
    assert found.tasks["fi"].range == pytest.approx(0.2)
    assert found.sensitivity == pytest.approx((0.2 + 0) / 2)
    assert sensitivity({"fi": {"a": 0.0, "b": 0.0}}).sensitivity is None
    for scores, message in (
        ({}, "no task"),
        ({"fi": {"a": 0.5}}, "at least two"),
        ({"fi": {"a": 1, "b": math.nan}}, "nan"),
    ):
        with pytest.raises(DataError, match=message):
            sensitivity(scores)


def test_accuracy_of_variants_skips_errors_and_counts_invalid_answers_as_wrong():
    rows = [
        row(0, "awe", "awe", variant="w1"),
        row(1, "awe", None, variant="w1"),
        row(2, "awe", "awe", variant="w2"),
        ERROR.model_copy(update={"variant": "w2"}),
    ]
    assert accuracy_of_variants(rows) == {"w1": 0.5, "w2": 1.0}
    with pytest.raises(DataError, match="'i004' has no variant"):
        accuracy_of_variants([*rows, row(4, "awe", "awe")])
    with pytest.raises(DataError, match="all 1 rows of variant 'w2' are errors"):
        accuracy_of_variants([rows[0], rows[3]])
