"""Completing levels of faces, without any endpoint.

- A face whose label set cannot hold an answer is refused by its id.
- Answers are read strictly: other levels, values out of range and units outside the lists are rejected with a reason.
- Votes, means and uncertainties agree with values calculated by hand; measures agree with their definitions.
- Requests continue only while answers disagree: n0 for a clear face, n_max for a doubtful one; all switches work.
- Reviews keep, correct and discard; an unreadable review changes nothing; rules discard only generated levels.
- Values that a program's table gave are known, but count for no test and no check, and carry the program's name.
- With a simulated annotator, verified levels are closer to the truth than single answers, and the stated uncertainty
  ranks the errors.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_emovit.emotion.facial import FACIAL_UNITS, facial_priors
from lavis_emovit.emotion.labels_faces import EXPRESSIONS8
from lavis_emovit.errors import DataError
from lavis_emovit.generation.seke.annotators import PriorAnnotator, Reply
from lavis_emovit.generation.seke.completion import complete
from lavis_emovit.generation.seke.instructions import write_instructions
from lavis_emovit.generation.seke.level_sets import level_set
from lavis_emovit.generation.seke.levels import Case, Levels, case_of, own_label, read_answer
from lavis_emovit.generation.seke.measures import Pair, auroc, concordance, measure
from lavis_emovit.generation.seke.questions import answer_text, hints
from lavis_emovit.generation.seke.rules import contradictions
from lavis_emovit.generation.seke.settings import LEVELS, SekeSettings
from lavis_emovit.generation.seke.step import with_levels
from lavis_emovit.generation.seke.votes import Answer, combine
from lavis_emovit.records import EmotionRecord

PRIORS = facial_priors()


def record(**values):
    return EmotionRecord(**{"id": "a/1", "image": "a.jpg", "split": "train", "source": "a", **values})


def face(**values):
    return case_of(record(**values), active_from=1.0)


class Scripted:
    """Returns the answers in turn, and the review."""

    name, reviewer, kind, stopped, num_wordings = "scripted", "critic", "model", None, 3

    def __init__(self, answers, review=None):
        self.answers, self.review, self.questions = answers, review, []

    def num_answers(self, case):
        return None

    def ask(self, label, questions):
        self.questions += questions
        return [
            Reply(json.dumps(self.review if item.proposal else self.answers[item.sample % len(self.answers)]))
            for item in questions
        ]


def test_values_of_a_program_are_not_those_of_people():
    units = {12: 0.9, 6: 0.7, 1: 0.2}
    extra = {"units_by": "py_feat", "units_scale": "probability", "occurrence_only": "1,6,12"}
    imported, coded = record(action_units=units, extra=extra), record(action_units={12: 3.0, 6: 2.0, 1: 0.0})
    case = case_of(imported, active_from=1.0)
    assert case.known.active() == (6, 12)
    assert "Known, from py_feat:" in answer_text(case, PRIORS, hinted=False)
    assert "Known, from people:" in answer_text(case_of(coded, active_from=1.0), PRIORS, hinted=False)
    assert case_of(imported, active_from=1.0, hide="units") is None
    assert case_of(coded, active_from=1.0, hide="units") is not None
    assert level_set([imported], "units", SekeSettings(), PRIORS) == []
    assert len(level_set([coded], "units", SekeSettings(), PRIORS)) == 1
    (outcome,) = complete([case], PriorAnnotator(PRIORS), SekeSettings(), PRIORS)
    completed = with_levels(outcome, "offline/priors:1")
    assert completed.extra["seke_units_by"] == "py_feat + offline/priors:1"
    provenance = {item.provenance for item in write_instructions(imported, PRIORS, SekeSettings())}
    assert provenance and all(text.endswith(" py_feat") for text in provenance)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"expression": "joy", "valence": 0.5, "arousal": 0, "units": [6, 12]}', None),
        ('```json\n{"expression": "fear", "valence": -1, "arousal": 1.0, "units": []}\n```', None),
        ("happy", "not one JSON object"),
        ('{"expression": "awe", "valence": 0.5, "arousal": 0, "units": []}', "none of"),
        ('{"expression": "fear", "valence": 1.01, "arousal": 0, "units": []}', "not within"),
        ('{"expression": "fear", "valence": true, "arousal": 0, "units": []}', "no number"),
        ('{"expression": "fear", "valence": NaN, "arousal": 0, "units": []}', "no number"),
        ('{"expression": "fear", "arousal": 0, "units": []}', "no number"),
        ('{"expression": "fear", "valence": 0, "arousal": 0, "units": [3]}', "different ones"),
        ('{"expression": "fear", "valence": 0, "arousal": 0, "units": [1, 1]}', "different ones"),
        ('{"expression": "fear", "valence": 0, "arousal": 0, "units": ["1"]}', "whole numbers"),
        ('{"expression": "fear", "valence": 0, "arousal": 0}', "whole numbers"),
    ],
)
def test_strict_reading(text, problem):
    answer = read_answer(text, face())
    assert isinstance(answer, Levels) if problem is None else problem in answer
    if problem is None:
        assert len(answer.units) == 17 and answer.expression in ("happiness", "fear")


def test_cases():
    assert face(emotion="happy", label_set="neutral_happy2").known.expression == "happiness"
    partly = face(action_units={1: 0, 4: 3.0, 6: 0.5})
    assert (
        partly.known.units == {1: False, 4: True, 6: False}
        and partly.units == FACIAL_UNITS[1:2] + FACIAL_UNITS[3:4] + FACIAL_UNITS[5:]
    )
    assert face(emotion="fear", label_set="ekman6").classes == (
        "anger",
        "disgust",
        "fear",
        "happiness",
        "sadness",
        "surprise",
    )
    full = record(
        emotion="fear", label_set="ekman6", valence=-0.5, arousal=0.5, action_units=dict.fromkeys(FACIAL_UNITS, 0)
    )
    assert case_of(full, active_from=1.0) is None
    hidden = case_of(full, active_from=1.0, hide="expression")
    assert hidden.known.expression is None and hidden.wanted == ("expression",)
    assert "fear" not in answer_text(hidden, PRIORS, hinted=False).replace(", ".join(hidden.classes), "")
    with pytest.raises(DataError, match="mikels8"):
        face(emotion="awe", label_set="mikels8")
    # Without an emotion, an answer must be a label of the set.
    assert face(label_set="neutral_happy2").classes == ("happiness", "neutral")
    assert face(label_set="aff_wild8").classes == tuple(name for name in EXPRESSIONS8.labels if name != "contempt")
    assert face(label_set="labels:sad, happy").classes == ("happiness", "sadness")
    assert own_label("labels:sad, happy", "happiness") == "happy" and own_label("neutral_happy2", "fear") is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_set": "emotic26", "labels": ["anger"]}, "'emotic26' has no facial expressions"),
        ({"label_set": "mikels8", "votes": {"awe": 0.5, "anger": 0.5}}, "'mikels8' has no facial expressions"),
        ({"label_set": "labels:happy, calm"}, "labels of 'labels:happy, calm' are not different ones of anger"),
        ({"label_set": "labels:happy, joyful"}, "labels of 'labels:happy, joyful' are not different ones"),
        ({"label_set": "compound11"}, "labels of 'compound11' are not different ones"),
        ({"label_set": "ekman9"}, "label set 'ekman9' has no facial expressions"),
        ({"label_set": "labels:one"}, "expected two or more different labels"),
        ({"label_set": "ekman6", "emotion": "awe"}, "emotion 'awe' is not a label of 'ekman6'; correct one"),
    ],
)
def test_label_sets_without_room_for_an_answer_are_refused(values, message):
    with pytest.raises(DataError, match=f"record 'a/1': .*{message}"):
        face(**values)


def test_combination_calculated_by_hand():
    case = face()
    answers = [
        Levels(name, valence, 0.0, {unit: unit == 1 or (unit == 2 and name == "fear") for unit in FACIAL_UNITS})
        for name, valence in (("fear", -0.2), ("fear", -0.4), ("surprise", 0.0), ("fear", -0.6))
    ]
    found = combine([Answer(levels) for levels in answers], case, PRIORS)
    assert found.levels.expression == "fear" and found.levels.active() == (1, 2)
    nats = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found.total("expression") == pytest.approx(nats / math.log(8))
    assert found.levels.valence == pytest.approx(-0.3) and found.total("valence") == pytest.approx(math.sqrt(0.2 / 3))
    assert found.total("unit:2") == pytest.approx(nats / math.log(2)) and found.total("unit:1") == 0.0
    assert combine([Answer(answers[0])], case, PRIORS).total("expression") is None


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=40))
def test_measures(rows):
    scores, errors = [row[0] for row in rows], [row[1] for row in rows]
    # Mann-Whitney: ties count half.
    comparisons = [
        (one > other) + 0.5 * (one == other) for one, is_error in rows if is_error for other, wrong in rows if not wrong
    ]
    expected = pytest.approx(sum(comparisons) / len(comparisons)) if comparisons else None
    assert auroc(scores, errors) == expected
    assert concordance([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]) == 1.0
    # cov 2/3, var 2/3 each, means 1 apart: (4/3) / (4/3 + 1)
    assert concordance([0.0, 1.0, 2.0], [1.0, 2.0, 3.0]) == pytest.approx(4 / 7)


SURE = {"expression": "fear", "valence": -0.5, "arousal": 0.6, "units": [1, 2, 4, 5]}
OTHER = {"expression": "sadness", "valence": -0.5, "arousal": 0.6, "units": [1, 4, 15]}
VERDICTS = ("expression_verdict", "valence_verdict", "arousal_verdict", "units_verdict")
KEEP = {**dict.fromkeys(VERDICTS, "keep"), "unclear_units": [], "reason": ""}


@pytest.mark.parametrize(
    ("changes", "answers", "num_answers", "num_reviews"),
    [
        ({}, [SURE], 4, 1),
        ({}, [SURE, OTHER], 8, 1),
        ({"adaptive": False, "n0": 5}, [SURE, OTHER], 5, 1),
        ({"sampling": False}, [SURE, OTHER], 1, 1),
        ({"verification": "rules"}, [SURE], 4, 0),
        ({"verification": "doubtful"}, [SURE], 4, 0),
        ({"verification": "doubtful"}, [SURE, OTHER], 8, 1),
        ({"verification": "off", "n_max": 4}, [SURE, OTHER], 4, 0),
        ({}, [{"expression": "none"}], 8, 0),
    ],
)
def test_number_of_requests(changes, answers, num_answers, num_reviews):
    annotator = Scripted(answers, {**SURE, **KEEP})
    (outcome,) = complete([face()], annotator, SekeSettings(**changes), PRIORS)
    reviews = [item for item in annotator.questions if item.proposal]
    assert (len(annotator.questions) - len(reviews), len(reviews)) == (num_answers, num_reviews)
    assert outcome.num_calls == len(annotator.questions)
    assert (outcome.missing_reason == "unreadable") == (answers[0] != SURE)


def test_reviews():
    def run(review, **known):
        case = face(**known)
        return complete([case], Scripted([{**SURE}], review), SekeSettings(), PRIORS)[0]

    changed = run({**OTHER, **KEEP, "expression_verdict": "correct", "units_verdict": "discard"})
    assert changed.levels.expression == "sadness" and changed.levels.valence == pytest.approx(-0.5)
    units = [f"unit:{unit}" for unit in FACIAL_UNITS]
    verdicts = {"expression": "corrected", "valence": "kept", "arousal": "kept", **dict.fromkeys(units, "discarded")}
    assert changed.verdicts == verdicts
    assert not changed.levels.units and changed.reasons == dict.fromkeys(units, "review")
    # One axis and one unit by themselves.
    single = run({**SURE, **KEEP, "arousal": 0.1, "arousal_verdict": "correct", "unclear_units": [4]})
    assert (single.levels.valence, single.levels.arousal) == (pytest.approx(-0.5), 0.1)
    assert 4 not in single.levels.units and len(single.levels.units) == 16 and single.reasons == {"unit:4": "review"}
    broken = run({**SURE, **KEEP, "expression": "awe", "expression_verdict": "correct"})
    assert broken.levels.expression == "fear" and broken.review["status"] == "unreadable"
    # Known happiness, generated valence of -0.5, no readable review: the rules discard the valence.
    ruled = run({"x": 1}, emotion="happiness", label_set="ekman6")
    assert ruled.reasons == {"valence": "rules"} and ruled.levels.valence is None and ruled.levels.units
    assert ruled.levels.arousal == pytest.approx(0.6)
    assert {finding.rule for finding in ruled.findings} == {"region", "prototype"}
    confirmed = run({**SURE, **KEEP}, emotion="happiness", label_set="ekman6")
    assert confirmed.levels.valence == pytest.approx(-0.5)


def test_priors_in_both_directions():
    known = face(emotion="sadness", label_set="ekman6")
    assert any("1+4+15" in line for line in hints(known, PRIORS)) and any(
        "-1 to -0.1" in line for line in hints(known, PRIORS)
    )
    coded = face(action_units={unit: 5 * (unit in (6, 12)) for unit in FACIAL_UNITS})
    assert "happiness (1.00)" in " ".join(hints(coded, PRIORS))
    annotator = PriorAnnotator(PRIORS)
    seke = SekeSettings()
    outcomes = complete([known, coded], annotator, seke, PRIORS)
    # Units of a sad face that more than half of the people used, in the published table.
    assert outcomes[0].levels.active() == (1, 4, 15, 17) and outcomes[1].levels.expression == "happiness"
    assert complete([face()], annotator, seke, PRIORS)[0].missing_reason == "nothing_known"
    other = face(emotion="other", label_set="aff_wild8")
    assert complete([other], annotator, seke, PRIORS)[0].missing_reason == "nothing_known"
    assert not contradictions(outcomes[0].case.known, outcomes[0].levels, PRIORS, seke)


@pytest.fixture(scope="module")
def simulation():
    path = Path(__file__).resolve().parents[2] / "tools" / "bench" / "simulated_faces.py"
    spec = importlib.util.spec_from_file_location("simulated_faces", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _run(simulation, records, truth, errors, **changes):
    # All levels are hidden, so nothing depends on tables.
    cases = [Case(item, Levels(), LEVELS) for item in records]
    annotator = simulation.SimulatedAnnotator(truth, simulation.Errors(**errors))
    changes = {"verification": "always", "prior": False, **changes}
    outcomes = complete(cases, annotator, SekeSettings(**changes), PRIORS)
    pairs = [Pair(truth[item.case.record.id], item.levels, item.estimate) for item in outcomes]
    assert sum(item.num_calls for item in outcomes) == annotator.num_calls
    return measure(pairs, num_resamples=100), annotator.num_calls / len(cases)


@pytest.mark.parametrize("shared", [0.0, 0.4])
def test_verified_levels_are_closer_to_the_truth(shared, simulation):
    records, truth = simulation.simulated_faces(200)
    errors = {"shared": shared, "by_prompt": 0.0}
    single, _ = _run(simulation, records, truth, errors, sampling=False, verification="off")
    votes, _ = _run(simulation, records, truth, errors, verification="off")
    verified, num_calls = _run(simulation, records, truth, errors)
    assert 5 <= num_calls <= 9
    for level in LEVELS:
        assert verified[level]["low"] > single[level]["value"], level
        assert verified[level]["kept"] > 0.6
        # Without a review, votes only correct errors that the answers do not share.
        assert votes[level]["kept"] > 0.99
        assert votes[level]["low"] > single[level]["value"] or shared > 0.0, level
    assert all(verified[level]["auroc"] > 0.6 for level in LEVELS)
    rates = "expression missed imagined affect_noise unreadable valence_bias arousal_bias false_alarm"
    perfect, _ = _run(simulation, records[:40], truth, dict.fromkeys(rates.split(), 0.0))
    assert {level: perfect[level]["value"] for level in LEVELS} == {"expression": 1.0, "affect": 1.0, "units": 1.0}


@pytest.mark.parametrize("verdict", [[], {}, ["keep"], 1, None, True, "Keep"])
def test_a_verdict_of_any_type_is_unreadable_and_ends_nothing(verdict):
    answer = {"expression": "fear", "valence": -0.5, "arousal": 0.5, "units": [1, 2]}
    review = {**answer, **KEEP, "expression_verdict": verdict}
    (outcome,) = complete([face()], Scripted([answer], review), SekeSettings(), PRIORS)
    assert outcome.review["status"] == "unreadable" and "expression_verdict" in outcome.review["detail"]
    assert outcome.levels.expression == "fear"


@pytest.mark.parametrize(
    "text",
    [
        '{"expression": "fear", "valence": 0, "arousal": 0, "units": []}\n'
        'No: {"expression": "anger", "valence": 0, "arousal": 0, "units": []}',
        'Format: {"expression": "joy"} {"expression": "fear", "valence": 0, "arousal": 0, "units": []}',
        '{"expression": "anger", "expression": "fear", "valence": 0, "arousal": 0, "units": []}',
    ],
)
def test_no_level_is_taken_from_one_of_several_answers(text):
    assert read_answer(text, face()) == "not one JSON object"


@pytest.mark.parametrize("given", ["unit:x", "unit:", "unit:\u00b2 unit:1", 3])
def test_marks_of_an_earlier_run_that_were_edited_end_nothing(given):
    case = face(action_units={1: 1.0, 4: 0.0}, extra={"seke_given": given})
    assert case is not None and 4 in case.known.units
