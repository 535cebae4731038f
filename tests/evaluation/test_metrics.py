"""Classification metrics.

Properties: values agree with scikit-learn, torchmetrics or a calculation by hand; an invalid answer counts as wrong and
has its own column; ties and the order of labels or rows have no effect; an interval is the same for the same seed, has
the right coverage and never zero width; errors name the bad row.
"""

from __future__ import annotations

import math
import time
from collections import Counter

import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as reference

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics import classification_metrics, compare_models
from lavis_emovit.evaluation.metrics.calibration import calibration, softmax
from lavis_emovit.evaluation.metrics.classification import top_k_shares
from lavis_emovit.evaluation.metrics.resampling import bootstrap_interval
from lavis_emovit.evaluation.metrics.rows import score_matrix
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.report.folder import read_folder

LABELS = ("amusement", "anger", "awe", "sadness")


def rows_of(pairs, scores=None) -> list[PredictionRow]:
    return [
        PredictionRow(
            instance_id=f"i{n}",
            record_id=f"r{n}",
            label=label,
            prediction=prediction,
            scores=None if scores is None else dict(zip(LABELS, map(float, scores[n]))),
        )
        for n, (label, prediction) in enumerate(pairs)
    ]


def random_rows(num_rows: int, seed: int = 0, invalid_share: float = 0.0) -> list[PredictionRow]:
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(num_rows, len(LABELS))) * 2
    true = generator.choice(len(LABELS), size=num_rows, p=[0.5, 0.2, 0.2, 0.1])
    scores[np.arange(num_rows), true] += 1.5
    predicted = [LABELS[c] for c in scores.argmax(axis=1)]
    pairs = [(LABELS[t], "danger" if generator.random() < invalid_share else p) for t, p in zip(true, predicted)]
    return rows_of(pairs, scores)


def test_example_counted_by_hand():
    rows = rows_of(
        [
            ("anger", "anger"),
            ("anger", "sadness"),
            ("awe", "awe"),
            ("awe", "danger"),
            ("awe", None),
            ("sadness", "sadness"),
        ]
    )
    result = classification_metrics(rows, LABELS)
    assert result.num_samples == 6
    assert result.num_invalid == 2
    assert result.accuracy == pytest.approx(3 / 6)
    assert result.balanced_accuracy == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)
    # F1: anger 2*1/(2+1), awe 2*1/(3+1), sadness 2*1/(1+2); amusement neither occurs nor is predicted.
    assert result.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)
    assert result.weighted_f1 == pytest.approx((2 * 2 / 3 + 3 * 1 / 2 + 1 * 2 / 3) / 6)
    assert result.chance == 0.25
    assert (result.majority_label, result.majority_baseline) == ("awe", 0.5)
    assert result.confusion == [[0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 1, 0, 2], [0, 0, 0, 1, 0]]
    amusement, anger, awe, sadness = result.per_class
    assert (amusement.precision, amusement.recall, amusement.f1, amusement.support) == (None, None, None, 0)
    assert (anger.precision, anger.recall, anger.support, anger.predicted) == (1.0, 0.5, 2, 1)
    assert (awe.precision, awe.recall, awe.support) == (1.0, pytest.approx(1 / 3), 3)
    assert (sadness.precision, sadness.recall, sadness.predicted) == (0.5, 1.0, 2)
    assert result.top_k is None
    assert result.calibration is None


@pytest.mark.parametrize("invalid_share", [0.0, 0.2])
def test_agrees_with_scikit_learn(invalid_share):
    rows = random_rows(500, invalid_share=invalid_share)
    true = [row.label for row in rows]
    predicted = [row.prediction for row in rows]
    result = classification_metrics(rows, LABELS)
    options = {"labels": list(LABELS), "zero_division": 0}
    assert result.accuracy == pytest.approx(reference.accuracy_score(true, predicted))
    assert result.balanced_accuracy == pytest.approx(
        reference.recall_score(true, predicted, average="macro", **options)
    )
    for average, value in (("macro", result.macro_f1), ("weighted", result.weighted_f1)):
        assert value == pytest.approx(reference.f1_score(true, predicted, average=average, **options))
    precision, recall, f1, support = reference.precision_recall_fscore_support(true, predicted, **options)
    assert [c.precision for c in result.per_class] == pytest.approx(list(precision))
    assert [c.recall for c in result.per_class] == pytest.approx(list(recall))
    assert [c.f1 for c in result.per_class] == pytest.approx(list(f1))
    assert [c.support for c in result.per_class] == list(support)
    expected = reference.confusion_matrix(true, predicted, labels=[*LABELS, "danger"])[:-1]
    assert result.confusion == expected.tolist()


def test_scores_agree_with_scikit_learn_and_torchmetrics():
    rows = random_rows(700, seed=3)
    scores = np.array([[row.scores[label] for label in LABELS] for row in rows])
    true = np.array([LABELS.index(row.label) for row in rows])
    result = classification_metrics(rows, LABELS, top_k=(1, 2, 3, 4, 9))
    assert set(result.top_k) == {1, 2, 3}
    for k, value in result.top_k.items():
        assert value == pytest.approx(reference.top_k_accuracy_score(true, scores, k=k, labels=range(4)))
    probabilities = special.softmax(scores, axis=1)
    assert softmax(scores) == pytest.approx(probabilities)
    # torchmetrics 1.9.0: multiclass_calibration_error(probabilities, true, num_classes=4, n_bins=15, norm="l1")
    assert result.calibration.ece == pytest.approx(0.2491631954908371)
    one_hot = np.eye(4)[true]
    assert result.calibration.brier == pytest.approx(
        sum(reference.brier_score_loss(one_hot[:, c], probabilities[:, c]) for c in range(4))
    )
    assert sum(b.count for b in result.calibration.bins) == 700


def test_calibration_counted_by_hand():
    # Two rows at confidence 0.9, one right; two at 0.6, both right: ECE = (|0.5 - 0.9| + |1 - 0.6|) / 2.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    result = calibration(probabilities, np.array([0, 1, 0, 1]))
    assert result.ece == pytest.approx(0.4)
    assert result.brier == pytest.approx((0.02 + 1.62 + 0.32 + 0.32) / 4)
    assert result.mean_confidence == pytest.approx(0.75)


def test_probability_of_one_belongs_to_the_last_bin():
    result = calibration(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 0]))
    assert result.bins[-1].count == 2
    assert result.ece == 0
    assert result.brier == 0


def test_huge_scores_do_not_overflow():
    probabilities = softmax(np.array([[-1e4, -1e4 - 1.0], [1e300, -1e300]]))
    assert probabilities[0] == pytest.approx([1 / (1 + math.exp(-1)), math.exp(-1) / (1 + math.exp(-1))])
    assert probabilities[1].tolist() == [1.0, 0.0]


def test_top_k_ties_count_as_a_random_draw():
    scores = np.array([[1.0, 1.0, 1.0, 1.0]])
    assert [top_k_shares(scores, np.array([c]), 1).item() for c in range(4)] == [0.25] * 4
    assert top_k_shares(scores, np.array([2]), 3).item() == 0.75
    assert top_k_shares(np.array([[3.0, 1.0, 1.0, 0.0]]), np.array([2]), 2).item() == 0.5
    with pytest.raises(ValueError, match="between 1 and the number of labels"):
        top_k_shares(scores, np.array([0]), 5)


def test_order_of_labels_and_rows_has_no_effect():
    rows = random_rows(300, seed=5, invalid_share=0.1)
    first = classification_metrics(rows, LABELS)
    second = classification_metrics(rows[::-1], LABELS[::-1])
    assert second.accuracy == first.accuracy
    assert second.macro_f1 == pytest.approx(first.macro_f1)
    assert second.top_k == pytest.approx(first.top_k)
    assert second.calibration.ece == pytest.approx(first.calibration.ece)
    assert {c.label: c.f1 for c in second.per_class} == pytest.approx({c.label: c.f1 for c in first.per_class})


def test_interval_agrees_with_the_normal_approximation_and_is_reproducible():
    values = np.array([1.0] * 800 + [0.0] * 200)
    interval = bootstrap_interval(values, num_resamples=4000, seed=1)
    half_width = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert interval.low == pytest.approx(0.8 - half_width, abs=0.003)
    assert interval.high == pytest.approx(0.8 + half_width, abs=0.003)
    assert interval == bootstrap_interval(values, num_resamples=4000, seed=1)
    assert interval != bootstrap_interval(values, num_resamples=4000, seed=2)


@pytest.mark.parametrize("num_right", [0, 20])
def test_interval_of_a_constant_is_the_exact_binomial_interval(num_right):
    interval = bootstrap_interval(np.array([float(num_right > 0)] * 20))
    expected = stats.binomtest(num_right, 20).proportion_ci(0.95, method="exact")
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_intervals_on_a_large_test_set_are_fast():
    rows = random_rows(17_716)
    start = time.process_time()
    classification_metrics(rows, LABELS, num_resamples=1000)
    assert time.process_time() - start < 5


def test_paired_difference():
    before = rows_of([("awe", "anger"), ("awe", "awe"), ("anger", "awe"), ("sadness", "awe")])
    after = rows_of([("awe", "awe"), ("awe", "awe"), ("anger", "anger"), ("sadness", "danger")])
    found = compare_models(before, after[::-1], LABELS)
    assert found.difference == 0.5
    assert found.interval.low <= 0.5 <= found.interval.high
    assert compare_models(after, before, LABELS).difference == -0.5
    same = compare_models(after, after, LABELS)
    assert same.difference == 0
    assert same.interval.low < 0 < same.interval.high


def test_paired_difference_refuses_different_instances():
    rows = rows_of([("awe", "awe"), ("anger", "awe")])
    with pytest.raises(DataError, match="instance 'i1' is in only one"):
        compare_models(rows, rows[:1], LABELS)
    with pytest.raises(DataError, match="'i0': labels 'awe' and 'anger'"):
        compare_models(rows[:1], rows_of([("anger", "awe")]), LABELS)
    with pytest.raises(DataError, match="empty"):
        compare_models([], [], LABELS)


def construct(**changes) -> PredictionRow:
    return PredictionRow.model_construct(**{**random_rows(1)[0].model_dump(), "instance_id": "bad-one", **changes})


GOOD_SCORES = dict.fromkeys(LABELS, -1.0)


@pytest.mark.parametrize(
    ("bad_row", "message"),
    [
        (construct(label="joy"), "label 'joy' is not in the label set"),
        (construct(label=None), "no true label"),
        (construct(scores=None), "has no scores"),
        (construct(scores={k: v for k, v in GOOD_SCORES.items() if k != "awe"}), "no score for 'awe'"),
        (construct(scores={**GOOD_SCORES, "joy": -1.0}), "score for 'joy', which is not a label"),
        (construct(scores={**GOOD_SCORES, "awe": math.nan}), "score of 'awe' is nan"),
        (construct(scores={**GOOD_SCORES, "awe": -math.inf}), "score of 'awe' is -inf"),
    ],
)
def test_error_names_the_bad_row(bad_row, message):
    with pytest.raises(DataError, match=message) as caught:
        classification_metrics([*random_rows(3), bad_row], LABELS)
    assert "prediction of instance 'bad-one'" in str(caught.value)


def test_empty_input_and_bad_label_sets_are_refused():
    with pytest.raises(DataError, match="list of rows is empty"):
        classification_metrics([], LABELS)
    with pytest.raises(DataError, match="label set is empty"):
        classification_metrics(random_rows(2), ())
    with pytest.raises(DataError, match="duplicate label"):
        classification_metrics(random_rows(2), ("awe", "awe"))
    with pytest.raises(DataError, match="no values"):
        bootstrap_interval(np.array([]))


def test_scores_of_one_label_are_refused_but_written_answers_are_measured(make_run):
    few = {"labels": ("joy",), "num_rows": 4, "num_images": 0, "validate": False, "stages": ("after",)}
    with pytest.raises(DataError, match="predictions of split 'test': 'joy' is the only label with scores"):
        read_folder(make_run("scored", **few))
    written = make_run("written", **few, with_scores=False)
    path = written / "predictions" / "test-after.jsonl"
    path.write_text(path.read_text().replace('"prediction": "joy"', '"prediction": null', 1))
    (result,) = read_folder(written).summary["benchmarks"]["test"]["results"]
    assert result["headline"]["value"] == 0.75


def test_confusion_and_scores_are_those_of_the_rows():
    rows = random_rows(60, invalid_share=0.2)
    counted = Counter((row.label, row.prediction if row.prediction in LABELS else None) for row in rows)
    expected = [[counted[label, prediction] for prediction in (*LABELS, None)] for label in LABELS]
    assert classification_metrics(rows, LABELS).confusion == expected
    assert score_matrix(rows, LABELS)[0].tolist() == [rows[0].scores[label] for label in LABELS]


def test_metrics_can_be_read_back_from_json():
    result = classification_metrics(random_rows(50), LABELS)
    assert type(result).model_validate_json(result.model_dump_json()) == result
