"""Explanations: metrics of their words, and a judge.

- A text mentions a fact by whole words with regular inflections, not by letters ("cat" in "cathedral"); one of several
  alternatives is enough, each object counts; rows without facts are not in the grounding.
- Consistency counts invalid answers as wrong; contradictions are reasons of the other polarity; repetition, sentences,
  unfinished answers and other languages are counted as by hand.
- A judge's reply has a score only if it is a whole number from 1 to 5; the metrics agree with a count by hand; the
  request contains the known facts but not the model's name.
"""

from __future__ import annotations

import json

import pytest

from lavis_emovit.chat.request import ChatImage
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.judging import JudgeSettings, judge_metrics, judge_request, read_judgement
from lavis_emovit.evaluation.metrics.explanations import (
    explanation_metrics,
    grounding,
    reason_of,
    repetition,
    stem,
    words_of,
)
from lavis_emovit.evaluation.predictions import PredictionRow

MIKELS = get_label_set("mikels8")


@pytest.mark.parametrize(
    ("words", "meet"),
    [
        ("horse horses", True), ("ride riding rides", True), ("smile smiled smiling", True), ("party parties", True),
        ("run running", True), ("box boxes", True), ("dress dresses", True), ("stop stopped", True),
        ("fall falling", True), ("cat cathedral", False), ("art party", False), ("bus business", False),
        ("sing sin", False), ("red reed", False),
    ],
)  # fmt: skip
def test_inflections_are_equal_and_other_words_are_not(words, meet):
    assert (len({stem(word) for word in words.split()}) == 1) is meet


@pytest.mark.parametrize(
    ("text", "facts", "share"),
    [
        ("She rides her horses along the coast.", {"human_action": "riding_horse", "scene": "beach/coast"}, 1.0),
        ("A cathedral stands there.", {"object": "Cat"}, 0.0),
        ("Two cats and a dog.", {"object": "Cat, Dog, Tree, Car"}, 0.5),
        ("A dining table in a room.", {"scene": "dining_room"}, 1.0),
        ("A room.", {"scene": "dining_room"}, 0.0),
        ("", {"facial_expression": "happiness"}, 0.0),
        ("Anything.", {}, None),
        ("Anything.", {"brightness": "0.5"}, None),
    ],
)
def test_grounding(text, facts, share):
    assert grounding(words_of(text), {f"attributes.{name}": value for name, value in facts.items()}) == share


def _row(number, label, prediction, answer, **slices):
    return PredictionRow(
        instance_id=str(number),
        record_id=str(number),
        label=label,
        prediction=prediction,
        answer=answer,
        slices={f"attributes.{name}": value for name, value in slices.items()} or None,
    )


def test_metrics_counted_by_hand():
    answer = "Predict emotion: fear. Reason:"
    rows = [
        _row(1, "fear", "fear", f"{answer} the dark wood and the wolf in it. It howls.", object="Wolf"),
        # The reason claims contentment where the answer says fear.
        _row(2, "fear", "fear", f"{answer} the picture makes people feel content and calm.", object="Owl"),
        _row(3, "awe", None, "the sea the sea the sea the sea"),
        _row(4, "awe", "awe", "Predict emotion: awe."),
    ]  # fmt: skip
    error = PredictionRow(instance_id="5", record_id="5", label="awe", prediction=None, error="broken")
    found = explanation_metrics([*rows, error], MIKELS)
    assert (found.num_samples, found.num_errors, found.num_without_reason) == (4, 1, 2)
    assert found.consistency == 0.75 and found.consistency_interval.low < 0.75 < found.consistency_interval.high
    assert found.contradiction == 0.5
    assert (found.grounding, found.num_with_facts) == (0.5, 2)
    assert found.num_words == pytest.approx((14 + 12 + 8 + 3) / 4)
    assert found.num_sentences == pytest.approx((3 + 2 + 1 + 1) / 4)
    # "the sea the sea ...": of six three-word sequences two are new.
    assert repetition(words_of(rows[2].answer)) == pytest.approx(4 / 6) and found.repetition == pytest.approx(4 / 24)
    assert found.finished == 0.75 and found.english == 1.0
    with pytest.raises(DataError, match="are errors"):
        explanation_metrics([error], MIKELS)


def test_reason_is_the_text_after_the_emotion():
    assert reason_of("Predict emotion: awe. Reason: it is high.") == "it is high."
    assert reason_of("I feel awe because it is high.") == "it is high."
    assert reason_of("Awe. It is high! So high.") == "It is high! So high."
    assert reason_of("Awe") == ""


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"score": 4, "reason": "true"}', 4),
        ('Well:\n```json\n{"score": 1, "reason": "no"}\n```', 1),
        ('{"score": 6, "reason": "great"}', None),
        ('{"score": "5", "reason": "text"}', None),
        ('{"score": true, "reason": "yes"}', None),
        ('{"score": 3.5, "reason": "half"}', None),
        ("5", None),
        (None, None),
    ],
)
def test_judgement_has_a_whole_score_or_none(reply, score):
    settings = JudgeSettings(chat={"model": "judge-1"})
    row = _row(1, "fear", "fear", "Fear, because of the wolf.", object="Wolf")
    judgement = read_judgement(row, reply, settings.load_prompt(), settings.endpoint())
    assert judgement.score == score
    kept = json.loads(json.dumps(vars(judgement)))
    assert kept["judge"] == "judge-1" and kept["reply"] == reply and len(kept["prompt_sha256"]) == 64


def test_judge_metrics_and_request(tmp_path):
    settings = JudgeSettings(chat={"model": "judge-1"})
    prompt, chat = settings.load_prompt(), settings.endpoint()
    assert chat.temperature == 0.0 and prompt.name.startswith("explanation_judge.1@")
    row = _row(1, "fear", "fear", "Fear, because of the wolf.", object="Wolf")
    request = judge_request(row, ChatImage(tmp_path / "x", "0"), prompt, chat)
    text = request.messages[1].text
    assert "fear" in text and "things: Wolf" in text and row.answer in text and request.messages[1].images
    replies = ['{"score": 5, "reason": ""}', '{"score": 2, "reason": ""}', '{"score": 2, "reason": ""}', "no"]
    found = judge_metrics([read_judgement(row, reply, prompt, chat) for reply in replies])
    assert (found.num_judged, found.num_unusable, found.mean) == (3, 1, 3.0)
    assert found.counts == {1: 0, 2: 2, 3: 0, 4: 0, 5: 1} and 2.0 <= found.interval.low < 3.0 < found.interval.high
    assert judge_metrics([]) is None
    own = tmp_path / "mine.txt"
    own.write_text("Score it.")
    assert JudgeSettings(chat={"model": "j"}, prompt=str(own)).load_prompt().text == "Score it."
    with pytest.raises(UserError, match="cannot be read"):
        JudgeSettings(chat={"model": "j"}, prompt=str(tmp_path / "none")).load_prompt()
