"""Numbers in the conventions of papers, against scikit-learn and counts by hand.

- Average precision of each label equals scikit-learn's, with ties and on weighted rows; a label that no image has is
  left out of the mean, and its number of labels is given.
- Macro F1 over present labels, micro F1 of action units and the binary Brier score equal scikit-learn's.
- Benchmarks of several labels ask once for all labels and keep the log-softmax; their truth is the record's list.
- AffectNet's images of contempt have no place among seven expressions.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score

from lavis_emovit.emotion.labels import coarser_label, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.adapters.constant import ConstantBaseline, ConstantSettings
from lavis_emovit.evaluation.adapters.probe import Encoder, ProbeBaseline
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.metrics import action_unit_metrics, classification_metrics
from lavis_emovit.evaluation.metrics.label_ranking import (
    average_precisions,
    compare_label_rankings,
    label_ranking_metrics,
)
from lavis_emovit.evaluation.predictions import PredictionRow, decode_row, encode_row
from lavis_emovit.evaluation.suite.requests import BatchRequests, Prepared
from lavis_emovit.evaluation.truths import truth_of
from lavis_emovit.records import EmotionRecord

EMOTIC = get_label_set("emotic26")
SEVERAL = BenchmarkSettings(dataset="emotic", kind="labels")


def _ranked_rows(num=120, labels=("a", "b", "c", "never"), seed=0, ties=True):
    generator = np.random.default_rng(seed)
    true = generator.random((num, len(labels))) < (0.5, 0.2, 0.05, 0.0)
    scores = generator.normal(size=true.shape) + true
    scores = scores.round(1) if ties else scores
    rows = [
        PredictionRow(
            instance_id=str(n), record_id=str(n), label=None, prediction=labels[int(scores[n].argmax())],
            scores=dict(zip(labels, scores[n].tolist())), labels=tuple(np.array(labels)[true[n]]),
        )
        for n in range(num)
    ]  # fmt: skip
    return rows, true, scores


@pytest.mark.parametrize("ties", [True, False])
def test_average_precision_is_that_of_scikit_learn(ties):
    rows, true, scores = _ranked_rows(ties=ties)
    found = label_ranking_metrics(rows, ("a", "b", "c", "never"))
    expected = [average_precision_score(true[:, c], scores[:, c]) for c in range(3)]
    assert [found.labels[label].ap for label in "abc"] == pytest.approx(expected)
    # scikit-learn gives 0, with a warning, for a label without an image; here it does not count.
    assert found.labels["never"].ap is None and found.labels["never"].support == 0
    assert found.num_ap == 3 and found.mean_ap == pytest.approx(np.mean(expected))
    macro = average_precision_score(true[:, :3], scores[:, :3], average="macro")
    assert found.mean_ap == pytest.approx(macro)
    assert found.chance == pytest.approx(true[:, :3].mean())
    assert found.mean_ap_interval.low < found.mean_ap < found.mean_ap_interval.high
    assert [found.labels[label].support for label in "abc"] == true[:, :3].sum(axis=0).tolist()


def test_average_precision_counted_by_hand():
    # Ranked yes, no, yes: (1/1 + 2/3) / 2. All equal: the share of images, whatever their order.
    true = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    scores = np.array([[3.0, 0.5], [2.0, 0.5], [1.0, 0.5]])
    assert average_precisions(true, scores, np.ones((1, 3)))[0] == pytest.approx([5 / 6, 1 / 3])


def test_weighted_rows_are_repeated_rows():
    _, true, scores = _ranked_rows(num=40)
    weights = np.random.default_rng(1).integers(0, 3, size=(5, 40))
    found = average_precisions(true.astype(float), scores, weights.astype(float))
    for number, counts in enumerate(weights):
        again = np.repeat(np.arange(40), counts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            for c in range(3):
                if true[again, c].any():
                    expected = average_precision_score(true[again, c], scores[again, c])
                    assert found[number, c] == pytest.approx(expected)
                else:
                    assert np.isnan(found[number, c])


def test_rankings_of_two_models_are_compared_on_the_same_images():
    rows, _, _ = _ranked_rows()
    better = [
        row.model_copy(update={"scores": {label: float(label in row.labels) for label in row.scores}}) for row in rows
    ]
    found = compare_label_rankings(rows, better, ("a", "b", "c", "never"))
    assert found.metric == "mean AP" and found.after == pytest.approx(1) and found.num_pairs == 120
    assert found.difference == pytest.approx(1 - found.before) and found.interval.low > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "prediction of instance '7' has no true labels"),
        ({"labels": ("joy",)}, "instance '7': label 'joy' is not in the label set"),
        ({"scores": None}, "instance '7' has no scores"),
    ],
)
def test_rows_that_cannot_be_ranked_are_refused_by_name(change, message):
    rows, _, _ = _ranked_rows(num=20)
    rows[7] = rows[7].model_copy(update=change)
    with pytest.raises(DataError, match=message):
        label_ranking_metrics(rows, ("a", "b", "c", "never"))
    none = [row.model_copy(update={"labels": ()}) for row in rows if row.scores]
    with pytest.raises(DataError, match="no row has any label of the set"):
        label_ranking_metrics(none, ("a", "b", "c", "never"))


def test_macro_f1_of_present_labels_is_that_of_scikit_learn():
    generator = np.random.default_rng(2)
    labels = ("a", "b", "c", "d")
    true, predicted = generator.integers(3, size=200), generator.integers(4, size=200)  # d is predicted, never true
    rows = [
        PredictionRow(instance_id=str(n), record_id=str(n), label=labels[t], prediction=labels[p])
        for n, (t, p) in enumerate(zip(true, predicted))
    ]
    found = classification_metrics(rows, labels)
    assert found.macro_f1_present == pytest.approx(f1_score(true, predicted, labels=[0, 1, 2], average="macro"))
    assert found.macro_f1 == pytest.approx(f1_score(true, predicted, average="macro"))
    assert found.macro_f1_present == pytest.approx(found.macro_f1 * 4 / 3)
    assert found.macro_f1_present_interval.low < found.macro_f1_present < found.macro_f1_present_interval.high


@pytest.mark.parametrize("num_labels", [2, 5])
def test_binary_brier_score_is_that_of_scikit_learn(num_labels):
    generator = np.random.default_rng(3)
    labels = tuple("abcde"[:num_labels])
    true, scores = generator.integers(num_labels, size=150), generator.normal(size=(150, num_labels))
    rows = [
        PredictionRow(
            instance_id=str(n), record_id=str(n), label=labels[t], prediction=labels[int(row.argmax())],
            scores=dict(zip(labels, row.tolist())),
        )
        for n, (t, row) in enumerate(zip(true, scores))
    ]  # fmt: skip
    found = classification_metrics(rows, labels).calibration
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    is_right = (scores.argmax(axis=1) == true).astype(int)
    assert found.brier_binary == pytest.approx(brier_score_loss(is_right, shares.max(axis=1)))
    assert found.brier_binary_interval.low < found.brier_binary < found.brier_binary_interval.high
    if num_labels == 2:
        # The convention for two labels: the squared error of one probability, half of the sum over both.
        assert found.brier_binary == pytest.approx(brier_score_loss((true == 1).astype(int), shares[:, 1]))
        assert found.brier == pytest.approx(2 * found.brier_binary)
    else:
        assert abs(found.brier - 2 * found.brier_binary) > 0.01


def test_micro_f1_of_action_units_is_that_of_scikit_learn():
    generator = np.random.default_rng(4)
    units = ("AU1", "AU6", "AU12")
    true, predicted = generator.random((80, 3)) < (0.7, 0.3, 0.05), generator.random((80, 3)) < 0.4
    rows = [
        PredictionRow(
            instance_id=str(n), record_id=str(n), label=None, prediction=None,
            true_values=dict(zip(units, map(float, t))), values=dict(zip(units, map(float, p))),
        )
        for n, (t, p) in enumerate(zip(true, predicted))
    ]  # fmt: skip
    found = action_unit_metrics(rows)
    assert found.micro_f1 == pytest.approx(f1_score(true, predicted, average="micro"))
    assert found.mean_f1 == pytest.approx(f1_score(true, predicted, average="macro"))
    assert found.micro_f1_interval.low < found.micro_f1 < found.micro_f1_interval.high
    quiet = [
        row.model_copy(update={"true_values": dict.fromkeys(units, 0.0), "values": dict.fromkeys(units, 0.0)})
        for row in rows
    ]
    assert action_unit_metrics(quiet).micro_f1 is None


def _person(number, labels, **fields):
    return EmotionRecord(
        id=f"p/{number}", image="a.png", split="test", source="emotic", labels=labels, label_set="emotic26",
        box=(0.0, 0.0, 9.0, 9.0), **fields,
    )  # fmt: skip


def test_benchmarks_of_several_labels_ask_once_and_keep_the_log_softmax():
    record = _person(1, ["happiness", "peace"])
    truth = truth_of(record, SEVERAL, EMOTIC)
    assert truth.labels == ("happiness", "peace") and truth.label is None
    assert truth_of(_person(2, None), SEVERAL, EMOTIC) is None
    assert truth_of(_person(3, ["happiness", "surprise"]), SEVERAL, get_label_set("polarity2")).labels == ("positive",)
    requests = BatchRequests([Prepared(Item(record, b"", truth))], SEVERAL, "likelihood", EMOTIC)
    ((number,),) = requests.passes()
    (row,) = requests.rows({number: [float(c) for c in range(26)]})
    assert row.labels == ("happiness", "peace") and row.label is None and decode_row(encode_row(row)) == row
    assert sum(np.exp(list(row.scores.values()))) == pytest.approx(1) and row.prediction == "yearning"
    assert requests._requests[0][1].text.startswith("Which of these emotions does this person show: affection,")
    assert [SEVERAL.supports(method) for method in ("likelihood", "likelihood_sum", "generation")] == [
        True,
        True,
        False,
    ]


def test_baselines_rank_several_labels():
    generator = np.random.default_rng(5)
    items = []
    for number in range(60):
        names = ["happiness"] + (["pain"] if number % 3 == 0 else [])
        record = _person(number, names)
        brightness = generator.normal(scale=0.1) + (number % 3 == 0)
        items.append(Item(record, str(brightness).encode(), truth_of(record, SEVERAL, EMOTIC)))
    prior = ConstantBaseline(ConstantSettings(adapter="prior"))
    prior.fit(items, SEVERAL, EMOTIC)
    (shares,) = prior.predict(items[:1])
    assert np.exp(shares["happiness"]) / np.exp(shares["pain"]) == pytest.approx(61 / 21)
    encoder = Encoder(lambda encoded: np.array([[float(data), 1.0] for data in encoded]), {"name": "brightness"})
    probe = ProbeBaseline(encoder)
    probe.fit(items[:40], SEVERAL, EMOTIC)
    scores = np.array([row["pain"] for row in probe.predict(items[40:])])
    has = np.array(["pain" in item.truth.labels for item in items[40:]])
    assert average_precision_score(has, scores) == pytest.approx(1) and (scores < 0).all()


def test_contempt_has_no_place_among_seven_expressions():
    assert coarser_label("contempt", "expressions8", "expressions7") is None
    seven = get_label_set("expressions7")
    assert [coarser_label(label, "expressions8", "expressions7") for label in seven.labels] == list(seven.labels)
    benchmark = BenchmarkSettings(dataset="affectnet", label_set="expressions7")
    fields = {"id": "a", "image": "a.png", "split": "test", "source": "affectnet", "label_set": "expressions8"}
    assert truth_of(EmotionRecord(emotion="contempt", **fields), benchmark, seven) is None
    assert truth_of(EmotionRecord(emotion="Happy", **fields), benchmark, seven).label == "happiness"
