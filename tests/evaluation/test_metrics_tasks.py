"""Metrics of the tasks of published benchmarks.

- Stated confidence, words on wheels, rankings and answers of people have the published or counted golden values; VQA
  accuracy is LAVIS's own on random answers.
- Nothing leaves a denominator: an unread answer, a refusal or an answer without a confidence never helps a model, and
  errors are counted apart.
- Categories, images with several questions, and preferences for places are what a plain count gives.
- Two models are compared on the same questions.
"""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, f1_score, roc_auc_score

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.wheels import emotion_wheels
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.metrics.choices import choice_metrics
from lavis_emovit.evaluation.metrics.comparison import compare_answers
from lavis_emovit.evaluation.metrics.dimensional import average_ranks, dimensional_metrics
from lavis_emovit.evaluation.metrics.rankings import ranking_metrics
from lavis_emovit.evaluation.metrics.rows import is_right
from lavis_emovit.evaluation.metrics.stated_confidence import stated_confidence
from lavis_emovit.evaluation.metrics.statements import statement_metrics
from lavis_emovit.evaluation.metrics.vqa import vqa_accuracy, vqa_metrics
from lavis_emovit.evaluation.metrics.wheels import compare_words, word_metrics
from lavis_emovit.evaluation.predictions import PredictionRow


def _row(number, *, record=None, **values):
    record = f"r{number}" if record is None else record
    name = str(number) if record == f"r{number}" else f"{record}/{number}"
    values = {"label": None, "prediction": None} | values
    return PredictionRow(instance_id=name if "/" in name else record, record_id=record, **values)


def _confident(confidences, right):
    return [
        _row(n, label="awe", prediction="awe" if is_one else "fear", confidence=confidence)
        for n, (confidence, is_one) in enumerate(zip(confidences, right))
    ]


def test_stated_confidence_has_the_golden_values():
    found = stated_confidence(_confident([0.95, 0.95, 0.85, 0.65, 0.55, 0.30], [1, 0, 1, 1, 0, 0]))
    assert found.ece == pytest.approx(0.3750) and found.ece_of_stated == pytest.approx(0.3750)
    assert found.brier == pytest.approx(0.240417, abs=5e-7) and found.auroc == pytest.approx(0.722222, abs=5e-7)
    assert [one.count for one in found.bins] == [0, 0, 0, 1, 0, 1, 1, 0, 1, 2]


def test_a_bin_is_closed_below_and_the_last_one_at_both_ends():
    found = stated_confidence(_confident([0.0, 0.1, 0.3, 0.7, 0.9, 1.0], [0, 0, 0, 1, 1, 1]))
    assert [one.count for one in found.bins] == [1, 1, 0, 1, 0, 0, 0, 1, 0, 2]


confidences = st.lists(
    st.tuples(st.none() | st.floats(0, 1).map(lambda x: round(x, 3)), st.booleans()), min_size=2, max_size=30
)


@given(confidences)
def test_an_answer_without_a_confidence_never_helps(answers):
    given_, right = zip(*answers)
    found = stated_confidence(_confident(given_, right))
    assert found.num_samples == len(answers) and found.num_stated == sum(one is not None for one in given_)
    stated = [(c, r) for c, r in answers if c is not None]
    if stated:
        assert found.brier_of_stated == pytest.approx(brier_score_loss([r for _, r in stated], [c for c, _ in stated]))
        assert found.brier >= found.brier_of_stated - 1e-9 and found.ece >= found.ece_of_stated - 1e-9
    if stated and len({r for _, r in stated}) == 2:
        expected = roc_auc_score([r for _, r in stated], [c for c, _ in stated])
        assert found.auroc_of_stated == pytest.approx(expected) and found.auroc <= expected + 1e-9
    if len(set(right)) == 2:
        filled = [(1.5 if not r else -0.5) if c is None else c for c, r in answers]
        assert found.auroc == pytest.approx(roc_auc_score(right, filled))
    # The curve ends with all answers.
    assert found.risk_coverage[-1].risk == pytest.approx(1 - sum(right) / len(right))


def _five_wheels(tmp_path):
    """Wheels on which two samples have the scores of the public mapping of AffectGPT (MER2026), level 1."""
    apart = {"joy": "happy joyful", "ecstasy": "excited", "anger": "angry", "sadness": "sad melancholy"}
    joined = {"joy": "happy excited joyful", "anger": "angry", "sadness": "sad melancholy"}
    wheels = {f"wheel{n}": {"source": "own", "clusters": joined if n in (2, 3) else apart} for n in range(1, 6)}
    path = tmp_path / "wheels.json"
    path.write_text(json.dumps({"version": 1, "sources": {"own": "x"}, "wheels": wheels, "forms": {}}))
    return emotion_wheels(path)


def test_words_have_the_golden_values(tmp_path):
    wheels = _five_wheels(tmp_path)
    rows = [
        _row(0, labels=("happy", "excited"), predictions=("angry", "joyful")),
        _row(1, labels=("sad",), predictions=("melancholy",)),
    ]
    found = word_metrics(rows, wheels)
    assert [round(one.f1, 4) for one in found.wheels.values()] == [0.75, 0.8571, 0.8571, 0.75, 0.75]
    assert (round(found.f1, 4), round(found.precision, 4), round(found.recall, 4)) == (0.7929, 0.75, 0.85)
    # Nothing named, or only words off the wheels, has P = R = 0; a true word off the wheels is counted.
    more = [*rows, _row(2, labels=("sad",)), _row(3, labels=("moved",), predictions=("sad",))]
    found = word_metrics(more, wheels)
    assert (found.num_samples, found.num_invalid) == (4, 1)
    one = found.wheels["wheel1"]
    assert (one.num_samples, one.num_off_wheel, one.words, one.coverage, one.off_wheel) == (3, 1, 4, 0.75, ["moved"])
    assert one.precision == pytest.approx((0.5 + 1 + 0) / 3) and one.recall == pytest.approx((0.5 + 1 + 0) / 3)
    with pytest.raises(DataError, match=r"no wheel \(wheel1, .*such as 'moved'"):
        word_metrics(more[3:], wheels)
    compared = compare_words(rows, [rows[0], rows[1].model_copy(update={"predictions": None})], wheels)
    assert compared.before == pytest.approx(0.792857, abs=1e-6) and compared.difference < -0.3
    assert compared.interval.low <= compared.difference <= compared.interval.high


def test_a_packaged_wheel_knows_the_labels_of_mikels_and_ekman():
    """It places all of them, each in a cluster of its own."""
    labels = [*get_label_set("mikels8").labels, "happiness", "surprise"]
    rows = [_row(n, labels=(one,), predictions=(one,)) for n, one in enumerate(labels)]
    found = word_metrics(rows, emotion_wheels()).wheels["mikels"]
    assert (found.coverage, found.f1, found.num_off_wheel, found.words) == (1.0, 1.0, 0, 10)
    assert set(get_label_set("ekman6").labels) <= set(labels)
    wrong = [row.model_copy(update={"predictions": (labels[n - 1],)}) for n, row in enumerate(rows)]
    assert word_metrics(wrong, emotion_wheels()).wheels["mikels"].f1 == 0.0


def test_rankings_are_counted():
    true = ("joy", "surprise", "fear")
    rows = [
        _row(0, labels=true, predictions=true),
        _row(1, labels=true, predictions=("surprise", "joy", "anger"), status="ok"),
        _row(2, labels=true, status="refused"),
        _row(3, labels=true, predictions=("joy",)),
        _row(4, labels=true, error="damaged"),
    ]
    found = ranking_metrics(rows, 7)
    assert (found.num_samples, found.num_errors, found.num_invalid) == (4, 1, 1)
    assert found.overlap == pytest.approx((3 + 2 + 0 + 1) / 12) and found.top1 == pytest.approx(2 / 4)
    assert found.places == pytest.approx((3 + 0 + 0 + 1) / 12) and found.exact == pytest.approx(1 / 4)
    assert found.pairs == pytest.approx((3 + 0 + 0 + 0) / 12) and found.statuses == {"ok": 1, "refused": 1}
    assert (found.chance_overlap, found.chance_places) == (pytest.approx(3 / 7), pytest.approx(1 / 7))


def test_vqa_accuracy_is_that_of_lavis():
    from lavis.common.vqa_tools.vqa_eval import VQAEval

    rng = random.Random(0)
    # As VQAv2 has them: in lower case, without articles, numbers as digits.
    answers = ["2", "red bus", "don't know", "yes", "no", "1000", "left", "right/left", "12:30", "4.5"]
    written = ["two", "2", "a red bus.", "Red Bus", "dont know", "yes", "yes!", "No", "1,000", "the  left"]
    questions = {n: [rng.choice(answers[: 2 + n % 9]) for _ in range(10)] for n in range(60)}
    said = {n: rng.choice(written + answers) for n in questions}

    class Fixed:
        def __init__(self, qa):
            self.qa = qa

        def getQuesIds(self):  # noqa: N802 (LAVIS's name)
            return list(self.qa)

    truth = {
        n: {"answers": [{"answer": one, "answer_id": i} for i, one in enumerate(given_)], "question_type": "q",
            "answer_type": "a"}
        for n, given_ in questions.items()
    }  # fmt: skip
    evaluator = VQAEval(Fixed(truth), Fixed({n: {"answer": one} for n, one in said.items()}), n=10)
    evaluator.evaluate()
    for n, given_ in questions.items():
        assert 100 * vqa_accuracy(said[n], given_) == pytest.approx(evaluator.evalQA[n])
    assert len(set(evaluator.evalQA.values())) > 3
    assert vqa_accuracy("A cat.", ["cat"]) == 1.0 and vqa_accuracy("", ["cat"] * 10) == 0.0
    rows = [_row(n, labels=tuple(questions[n]), answer=said[n]) for n in questions]
    assert 100 * vqa_metrics(rows).accuracy == pytest.approx(evaluator.accuracy["overall"])


@pytest.mark.parametrize(
    ("answer", "given", "accuracy"),
    [
        ("Red", ["Red"] * 4, 1.0),
        ("two dogs", ["two dogs"] * 10, 1.0),
        ("the park", ["the park"] * 5, 1.0),
        ("Red", ["Red", "Blue", "red!", "a red"], (3 * 2 / 3 + 1) / 4),  # two of the others, or three
        ("A", ["A"] * 4, 1.0),  # nothing but an article
        ("the", ["A"] * 4, 0.0),
        ("", ["?"] * 4, 0.0),
    ],
)
def test_answers_of_people_are_compared_in_the_same_form(answer, given, accuracy):
    assert vqa_accuracy(answer, given) == pytest.approx(accuracy)


def test_statements_are_counted_by_class():
    asked = [
        ("correct", "correct", "ok", "context"),
        ("correct", None, "refused", "context"),
        ("incorrect", "correct", "ok", "polarity"),
        ("incorrect", "incorrect", "ok", "polarity"),
        ("incorrect", None, "invalid", "polarity"),
    ]
    rows = [
        _row(n, label=label, prediction=said, status=status, slices={"class": kind, "group": "p"})
        for n, (label, said, status, kind) in enumerate(asked)
    ]
    found = statement_metrics([*rows, _row(9, label="correct", error="damaged")])
    assert (found.num_samples, found.num_errors, found.num_invalid) == (5, 1, 2)
    assert (found.accuracy, found.accuracy_of_answered) == (pytest.approx(2 / 5), pytest.approx(2 / 3))
    assert found.balanced_accuracy == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert (found.positive_ratio, found.give_up_ratio) == (pytest.approx(2 / 5), pytest.approx(2 / 5))
    assert (found.refused_ratio, found.true_positive_ratio) == (pytest.approx(1 / 5), pytest.approx(2 / 5))
    assert set(found.categories) == {"class"}
    polarity = found.categories["class"]["polarity"]
    assert polarity.num_samples == 3 and polarity.values == pytest.approx(
        {"accuracy": 1 / 3, "positive": 1 / 3, "give_up": 1 / 3}
    )
    # The published shares of InstructBLIP: 36.8 % right with 37.5 % given up is 58.9 % of what it judged.
    many = [
        _row(n, label="correct", prediction="correct" if n < 368 else "incorrect" if n < 625 else None)
        for n in range(1000)
    ]
    assert statement_metrics(many).accuracy_of_answered == pytest.approx(0.589, abs=5e-4)
    with pytest.raises(DataError, match="a statement is 'correct' or 'incorrect', not 'true'"):
        statement_metrics([_row(0, label="true")])


def test_yes_and_no_are_those_of_scikit_learn_and_images_need_all_answers():
    rng = random.Random(1)
    rows = []
    for n in range(200):
        label, said = rng.choice(["Yes", "No"]), rng.choice(["Yes", "No", "No", None])
        rows.append(
            _row(n, record=f"image {n // 2}", label=label, labels=(label,), prediction=said, options=("Yes", "No"),
                 slices={"category": "count" if n % 4 < 2 else "color"})
        )  # fmt: skip
    found = choice_metrics(rows)
    true, said = [row.label == "Yes" for row in rows], [row.prediction == "Yes" for row in rows]
    assert found.yes_no.f1 == pytest.approx(f1_score(true, said))
    assert found.yes_no.yes_share == pytest.approx(np.mean(said))
    right = [is_right(row) for row in rows]
    both = [one and other for one, other in zip(right[::2], right[1::2])]
    assert found.all_right == pytest.approx(np.mean(both)) and found.accuracy == pytest.approx(np.mean(right))
    # MME's score of a category: accuracy and accuracy+ in percent, together.
    count = found.categories["category"]["count"]
    assert count.values["all_right"] == pytest.approx(np.mean(both[::2])) and count.num_samples == 100
    assert found.accuracy_interval.low < found.accuracy < found.accuracy_interval.high
    assert choice_metrics([row.model_copy(update={"options": ("Yes", "Maybe", "No")}) for row in rows]).yes_no is None


def test_equal_options_are_equally_right_and_places_are_counted():
    options = ("calm", "sad", "joy", "calm")
    rows = [_row(n, label="calm", labels=("calm",), prediction=said, options=options) for n, said in
            enumerate(["calm", "joy", None, "sad"])]  # fmt: skip
    found = choice_metrics(rows)
    assert found.accuracy == 1 / 4 and found.chance == 2 / 4 and found.positions == [0.25, 0.25, 0.25, 0.0]
    assert found.order_bias == pytest.approx(1 / 4 - 1 / 4)
    with pytest.raises(DataError, match="no options"):
        choice_metrics([_row(0, label="calm")])


def test_models_are_compared_on_the_same_questions():
    before = [_row(n, record="a", label="x", prediction="x" if n % 3 else "y") for n in range(30)]
    after = [row.model_copy(update={"prediction": "x"}) for row in before]
    found = compare_answers(before, after, is_right, "accuracy", group_by=None)
    assert (found.before, found.after, found.num_pairs) == (pytest.approx(2 / 3), 1.0, 30)
    assert (found.num_only_before, found.num_only_after) == (0, 10) and found.p_value == pytest.approx(2 * 0.5**10)
    assert found.interval.low > 0


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=30))
def test_spearman_is_that_of_scipy(values):
    from scipy.stats import rankdata, spearmanr

    assert average_ranks(np.array(values)) == pytest.approx(rankdata(values))
    other = [(7 * n) % 5 - 2 for n in range(len(values))]
    rows = [
        _row(n, true_values={"valence": x / 3, "arousal": 0.0}, values={"valence": y / 3, "arousal": 0.1})
        for n, (x, y) in enumerate(zip(values, other))
    ]
    found = dimensional_metrics(rows, num_resamples=20).dimensions["valence"].all.spearman
    if len(set(values)) == 1 or len(set(other)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(values, other).statistic, abs=1e-9)


def test_votes_are_a_target():
    from scipy.stats import wasserstein_distance

    from lavis_emovit.emotion.label_affect import affect_table
    from lavis_emovit.evaluation.metrics.soft_labels import soft_label_metrics

    labels = ("amusement", "awe", "fear", "sadness")
    votes = [(0.5, 0.5, 0.0, 0.0), (0.0, 0.25, 0.75, 0.0), (0.25, 0.25, 0.25, 0.25)]
    shares = [(0.6, 0.2, 0.1, 0.1), (0.1, 0.6, 0.2, 0.1), (0.25, 0.25, 0.25, 0.25)]
    rows = [
        _row(n, label="awe", prediction="awe", votes=dict(zip(labels, given_)),
             scores=dict(zip(labels, np.log(share).tolist())))
        for n, (given_, share) in enumerate(zip(votes, shares))
    ]  # fmt: skip
    found = soft_label_metrics(rows, labels)
    assert found.total_variation == pytest.approx((0.3 + 0.65 - 0.1 + 0.0) / 3)
    valence = [affect_table().of(label).valence for label in labels]
    expected = [wasserstein_distance(valence, valence, given_, share) for given_, share in zip(votes, shares)]
    assert found.emd_valence == pytest.approx(np.mean(expected))
    assert found.votes_in_top == {2: pytest.approx((1.0 + 1.0 + 0.5) / 3), 3: pytest.approx((1.0 + 1.0 + 0.75) / 3)}
    assert set(found.intervals) >= {"total_variation", "emd_valence", "votes_in_top_2", "votes_in_top_3"}
    renamed = [
        row.model_copy(update={"votes": {"zorb" if k == "awe" else k: v for k, v in row.votes.items()},
                               "scores": {"zorb" if k == "awe" else k: v for k, v in row.scores.items()}})
        for row in rows
    ]  # fmt: skip
    assert soft_label_metrics(renamed, ("amusement", "zorb", "fear", "sadness")).emd_valence is None
