"""Uncertainty of completed levels, apart for what varies within prompts and between them.

- Entropies, mutual information and variances agree with values calculated by hand and with scipy's entropy.
- Views differ in what the settings name; over many faces, the tables are in half of the prompts of every form.
- An item with enough agreement gets no further question; unknown items are asked for alone, known axes not at all.
- Each unit and axis is discarded by itself, with its reason in the record.
- A blind reviewer gets neither the proposal nor the tables, and rejects exactly what it sees differently.
- Rejected items are asked about again with all earlier answers kept, and discarded if nothing changes.
- The influence of the tables has the size with which an annotator follows them.
- Crops and mirrored images show the right pixels, and have fingerprints of their own.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import entropy

from lavis_emovit.chat.request import ChatRequest, Message, image_of, load_rgb
from lavis_emovit.emotion.facial import FACIAL_UNITS, facial_priors
from lavis_emovit.generation.seke.annotators import Reply
from lavis_emovit.generation.seke.completion import complete
from lavis_emovit.generation.seke.levels import case_of
from lavis_emovit.generation.seke.settings import Limits, SekeSettings
from lavis_emovit.generation.seke.step import agreement_with_tables, story, with_levels
from lavis_emovit.generation.seke.uncertainty import spread_of_choices, spread_of_numbers
from lavis_emovit.generation.seke.views import View, in_order, plan_views, shown
from lavis_emovit.records import EmotionRecord

PRIORS = facial_priors()
FORMS = ("wording", "order", "is_cropped", "is_mirrored")


def face(number=0, **values):
    record = EmotionRecord(id=f"a/{number}", image="a.jpg", split="train", source="a", **values)
    return case_of(record, active_from=1.0)


class Answering:
    """Answers with what a function of the question returns; reviews keep everything."""

    name, reviewer, kind, stopped, num_wordings = "answering", "critic", "model", None, 3

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def num_answers(self, case):
        return None

    def ask(self, label, questions):
        self.asked += questions
        return [Reply(json.dumps(self.answer(question))) for question in questions]


def answer(question, **values):
    full = {"expression": "fear", "valence": -0.5, "arousal": 0.6, "units": [1, 2, 4, 5], **values}
    full["units"] = [unit for unit in full["units"] if unit in question.case.units]
    items = {"units" if item.startswith("unit:") else item for item in question.case.items}
    return {name: value for name, value in full.items() if name in items}


def test_choices_by_hand():
    # One prompt always answers 0, the other one half and half.
    spread = spread_of_choices({0: [0, 0], 1: [0, 1]}, 2)
    assert spread.total == pytest.approx(entropy([3, 1], base=2))
    assert spread.within == pytest.approx(0.5)
    assert spread.between == pytest.approx(entropy([3, 1], base=2) - 0.5)
    # The prompt decides everything; the prompt decides nothing.
    decided, open_ = spread_of_choices({0: [0, 0], 1: [1, 1]}, 2), spread_of_choices({0: [0, 1], 1: [1, 0]}, 2)
    assert (decided.within, decided.between) == (0.0, pytest.approx(1.0))
    assert (open_.within, open_.between) == (pytest.approx(1.0), 0.0)
    assert spread_of_choices({0: [0, 1]}, 8).total == pytest.approx(math.log(2) / math.log(8))
    # A view with one answer says nothing about what varies within it.
    assert spread_of_choices({0: [0, 1], 1: [1]}, 2).within is None
    assert spread_of_choices({0: [0]}, 2).total is None


def test_numbers_by_hand():
    spread = spread_of_numbers({0: [0.1, 0.3], 1: [0.5, 0.9]})
    assert spread.total == pytest.approx(np.std([0.1, 0.3, 0.5, 0.9], ddof=1))
    # Variances 0.02 and 0.08; means 0.2 and 0.7, of which 0.05 / 2 is chance.
    assert spread.within == pytest.approx(math.sqrt(0.05))
    assert spread.between == pytest.approx(math.sqrt(0.125 - 0.025))
    assert spread_of_numbers({0: [0.1, 0.9], 1: [0.2, 0.8]}).between == 0.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=2, max_size=6))
def test_parts_add_up(groups):
    spread = spread_of_choices(dict(enumerate(groups)), 4)
    pooled = Counter(value for values in groups for value in values)
    assert spread.within + spread.between == pytest.approx(entropy(list(pooled.values())) / math.log(4), abs=1e-9)
    # Mutual information of answer and view, from the joint counts.
    joint = np.array([[values.count(choice) for choice in range(4)] for values in groups]) / pooled.total()
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    mutual = float((joint[seen] * np.log(joint[seen] / outer[seen])).sum())
    assert spread.between == pytest.approx(mutual / math.log(4), abs=1e-9)


def test_views():
    cases = [face(number, emotion="fear", label_set="ekman6") for number in range(400)]
    plans = [plan_views(case, SekeSettings(), PRIORS, 3) for case in cases]
    assert all(sum(view.is_hinted for view in plan) == 2 for plan in plans)
    assert plans[0][0] == View(0, is_hinted=plans[0][0].is_hinted)
    for name in FORMS:
        for value in {getattr(view, name) for view in plans[0]}:
            hinted = [view.is_hinted for plan in plans for view in plan if getattr(view, name) == value]
            assert 0.4 < np.mean(hinted) < 0.6, name
    fixed = plan_views(cases[0], SekeSettings(vary=()), PRIORS, 3)
    assert fixed == [View(is_hinted=True)]
    only = plan_views(cases[0], SekeSettings(vary=("mirror",), num_views=3), PRIORS, 3)
    assert {(view.wording, view.order, view.is_cropped, view.is_hinted) for view in only} == {(0, 0, False, True)}
    assert {view.is_mirrored for view in only} == {False, True}
    # Tables that say nothing about a face, and tables that are switched off, vary nothing.
    assert not any(view.is_hinted for view in plan_views(face(), SekeSettings(), PRIORS, 3))
    assert plan_views(cases[0], SekeSettings(vary=("prior",), prior=False), PRIORS, 3) == [View()]
    ordered = in_order(cases[0], plans[0][1])
    assert ordered.units != FACIAL_UNITS and sorted(ordered.units) == list(FACIAL_UNITS)
    assert in_order(cases[0], plans[0][0]) == cases[0]


def test_only_open_items_are_asked_again():
    case = face(valence=0.4, action_units={unit: 0.0 for unit in FACIAL_UNITS if unit not in (4, 5)})
    assert case.items == ("expression", "arousal", "unit:4", "unit:5")
    # Agreement on all but unit 4.
    annotator = Answering(lambda item: answer(item, units=[4, 5] if item.sample % 2 else [5]))
    (outcome,) = complete([case], annotator, SekeSettings(verification="off"), PRIORS)
    first, more = annotator.asked[:4], annotator.asked[4:]
    assert all(set(question.case.items) == set(case.items) for question in first)
    assert len(more) == 4 and all(question.case.items == ("unit:4",) for question in more)
    assert all("expression:" not in question.text.split("Wanted:")[1] for question in more)
    assert outcome.estimate.spreads["unit:4"].num_answers == 8
    assert outcome.estimate.spreads["unit:5"].num_answers == 4
    assert outcome.levels.valence is None and outcome.levels.arousal == pytest.approx(0.6)
    completed = with_levels(outcome, "chat:m")
    assert (completed.valence, completed.arousal) == (0.4, 0.6)
    assert (
        completed.extra["seke_affect_by"] == "person + chat:m" and completed.extra["seke_given"].count("valence") == 0
    )


def test_each_item_is_discarded_by_itself():
    def noisy(question):
        units = [1, 2] if question.sample % 2 else [1, 2, 4]
        return answer(question, arousal=0.9 if question.sample % 2 else -0.9, units=units)

    (outcome,) = complete([face()], Answering(noisy), SekeSettings(verification="rules"), PRIORS)
    assert outcome.reasons == {"arousal": "uncertain", "unit:4": "uncertain"}
    assert outcome.levels.valence == pytest.approx(-0.5) and outcome.levels.arousal is None
    assert set(FACIAL_UNITS) - set(outcome.levels.units) == {4}
    record = with_levels(outcome, "chat:m")
    assert record.extra["seke_reasons"] == "arousal:uncertain unit:4:uncertain"
    assert 4 not in record.action_units and record.valence == -0.5 and record.arousal is None
    assert "unit:kept*16 unit:discarded*1" in record.extra["seke_verdicts"]
    # Answers alternate with the view: all of it is between prompts.
    assert record.extra["seke_between_prompts"].startswith("expression:0 valence:0 arousal:1.039 units:0.05882")
    row = story(outcome, "chat:m")
    assert row["uncertainty"]["unit:4"] == {"num_answers": 8, "total": 1.0, "within": 0.0, "between": 1.0}
    assert [item["view"] for item in row["attempts"]] == [0, 1, 2, 3] * 2 and len(row["views"]) == 4
    lenient = Limits(expression=0.6, valence=0.4, arousal=1.0, units=0.9, unit={4: 1.0})
    (kept,) = complete([face()], Answering(noisy), SekeSettings(verification="rules", too_much=lenient), PRIORS)
    assert kept.reasons == {}


def test_blind_reviewer():
    def differs(question):
        if question.is_blind:
            return answer(question, valence=-0.1, arousal=0.4, units=[1, 2, 4])
        return answer(question)

    case = face(0, action_units={12: 0.0})
    annotator = Answering(differs)
    (outcome,) = complete([case], annotator, SekeSettings(review="blind"), PRIORS)
    (blind,) = [question for question in annotator.asked if question.is_blind]
    assert blind.proposal is None and "Proposal" not in blind.text and "Usual connections" not in blind.text
    assert outcome.reasons == {"valence": "blind", "unit:5": "blind"} and outcome.num_calls == 5
    assert outcome.levels.arousal == pytest.approx(0.6) and outcome.levels.expression == "fear"
    assert outcome.review["by"] == "critic" and outcome.review["verdicts"] == {"differs": ["valence", "unit:5"]}
    record = with_levels(outcome, "chat:m")
    assert record.extra["seke_reviewed_by"] == "critic" and record.extra["seke_reasons"] == "valence:blind unit:5:blind"
    (agreed,) = complete([case], Answering(answer), SekeSettings(review="blind"), PRIORS)
    assert agreed.reasons == {} and agreed.verdicts["unit:5"] == "kept"


def test_resampling():
    def settles(question):
        """Divided about arousal in the first eight answers, and of one mind after that."""
        return answer(question, arousal=0.6 if question.sample >= 8 else (-0.9, 0.9)[question.sample % 2])

    kept = Limits(expression=1.0, valence=1.0, arousal=0.8, units=1.0)
    changes = {"verification": "rules", "prior": False, "too_much": kept}
    (once,) = complete([face()], Answering(settles), SekeSettings(**changes), PRIORS)
    assert once.reasons == {"arousal": "uncertain"} and once.num_calls == 8
    annotator = Answering(settles)
    (again,) = complete([face()], annotator, SekeSettings(resamples=3, **changes), PRIORS)
    # Eight answers of 0.9 either way and four of 0.6 have a standard deviation of 0.80.
    assert all(question.case.items == ("arousal",) for question in annotator.asked[8:])
    values = [-0.9, 0.9] * 4
    while np.std(values, ddof=1) > 0.8:
        values += [0.6] * 4
    assert again.estimate.spreads["arousal"].num_answers == len(values) == again.num_calls
    assert again.levels.arousal == pytest.approx(np.mean(values)) and again.num_resamples == (len(values) - 8) // 4
    divided = Answering(lambda question: answer(question, arousal=(-0.9, 0.9)[question.sample % 2]))
    (never,) = complete([face()], divided, SekeSettings(resamples=2, **changes), PRIORS)
    assert never.reasons == {"arousal": "uncertain"} and never.num_calls == 16 and never.num_resamples == 2


def test_influence_of_the_tables():
    """An annotator that says what the tables say if it sees them, and else something else."""

    def swayed(question):
        if question.view.is_hinted:
            return answer(question, expression="sadness", valence=-0.4, arousal=-0.3, units=[1, 4, 15, 17])
        return answer(question, valence=0.4, arousal=0.3, units=[])

    cases = [face(number, emotion="sadness", label_set="ekman6") for number in range(20)]
    outcomes = complete(cases, Answering(swayed), SekeSettings(verification="off"), PRIORS)
    influence = outcomes[0].estimate.prior_influence
    assert influence["valence"] == pytest.approx(-0.8) and influence["unit:4"] == 1.0 and influence["unit:12"] == 0.0
    assert with_levels(outcomes[0], "m").extra["seke_prior_influence"].startswith("valence:-0.8 arousal:-0.6 units:0.2")
    found = agreement_with_tables(outcomes, PRIORS)
    assert found["valence"] == {"with": 1.0, "without": 0.0} and found["unit"]["with"] > found["unit"]["without"]
    hidden = [face(number, action_units={u: 3.0 * (u in (1, 4, 15)) for u in FACIAL_UNITS}) for number in range(20)]
    (first, *_) = complete(hidden, Answering(swayed), SekeSettings(verification="off"), PRIORS)
    assert first.estimate.prior_influence["expression"] == 1.0  # no answer in common
    indifferent = complete(cases, Answering(answer), SekeSettings(verification="off"), PRIORS)
    assert not any(indifferent[0].estimate.prior_influence.values())
    # One prompt, so nothing to compare.
    fixed = complete(cases, Answering(swayed), SekeSettings(verification="off", vary=()), PRIORS)
    assert fixed[0].estimate.prior_influence == {} and agreement_with_tables(fixed, PRIORS) == {}


def test_images_of_views(tmp_path):
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 150:] = 255
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    whole = image_of(path)
    request = ChatRequest("m", (Message("user", "?", (whole,)),), {}, "p/1")

    def sent(view):
        (image,) = shown(request, view).messages[0].images
        data = base64.b64decode(image.data_url().partition(",")[2])
        return np.asarray(load_rgb(data, path)).mean(axis=(0, 2)) > 128

    assert shown(request, View()) == request
    assert not sent(View())[:140].any() and sent(View())[160:].all()
    mirrored = sent(View(is_mirrored=True))
    assert mirrored[:40].all() and not mirrored[60:].any()
    cropped = sent(View(is_cropped=True))
    assert len(cropped) == 200 - 2 * 12 and cropped[-30:].all() and not cropped[:130].any()
    prints = {
        shown(request, View(is_mirrored=m, is_cropped=c)).fingerprint for m in (False, True) for c in (False, True)
    }
    assert len(prints) == 4
    # The box of a person is widened instead.
    boxed = replace(request, messages=(Message("user", "?", (replace(whole, box=(50, 20, 150, 80)),)),))
    assert shown(boxed, View(is_cropped=True)).messages[0].images[0].box == (35.0, 11.0, 165.0, 89.0)
