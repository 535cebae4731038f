"""Teachers as annotators of SEKE.

- Probabilities are averaged, and their entropy is divided into doubt of the teachers and disagreement, as by hand; the
  same with the variances of valence and arousal.
- The tables turn expressions into the other levels by Bayes' rule; known levels and frequencies of expressions count.
- Further teachers are asked only about faces that are uncertain, and only about those items.
- A reviewer that sees another expression has it rejected; a face without an answer is counted by its reason.
- A known expression is not shown to a teacher; without tables, the expression is the only level.
- Records name the teachers that answered, and no others.
"""

from __future__ import annotations

import math

import pytest
from scipy.stats import entropy

from lavis_emovit.emotion.facial import FacialPriors, facial_priors
from lavis_emovit.emotion.facial_knowledge import Evidence, infer
from lavis_emovit.generation.seke.completion import complete
from lavis_emovit.generation.seke.levels import case_of
from lavis_emovit.generation.seke.measures import Pair, measure
from lavis_emovit.generation.seke.settings import Limits, SekeSettings
from lavis_emovit.generation.seke.step import story, with_levels
from lavis_emovit.generation.seke.teachers import TeacherAnnotator
from lavis_emovit.records import EmotionRecord

PRIORS = facial_priors()
TABLES = f"offline/priors:{PRIORS.version}"
TITLES = ("one 1.0", "two 2.0", "three 3.0")
LENIENT = Limits(expression=1.0, valence=1.0, arousal=1.0, units=1.0)
HAPPY, CALM, SAD = ({"happiness": 0.8, "neutral": 0.2}, {"happiness": 0.4, "neutral": 0.6}, {"sadness": 1.0})


class Stated:
    """Teachers with given answers by record id, the same for all records if it has no entry."""

    def __init__(self, *answers, titles=TITLES):
        self.answers, self.titles, self.shown = answers, titles[: len(answers)], []

    def look(self, records, numbers):
        for record in records:
            self.shown += [(record.id, number) for number in numbers]
            found = [self.answers[number] for number in numbers]
            yield [("ok", one, "") if isinstance(one, dict) else (one, None, "a reason") for one in found]


def face(number=0, **values):
    return EmotionRecord(id=f"a/{number}", image="a.jpg", split="train", source="a", **values)


def run(teachers, record=None, *, hide=None, priors=PRIORS, **changes):
    count = len(teachers.answers) - ("teacher_reviewer" in changes)
    changes = {"teachers": tuple("abc"[:count]), "too_much": LENIENT, **changes}
    settings = SekeSettings(**changes)
    case = case_of(record or face(), active_from=1.0, hide=hide)
    annotator = TeacherAnnotator(teachers, settings, priors)
    (outcome,) = complete([case], annotator, settings, priors)
    return outcome, annotator


def test_disagreement_and_doubt_by_hand():
    outcome, _ = run(Stated(HAPPY, CALM), prior=False)
    spread = outcome.estimate.spreads["expression"]
    assert outcome.levels.expression == "happiness"
    assert spread.total == pytest.approx(entropy([0.6, 0.4]) / math.log(8))
    assert spread.within == pytest.approx((entropy([0.8, 0.2]) + entropy([0.4, 0.6])) / 2 / math.log(8))
    assert spread.between == pytest.approx(spread.total - spread.within)
    assert set(outcome.estimate.spreads) == set(outcome.verdicts) == {"expression"}
    alone, _ = run(Stated(HAPPY), prior=False)
    single = alone.estimate.spreads["expression"]
    assert (single.within, single.between) == (None, None)
    assert single.total == pytest.approx(entropy([0.8, 0.2]) / math.log(8))


def test_the_tables_give_the_other_levels():
    outcome, _ = run(Stated(HAPPY, SAD))
    happy, sad, neutral = (PRIORS.expressions[name] for name in ("happiness", "sadness", "neutral"))
    means = [0.8 * happy.axis("valence")[0] + 0.2 * neutral.axis("valence")[0], sad.axis("valence")[0]]
    assert outcome.levels.valence == pytest.approx(sum(means) / 2)
    spread = outcome.estimate.spreads["valence"]
    assert spread.between == pytest.approx(abs(means[0] - means[1]) / 2)
    assert spread.total == pytest.approx(math.hypot(spread.within, spread.between))
    share = 0.8 * happy.probability(12) + 0.2 * neutral.probability(12)
    unit = outcome.estimate.spreads["unit:12"]
    mean = (share + sad.probability(12)) / 2
    assert unit.total == pytest.approx(entropy([mean, 1 - mean], base=2))
    assert outcome.levels.units[12] is (mean > 0.5)


def test_known_levels_and_frequencies_count():
    # Valence of -0.8 makes happiness unlikely, so a teacher in doubt is overruled.
    doubt = {"happiness": 0.55, "sadness": 0.45}
    assert run(Stated(doubt))[0].levels.expression == "happiness"
    known = face(valence=-0.8)
    assert run(Stated(doubt), known)[0].levels.expression == "sadness"
    assert run(Stated(doubt), known, prior=False)[0].levels.expression == "happiness"
    tables = PRIORS.model_dump()
    for name, table in tables["expressions"].items():
        table["share"] = {"happiness": 0.1, "sadness": 0.3}.get(name, 0.1)
    beliefs = infer(FacialPriors(**tables), Evidence(), seen=doubt)
    assert beliefs.expressions == pytest.approx({"happiness": 0.055 / 0.19, "sadness": 0.135 / 0.19})
    with pytest.raises(ValueError, match="no possible expression"):
        infer(PRIORS, Evidence(), classes=["fear"], seen=doubt)


@pytest.mark.parametrize(("first", "num_calls"), [({"happiness": 1.0}, 1), (HAPPY, 1), (CALM, 3)])
def test_further_teachers_only_while_uncertain(first, num_calls):
    limits = Limits(expression=0.3, valence=1.0, arousal=1.0, units=1.0)
    teachers = Stated(first, CALM, SAD)
    outcome, _ = run(teachers, n0=1, enough=limits)
    assert len(teachers.shown) == outcome.num_calls == outcome.estimate.spreads["expression"].num_answers == num_calls
    assert outcome.estimate.spreads["valence"].num_answers == 1
    fixed, _ = run(Stated(first, CALM, SAD), n0=1, adaptive=False, enough=limits)
    assert fixed.num_calls == 1 and run(Stated(first, CALM, SAD))[0].num_calls == 3


@pytest.mark.parametrize(
    ("reviewer", "status", "levels"),
    [(CALM, "ok", None), (HAPPY, "ok", "happiness"), ("no_face", "no_face", "happiness")],
)
def test_a_reviewer_that_differs(reviewer, status, levels):
    teachers = Stated(HAPPY, reviewer)
    outcome, annotator = run(teachers, teacher_reviewer="b", review="blind", prior=False)
    assert outcome.levels.expression == levels and outcome.num_calls == 2
    assert outcome.reasons == ({} if levels else {"expression": "blind"})
    assert outcome.review["by"] == annotator.reviewer == "two 2.0" and outcome.review["status"] == status
    assert annotator.name == "one 1.0"


def test_faces_without_an_answer():
    outcome, annotator = run(Stated("no_face", "crash"))
    assert outcome.missing_reason == "crash" and annotator.faults == {"no_face": "a reason", "crash": "a reason"}
    some, _ = run(Stated("no_face", HAPPY))
    assert some.levels.expression == "happiness" and some.num_calls == 2
    made = with_levels(some, "everybody")
    assert made.extra["seke_expression_by"] == f"{TABLES} + two 2.0" and made.extra["seke_num_answers"] == 1
    other, _ = run(Stated(SAD), face(label_set="neutral_happy2"))
    assert other.missing_reason == "no_such_expression"


def test_a_known_expression_is_not_shown():
    teachers = Stated(HAPPY, SAD, HAPPY)
    record = face(emotion="happiness", label_set="ekman6")
    outcome, _ = run(teachers, record, teacher_reviewer="c", review="blind")
    assert not teachers.shown and outcome.num_calls == 0 and outcome.levels.units[12]
    made = with_levels(outcome, "everybody")
    assert made.extra["seke_units_by"] == TABLES and "seke_reviewed_by" not in made.extra
    assert run(Stated(HAPPY), record, prior=False)[0].missing_reason == "nothing_known"


def test_hidden_levels_are_measured():
    record = face(emotion="happiness", label_set="ekman6")
    outcome, annotator = run(Stated(HAPPY, CALM), record, hide="expression")
    pair = Pair(case_of(record, active_from=1.0).known, outcome.levels, outcome.estimate)
    assert measure([pair])["expression"]["value"] == 1.0
    row = story(outcome, annotator.name)
    # `ekman6` has no neutral, so what the teachers gave to it is left out.
    assert [one["expressions"] for one in row["attempts"]] == [{"happiness": 1.0}] * 2
    assert row["attempts"][1]["by"] == [TABLES, "two 2.0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_reviewer": "b", "review": "blind"}, "another teacher"),
        ({"teachers": ("a",), "teacher_reviewer": "a", "review": "blind"}, "another teacher"),
        ({"teachers": ("a",), "teacher_reviewer": "b"}, "set review to `blind`"),
        ({"teachers": ("a", "a")}, r"same choice twice \(a\)"),
        ({"teachers": ("a",), "resamples": 1}, "set resamples to 0"),
    ],
)
def test_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        SekeSettings(**changes)
