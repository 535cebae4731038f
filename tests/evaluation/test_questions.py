"""Questions about a record, and its truth.

- Truth: aliases, labels of a finer set, votes outside of the set; a label without a place in the set is no truth, an
  unknown one is refused with the name of the record.
- Questions: every variant once and in a stable order, options in an order that the record decides, marks listed and
  read back; numbers from candidates and from words agree with a calculation by hand.
- The published rule for reading answers is measured as published: answers that it cannot read are dropped.
- Settings that do not fit a kind are refused.
"""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from lavis_emovit.emotion.answers import EmotionAnswer, read_emotion
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.emotion.questions import (
    CAPTION_QUESTIONS,
    CATEGORICAL_WORDINGS,
    EXPLANATION_QUESTIONS,
    LEVELS,
    OPEN_WORDINGS,
    SCALE,
)
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Variant, label_set_of, slice_values
from lavis_emovit.evaluation.metrics.original_rule import original_rule
from lavis_emovit.evaluation.own_questions import scored_own
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.questions import example_question, questions_about, values_from_scores, values_from_text
from lavis_emovit.evaluation.truths import Truth, truth_of
from lavis_emovit.records import AnsweredQuestion, EmotionRecord
from lavis_emovit.settings import parse_settings

EMOTION = BenchmarkSettings(dataset="x")
AFFECT = BenchmarkSettings(dataset="x", kind="valence_arousal", subject="face")
UNITS = BenchmarkSettings(dataset="x", kind="action_units")
EMOTION6, PARROTT6, POLARITY2 = (get_label_set(name) for name in ("emotion6", "parrott6", "polarity2"))
MIKELS8 = get_label_set("mikels8")


def _record(**fields):
    return EmotionRecord(id="r/1", image="a.png", split="test", source="s", **fields)


@pytest.mark.parametrize(
    ("emotion", "own", "asked", "label"),
    [
        ("joy", "emotion6", "emotion6", "joy"),
        ("Happy", None, "emotion6", "joy"),
        ("rage", "webemo25", "parrott6", "anger"),
        ("zest", "webemo25", "polarity2", "positive"),
        # No hierarchy joins the two, but they spell it alike.
        ("fear", "mikels8", "emotion6", "fear"),
        # Surprise is neither positive nor negative.
        ("surprise", "emotion6", "polarity2", None),
        (None, None, "emotion6", None),
    ],
)
def test_truth_in_the_labels_that_are_asked_with(emotion, own, asked, label):
    truth = truth_of(_record(emotion=emotion, label_set=own), EMOTION, get_label_set(asked))
    assert (truth.label if truth else None) == label


def test_truth_of_votes_and_values():
    votes = {"anger": 0.25, "disgust": 0.5, "neutral": 0.25}
    truth = truth_of(_record(emotion="joy", label_set="emotion6", votes=votes), EMOTION, EMOTION6)
    assert truth.votes == pytest.approx(dict.fromkeys(EMOTION6.labels, 0.0) | {"anger": 1 / 3, "disgust": 2 / 3})
    coarse = truth_of(_record(emotion="joy", label_set="emotion6", votes=votes), EMOTION, POLARITY2)
    assert coarse.votes == {"negative": 1.0, "positive": 0.0}
    assert (
        truth_of(_record(emotion="joy", label_set="emotion6", votes={"neutral": 1.0}), EMOTION, EMOTION6).votes is None
    )
    with pytest.raises(DataError, match=r"record 'r/1'.*unknown emotion 'awe'"):
        truth_of(_record(emotion="awe", label_set="mikels8"), EMOTION, PARROTT6)
    assert truth_of(_record(valence=0.5), AFFECT, None) is None
    assert truth_of(_record(valence=0.5, arousal=-1.0), AFFECT, None).values == {"valence": 0.5, "arousal": -1.0}
    assert truth_of(_record(action_units={12: 3.0, 1: 0.0}), UNITS, None).values == {"AU1": 0.0, "AU12": 3.0}
    with pytest.raises(DataError, match="choose one as `label_set`"):
        label_set_of(EMOTION, ("emotion6", "mikels8"), "here")


def test_variants_are_each_once_and_stable():
    settings = BenchmarkSettings(
        dataset="x", wordings=(1, 2), option_orders=("fixed", "shuffled"), option_marks=("none", "letters"),
        with_options=(True, False),
    )  # fmt: skip
    names = [variant.name for variant in settings.variants]
    assert names == [
        *("wording 1, options fixed", "wording 1, options fixed by letters"),
        *("wording 1, options shuffled", "wording 1, options shuffled by letters", "wording 1, no options"),
        *("wording 2, options fixed", "wording 2, options fixed by letters"),
        *("wording 2, options shuffled", "wording 2, options shuffled by letters", "wording 2, no options"),
    ]
    shuffled = [Variant(1, "shuffled").options(MIKELS8.labels, f"r/{number}") for number in range(20)]
    assert len(set(shuffled)) > 10 and all(sorted(order) == sorted(MIKELS8.labels) for order in shuffled)
    assert Variant(2, "shuffled", "letters").options(MIKELS8.labels, "r/3") == shuffled[3]
    assert Variant(1, "reversed").options(MIKELS8.labels, "r/1") == MIKELS8.labels[::-1]


@pytest.mark.parametrize(
    ("label_set", "emotion", "explanation"),
    [
        ("mikels8", "What emotion does this picture call up?", "Which emotion does this picture evoke, and why?"),
        ("expressions7", "What emotion does this face show?", "Which emotion does this face show, and how?"),
        ("emotic26", "What emotion does this person show?", "Which emotion does this person show, and how?"),
    ],
)
def test_questions_ask_about_what_the_labels_describe(label_set, emotion, explanation):
    labels, explained = get_label_set(label_set), BenchmarkSettings(dataset="x", kind="explanation")
    for record in (_record(label_set=label_set), _record()):
        (asked,) = questions_about(record, Truth(), EMOTION, Variant(1, None), "generation", labels)
        assert asked.text.startswith(emotion)
        (asked,) = questions_about(record, Truth(), explained, Variant(1, None), "generation", labels)
        assert asked.text.startswith(explanation)
    # The labels of the records count, not the coarser ones of the answers.
    (asked,) = questions_about(
        _record(label_set=label_set), Truth(), EMOTION, Variant(1, None), "generation", POLARITY2
    )
    assert asked.text.startswith(emotion)
    for wordings in (OPEN_WORDINGS, EXPLANATION_QUESTIONS):
        assert {len(texts) for texts in wordings.values()} == {3}


def test_marked_options_are_listed_and_read_back():
    record, variant = _record(), Variant(1, "reversed", "letters")
    (marked,) = questions_about(record, Truth(), EMOTION, variant, "generation", MIKELS8)
    assert "(a) sadness, (b) fear," in marked.text and not marked.candidates
    (plain,) = questions_about(record, Truth(), EMOTION, Variant(1, "fixed"), "likelihood", MIKELS8)
    assert plain.candidates == MIKELS8.labels and "(a)" not in plain.text
    options = variant.options(MIKELS8.labels, record.id)
    assert read_emotion("(b)", MIKELS8, options) == EmotionAnswer("fear", "ok")
    assert read_emotion("(b)", MIKELS8, None) == EmotionAnswer(None, "invalid")
    assert read_emotion("(b) awe", MIKELS8, options) == EmotionAnswer(None, "ambiguous")


def test_numbers_from_candidates_and_from_words():
    questions = questions_about(_record(), Truth(), AFFECT, Variant(1, "fixed"), "likelihood", None)
    assert [question.key for question in questions] == ["valence", "arousal"]
    assert all(question.candidates == SCALE for question in questions)
    # Half on 9 and half on 5 is 7, which is 0.5; all alike is 5, which is 0.
    certain = [-100.0] * 4 + [math.log(0.5)] + [-100.0] * 3 + [math.log(0.5)]
    assert values_from_scores(questions, [certain, [-2.0] * 9]) == pytest.approx({"valence": 0.5, "arousal": 0.0})
    levels = AFFECT.model_copy(update={"scale": "levels", "axes": ("arousal", "dominance")})
    in_words = questions_about(_record(), Truth(), levels, Variant(2, "fixed"), "likelihood", None)
    assert [question.candidates for question in in_words] == [LEVELS["arousal"], LEVELS["dominance"]]
    # A quarter on the highest level and the rest in the middle is 0.25.
    scores = [[-100.0, -100.0, math.log(0.75), -100.0, math.log(0.25)], [0.0, -100.0, -100.0, -100.0, -100.0]]
    assert values_from_scores(in_words, scores) == pytest.approx({"arousal": 0.25, "dominance": -1.0})
    truth = Truth(values={"AU1": 0.0, "AU12": 3.0})
    asked = questions_about(_record(), truth, UNITS, Variant(1, "fixed"), "likelihood", None)
    assert values_from_scores(asked, [[0.0, 0.0], [math.log(3), 0.0]]) == pytest.approx({"AU1": 0.5, "AU12": 0.75})
    assert values_from_text("Valence: -0.5, arousal: 0.25.", AFFECT, Truth()) == (
        {"valence": -0.5, "arousal": 0.25},
        "ok",
    )
    values, status = values_from_text("Valence is 7", AFFECT, Truth())
    assert values == {"valence": None, "arousal": None} and status == "invalid"
    assert values_from_text("AU12 is active.", UNITS, truth) == ({"AU1": 0.0, "AU12": 1.0}, "ok")


def test_the_published_rule_drops_what_it_cannot_read():
    rows = [
        PredictionRow(instance_id=str(n), record_id=str(n), label=label, prediction=None, answer=answer)
        for n, (label, answer) in enumerate(
            [("anger", "There is danger here."), ("awe", "awe\nfear"), ("fear", "no idea"), ("fear", "sadness or fear")]
        )
    ]
    # Danger is read as anger, what stands behind a newline is not read, the alphabet decides between several.
    assert original_rule(rows, MIKELS8.labels) == {"accuracy": 1.0, "num_dropped": 1, "accuracy_of_all": 0.75}
    assert original_rule(rows[2:3], MIKELS8.labels) == {"accuracy": None, "num_dropped": 1, "accuracy_of_all": 0.0}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"kind": "caption", "coarser": ["polarity2"]}, "belongs to kind 'emotion'"),
        ({"kind": "action_units", "option_marks": ["letters"]}, "belongs to kind 'emotion'"),
        ({"wordings": [9]}, "numbered 1 to 4"),
        ({"wordings": [4], "with_options": [True, False]}, "numbered 1 to 3"),
        ({"wordings": [1, 1]}, "the same choice twice"),
        ({"slices": ["attribute.scene"]}, "not a field of a record"),
        ({"label_set": "mikels"}, "did you mean 'mikels8'"),
        ({"split_": "test"}, "unknown key"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given, named):
    settings, problems = parse_settings(BenchmarkSettings, {"dataset": "x", **given}, "b")
    assert settings is None and named in " ".join(problems)
    assert ConfigError(problems)


def test_slices_are_text():
    record = _record(attributes={"object": ["Cat", "Dog"], "brightness": 0.5}, extra={"age": 30})
    fields = ("attributes.object", "attributes.brightness", "extra.age", "attributes.scene")
    assert slice_values(record, fields) == {
        "attributes.object": "Cat, Dog", "attributes.brightness": "0.5", "extra.age": "30",
    }  # fmt: skip


def test_equal_options_are_one_candidate_and_equally_right():
    asked = AnsweredQuestion(question="Which?", answers=["happy"], options=["sad", "happy", "happy"])
    benchmark = BenchmarkSettings(dataset="x", kind="choice", option_marks=("none",))
    record = _record(questions=[asked])
    (truth,) = truth_of(record, benchmark, None).parts
    (question,) = questions_about(record, truth, benchmark, benchmark.variants[0], "likelihood", None)
    assert question.candidates == ("sad", "happy") and question.options == ("sad", "happy", "happy")
    for scores, chosen in (([-1.0, -2.0], "sad"), ([-2.0, -1.0], "happy")):
        assert scored_own(question, truth, benchmark, scores)["prediction"] == chosen
    marked = benchmark.model_copy(update={"option_marks": ("letters",)})
    (question,) = questions_about(record, truth, marked, marked.variants[0], "likelihood", None)
    assert question.candidates == ("a", "b", "c")
    assert scored_own(question, truth, marked, [-2.0, -3.0, -1.0])["prediction"] == "happy"


def test_rankings_have_no_coarser_labels():
    ranking = BenchmarkSettings(dataset="x", kind="ranking")
    record = _record(label_set="mikels8", ranking=["awe", "amusement", "fear"])
    assert truth_of(record, ranking, MIKELS8).labels == ("awe", "amusement", "fear")
    with pytest.raises(DataError, match=r"record 'r/1': .*'awe'.*kind 'ranking' has no coarser labels"):
        truth_of(record, ranking, POLARITY2)


@pytest.mark.parametrize("units", [{27: 1.0, 45: 2.0}, {11: 0.0, 3: 1.0, 40: 1.0}, {12: 1.0, 64: 1.0, 70: 1.0}])
@pytest.mark.parametrize("method", ["likelihood", "generation"])
def test_units_outside_those_of_training_are_asked_by_name(units, method):
    record = _record(action_units=units)
    truth = truth_of(record, UNITS, None)
    questions = questions_about(record, truth, UNITS, UNITS.variants[0], method, None)
    text = " ".join(question.text for question in questions)
    names = {27: "mouth stretch", 45: "blink", 11: "nasolabial deepener", 40: "sniff", 70: "facial action"}
    assert all(f"AU{unit}" in text for unit in units)
    assert all(name in text for unit, name in names.items() if unit in units)


@pytest.mark.parametrize(
    ("text", "active"),
    [("A blink and a mouth stretch.", {27, 45}), ("AU27 (mouth stretch)", {27}), ("No blink, but AU27.", {27})],
)
def test_names_of_these_units_are_read_if_they_are_asked_about(text, active):
    values, status = values_from_text(text, UNITS, Truth(values={"AU27": 1.0, "AU45": 1.0}))
    assert status == "ok" and {int(name[2:]) for name, value in values.items() if value} == active
    # "blink" is an everyday word: it says nothing about units that are not it.
    assert values_from_text("In a blink.", UNITS, Truth(values={"AU12": 1.0}))[1] == "invalid"


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"kind": "explanation"}, len(EXPLANATION_QUESTIONS["picture"])),
        ({"kind": "caption"}, len(CAPTION_QUESTIONS)),
        ({"kind": "valence_arousal", "subject": "face"}, 2),
        ({"kind": "emotion"}, len(CATEGORICAL_WORDINGS)),
        ({"kind": "emotion", "with_options": [True, False]}, len(OPEN_WORDINGS["picture"])),
        ({"kind": "action_units"}, 2),
    ],
)
def test_every_wording_of_a_kind_can_be_chosen(settings, count):
    every = {"dataset": "x", **settings, "wordings": list(range(1, count + 1))}
    benchmark, problems = parse_settings(BenchmarkSettings, every, "b")
    assert not problems and benchmark.wordings == tuple(range(1, count + 1))
    method = "generation"
    texts = {
        questions_about(_record(), Truth(), benchmark, variant, method, MIKELS8)[0].text
        for variant in benchmark.variants
    }
    assert len(texts) >= count
    beyond = {**every, "wordings": [count + 1]}
    assert f"are numbered 1 to {count}" in parse_settings(BenchmarkSettings, beyond, "b")[1][0]


@pytest.mark.parametrize("kind", ["emotion", "valence_arousal", "action_units", "explanation"])
def test_the_number_of_wordings_is_that_of_the_texts(kind):
    method = "generation" if kind == "explanation" else "likelihood"
    label_set = get_label_set("mikels8") if kind in ("emotion", "explanation") else None
    texts = set()
    with pytest.raises(ValidationError, match=f"wordings of kind '{kind}' are numbered 1 to"):
        for wording in range(1, 99):
            settings = BenchmarkSettings(dataset="x", kind=kind, wordings=(wording,))
            texts.add(example_question(settings, method, label_set).text)
    assert len(texts) == wording - 1 > 1
