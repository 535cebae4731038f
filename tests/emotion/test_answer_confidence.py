"""Reading stated confidence: in tags, after its name, as a percentage; ranges, other scales and contradictions are not
read; the rest of the answer is left for the other readers."""

from __future__ import annotations

import pytest

from lavis_emovit.emotion.answer_confidence import read_confidence, without_confidence


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Predict emotion: awe. Confidence: 0.8", 0.8),
        ("<think>0.3?</think><answer>awe</answer><confidence>0.85</confidence>", 0.85),
        ("<confidence>1.0</confidence>", 1.0),
        ("<confidence>90%</confidence>", 0.9),
        ("Confidence: 80%", 0.8),
        ("Confidence: 80/100", 0.8),
        ("I am 80% sure it is awe.", 0.8),
        ("Confidence score: .9", 0.9),
        ("**Confidence:** 0.7", 0.7),
        ("My confidence is about 0.6.", 0.6),
        ("Awe, confidence 0.9", 0.9),
        ("Confidence: 0", 0.0),
        ("Confidence: 0.8/1", 0.8),
        ("Confidence: 0.8. My confidence is 0.8", 0.8),
    ],
)
def test_confidence_is_read(text, value):
    assert read_confidence(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "Predict emotion: awe", "Confidence: high", "confidence: 80", "confidence: 0.7-0.9", "Confidence: 0.7 to 0.9",
        "Confidence: 8/10", "Confidence: 1/10", "Confidence: 0,8", "Confidence: 0.8\nConfidence: 0.6",
        "<confidence></confidence>", "<confidence>-0.5</confidence>", "There are 3 people.",
    ],
)  # fmt: skip
def test_nothing_is_guessed(text):
    assert read_confidence(text) is None


def test_the_rest_of_the_answer_is_left():
    assert without_confidence("(a) Yes. Confidence: 0.9") == "(a) Yes"
    assert without_confidence("<answer>awe</answer><confidence>0.9</confidence>") == "<answer>awe</answer>"
    assert without_confidence("Her confidence makes people feel awe.") == "Her confidence makes people feel awe."
