"""Reading free words of emotion: lists and sentences, forms and words of several parts, without what is denied."""

from __future__ import annotations

import json

import pytest

from lavis_emovit.emotion.answer_words import read_words
from lavis_emovit.emotion.wheels import emotion_wheels


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("joyful, angry", "anger joy"),
        ("1. Happy\n2. Calm\n3. Zorbled", "calmness happiness"),
        ("Emotions: fear and sadness.", "fear sadness"),
        ("The image evokes fear, not joy.", "fear"),
        ("<think>joy</think><answer>sad</answer>", "sadness"),
        ("A dog on the grass.", ""),
    ],
)
def test_words_are_read(text, words):
    assert read_words(text, emotion_wheels()) == tuple(words.split())


def test_words_of_several_parts_are_read_in_lists(tmp_path):
    path = tmp_path / "wheels.json"
    wheel = {"source": "own", "clusters": {"good": "calmness joy", "bad": "fear"}}
    forms = {"calmness": "at_ease calm", "fear": "on_edge"}
    path.write_text(json.dumps({"version": 1, "sources": {"own": "me"}, "wheels": {"two": wheel}, "forms": forms}))
    wheels = emotion_wheels(path)
    assert read_words("At ease, on edge", wheels) == ("calmness", "fear")
    assert wheels.clusters(read_words("at ease; joyful", wheels), "two") == {"good"}
