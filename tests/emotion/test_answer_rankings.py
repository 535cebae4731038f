"""Reading rankings of emotions: lists in many forms, denied emotions, too many of them, and none."""

from __future__ import annotations

import pytest

from lavis_emovit.emotion.answer_rankings import read_ranking
from lavis_emovit.emotion.labels import get_label_set

SEVEN = get_label_set("labels:anger, disgust, fear, joy, neutral, sadness, surprise")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("[joy, neutral, surprise]", "joy neutral surprise"),
        ("1. Joy\n2. Surprise\n3. Neutral", "joy surprise neutral"),
        ("Joy > surprise > neutral", "joy surprise neutral"),
        ("The three main emotions are: joy, surprise, and neutral.", "joy surprise neutral"),
        ("The strongest emotion is fear, followed by sadness and anger.", "fear sadness anger"),
        ("There is fear at first. The three emotions are [joy, surprise, neutral].", "joy surprise neutral"),
        (
            "<think>joy, fear, anger</think><answer>Emotion ranking: fear, disgust, sadness</answer>",
            "fear disgust sadness",
        ),
        ("It evokes joy, not fear, and surprise.", "joy surprise"),
        ("joy", "joy"),
    ],
)
def test_rankings_are_read(text, labels):
    assert read_ranking(text, SEVEN, 3) == (tuple(labels.split()), "ok")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("joy, fear, anger, sadness", "ambiguous"),
        ("A dog on the grass.", "invalid"),
        ("", "invalid"),
        ("I can't tell.", "refused"),
    ],
)
def test_unclear_rankings_are_not_read(text, status):
    assert read_ranking(text, SEVEN, 3) == ((), status)
