"""How far to trust each teacher, from labelled records.

- A confusion matrix is the one calculated by hand, smoothed, with counts by source; labels only by people count.
- The posterior of several teachers is that of scikit-learn's naive Bayes, and for shared errors the exponent halves it.
- SEKE and the teachers' own combination take the posterior of all of them, not the mean of their posteriors.
- The votes of a program count as its doubt, those of people do not change their label.
- Tables that do not fit are refused by name.
"""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.naive_bayes import CategoricalNB

from lavis_emovit.emotion.facial import FacialPriors, facial_priors
from lavis_emovit.emotion.facial_knowledge import Evidence, infer
from lavis_emovit.emotion.teacher_reliability import seen_by
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.generation.seke.completion import complete
from lavis_emovit.generation.seke.fitting import count_faces, fit_priors
from lavis_emovit.generation.seke.fitting_teachers import JudgedFace, fit_teachers, judged_faces
from lavis_emovit.generation.seke.levels import case_of, evidence_of
from lavis_emovit.generation.seke.settings import SekeSettings
from lavis_emovit.generation.seke.teachers import TeacherAnnotator
from lavis_emovit.records import EmotionRecord
from lavis_emovit.teachers.combining import weigh

PRIORS = facial_priors()
CLASSES = ["happiness", "neutral"]
HAPPY, CALM = {"happiness": 1.0}, {"neutral": 1.0}


def record(number, emotion="happy", label_set="neutral_happy2", **values):
    return EmotionRecord(
        id=f"a/{number}", image="a.jpg", split="train", source="a", emotion=emotion, label_set=label_set, **values
    )


class Stated:
    """Teachers with an answer by record id."""

    def __init__(self, **answers):
        self.titles, self.answers = list(answers), answers

    def look(self, records, numbers):
        for one in records:
            found = [self.answers[self.titles[number]].get(one.id) for number in numbers]
            yield [("ok", votes, "") if votes else ("no_face", None, "") for votes in found]


def tables(exponents=(1.0, 1.0), **rows):
    """Packaged tables with teachers: name -> probability of the label `happiness`, by the expressions of `CLASSES`."""
    confusion = {
        title: {name: dict.fromkeys(CLASSES, 0.5) for name in PRIORS.expressions}
        | {name: {"happiness": share, "neutral": 1 - share} for name, share in zip(CLASSES, shares)}
        for title, shares in rows.items()
    }
    teachers = {title: {"confusion": table, "source": "rest"} for title, table in confusion.items()}
    return FacialPriors.model_validate({**PRIORS.model_dump(), "teachers": teachers, "exponents": exponents})


def test_a_matrix_by_hand():
    people = [
        JudgedFace("happiness", "a", "1", {"t": {"happiness": 1.0, "neutral": 0.0}}),
        JudgedFace("happiness", "a", "2", {"t": {"happiness": 1.0}}),
        JudgedFace("happiness", "b", "3", {"t": {"happiness": 0.5, "neutral": 0.5}}),
        JudgedFace("neutral", "a", "1", {"t": {"happiness": 0.2, "neutral": 0.8}}),
    ]
    table = fit_teachers(people, PRIORS, smoothing=2).teachers["t"]
    assert table.counts == {
        "a": {"happiness": {"happiness": 2.0, "neutral": 0.0}, "neutral": {"happiness": 0.2, "neutral": 0.8}},
        "b": {"happiness": {"happiness": 0.5, "neutral": 0.5}},
    }
    # 3.3 of 4 votes are right; with 2 faces at chance of two labels, (3.3 + 1) / 6.
    assert table.confusion["happiness"] == pytest.approx(
        {"happiness": (2.5 + 2 * 4.3 / 6) / 5, "neutral": (0.5 + 2 * 1.7 / 6) / 5}
    )
    assert table.confusion["neutral"]["neutral"] == pytest.approx((0.8 + 2 * 4.3 / 6) / 3)
    # Nothing is known about a face that is sad, which the teacher never says.
    assert table.confusion["sadness"] == {"happiness": 0.5, "neutral": 0.5}
    with pytest.raises(DataError, match="no face with an expression by people"):
        fit_teachers([], PRIORS)


def test_only_labels_by_people_and_judged_faces_count():
    people = [
        record(0),
        record(1, extra={"expression_by": "t"}),
        record(2, extra={"seke_given": "expression"}),
        record(3, emotion="other", label_set="aff_wild8"),
        record(4, group="anna"),
    ]
    skipped = Counter()
    teachers = Stated(t={one.id: HAPPY for one in people[:4]}, u={"a/0": CALM})
    (face,) = judged_faces(people, teachers, PRIORS, skipped)
    assert face == JudgedFace("happiness", "a", "a/0", {"t": HAPPY, "u": CALM})
    assert skipped == {
        "faces without an expression by people": 2,
        "expression 'other' is not in the tables": 1,
        "faces that no teacher judges": 1,
    }


def draw(rng, truth, accuracy):
    return truth if rng.random() < accuracy[truth] else next(name for name in CLASSES if name != truth)


def simulated(kind, number=600):
    """Faces that two teachers judge: independently, or the second as the first."""
    rng, faces = random.Random(0), []
    for place in range(number):
        truth = CLASSES[place % 3 > 0]
        one = draw(rng, truth, {"happiness": 0.7, "neutral": 0.9})
        two = draw(rng, truth, {"happiness": 0.8, "neutral": 0.6}) if kind == "independent" else one
        faces.append(JudgedFace(truth, "a", str(place), {"one": {one: 1.0}, "two": {two: 1.0}}))
    return faces


def test_the_posterior_is_that_of_naive_bayes():
    faces = simulated("independent")
    counted = count_faces([record(n, face.expression, "expressions7") for n, face in enumerate(faces)], PRIORS)
    fitted = fit_teachers(faces, fit_priors(counted, PRIORS, smoothing=1e-6), smoothing=1e-6)
    columns = np.array([[CLASSES.index(*face.votes[title]) for title in ("one", "two")] for face in faces])
    model = CategoricalNB(alpha=1e-9).fit(columns, [face.expression for face in faces])
    same = fitted.model_copy(update={"exponents": (1.0, 1.0)})
    for one in (0, 1):
        for two in (0, 1):
            votes = {"one": {CLASSES[one]: 1.0}, "two": {CLASSES[two]: 1.0}}
            expected = dict(zip(model.classes_, model.predict_proba([[one, two]])[0]))
            assert weigh(votes, same, CLASSES).votes == pytest.approx(expected, rel=1e-4)
    # Independent teachers need no exponent, and two that always agree count as one.
    assert fitted.exponents == pytest.approx((1.0, 1.0), abs=0.15)
    single, both = fit_teachers(simulated("the same"), PRIORS, smoothing=1e-6).exponents
    assert both == pytest.approx(single / 2, rel=1e-3)
    # With few faces, the exponent stays near 1.
    assert fit_teachers(simulated("the same", 6), PRIORS, smoothing=50).exponents == pytest.approx((1, 1), abs=0.1)


def test_votes_together_by_hand():
    priors = tables((1.0, 0.5), one=(0.8, 0.3), two=(0.6, 0.1))
    found = weigh({"one": HAPPY, "two": CALM}, priors, CLASSES)
    odds = math.sqrt(0.8 * 0.4 / (0.3 * 0.9))
    assert found.label == "happiness" and found.votes["happiness"] == pytest.approx(odds / (1 + odds))
    assert found.entropy == pytest.approx(entropy([odds, 1]) / math.log(2))
    alone = [[0.8 / 1.1, 0.3 / 1.1], [0.4 / 1.3, 0.9 / 1.3]]
    doubt = sum(map(entropy, alone)) / 2
    assert found.mutual_information == pytest.approx((entropy(np.mean(alone, axis=0)) - doubt) / math.log(2))
    # A vote counts by its probabilities, and equal ones say nothing.
    half = seen_by({"one": {"happiness": 0.25, "neutral": 0.75}}, priors)
    assert half["happiness"] / half["neutral"] == pytest.approx((0.25 * 0.8 + 0.75 * 0.2) / (0.25 * 0.3 + 0.75 * 0.7))
    assert set(seen_by({"one": {"happiness": 0.5, "neutral": 0.5}}, priors).values()) == {1.0}
    assert weigh({"one": HAPPY}, priors, CLASSES).mutual_information == 0.0
    # A label that the teacher has never stated before says nothing.
    assert set(seen_by({"one": {"fear": 1.0}}, priors).values()) == {1.0}


def test_seke_takes_all_teachers_together():
    priors = tables((1.0, 0.5), one=(0.8, 0.3), two=(0.6, 0.1))
    settings = SekeSettings(teachers=("one", "two"), verification="off")
    bare = record(0, None)
    annotator = TeacherAnnotator(Stated(one={"a/0": HAPPY}, two={"a/0": CALM}), settings, priors)
    (outcome,) = complete([case_of(bare, active_from=1.0)], annotator, settings, priors)
    odds = math.sqrt(0.8 * 0.4 / (0.3 * 0.9))
    share = odds / (1 + odds)
    spread = outcome.estimate.spreads["expression"]
    assert outcome.levels.expression == "happiness" and spread.num_answers == 2
    assert spread.total == pytest.approx(entropy([share, 1 - share]) / math.log(2))
    assert spread.between == pytest.approx(weigh({"one": HAPPY, "two": CALM}, priors, CLASSES).mutual_information)
    happy, calm = (PRIORS.expressions[name] for name in CLASSES)
    assert outcome.levels.valence == pytest.approx(
        share * happy.axis("valence")[0] + (1 - share) * calm.axis("valence")[0]
    )
    unit = share * happy.probability(12) + (1 - share) * calm.probability(12)
    assert outcome.estimate.total("unit:12") == pytest.approx(entropy([unit, 1 - unit], base=2))
    # Without the tables, and without the reliability of a teacher.
    plain = SekeSettings(teachers=("one", "two"), verification="off", prior=False)
    unknown = Stated(one={"a/0": HAPPY}, three={"a/0": CALM})
    (outcome,) = complete([case_of(bare, active_from=1.0)], TeacherAnnotator(unknown, plain, priors), plain, priors)
    assert outcome.estimate.total("expression") == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="no reliability of three, only of one, two"):
        TeacherAnnotator(unknown, settings, priors)


def test_votes_of_a_program_are_its_doubt():
    votes = {"happy": 0.7, "neutral": 0.3}
    program = record(0, votes=votes, extra={"expression_by": "face-api 1.7.15"})
    evidence = evidence_of(case_of(program, active_from=1.0), PRIORS)
    assert evidence.votes == {"happiness": 0.7, "neutral": 0.3} and evidence.expression == "happiness"
    happy, calm = (PRIORS.expressions[name] for name in CLASSES)
    assert infer(PRIORS, evidence).units[12] == pytest.approx(0.7 * happy.probability(12) + 0.3 * calm.probability(12))
    # The other levels count too, and how frequent an expression is does not count twice.
    smile = infer(PRIORS, Evidence("happiness", units={12: True}, votes=evidence.votes))
    odds = 0.7 * happy.probability(12) / (0.3 * calm.probability(12))
    assert smile.expressions == pytest.approx({"happiness": odds / (1 + odds), "neutral": 1 / (1 + odds)})
    # Synonyms count together.
    synonyms = record(
        0, "happy", "labels: happy, happiness, neutral", votes={"happy": 0.4, "happiness": 0.3, "neutral": 0.3},
        extra={"expression_by": "t"},
    )  # fmt: skip
    assert evidence_of(case_of(synonyms, active_from=1.0), PRIORS).votes == pytest.approx(evidence.votes)
    people = evidence_of(case_of(record(0, votes=votes), active_from=1.0), PRIORS)
    assert not people.votes and infer(PRIORS, people).expressions == {"happiness": 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(exponents=(1.0,)), "one number for each number of teachers"),
        (lambda content: content["teachers"]["one"].update(source="nobody"), "teacher 'one' cites 'nobody'"),
        (lambda content: content["teachers"]["one"]["confusion"].pop("fear"), "must have a row for each of"),
        (lambda content: content["teachers"]["one"]["confusion"]["fear"].update(neutral=0.6), "must sum to 1"),
    ],
)
def test_tables_that_do_not_fit(change, message):
    content = tables(one=(0.8, 0.3), two=(0.6, 0.1)).model_dump()
    change(content)
    with pytest.raises(ValueError, match=message):
        FacialPriors.model_validate(content)
