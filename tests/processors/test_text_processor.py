"""The text processor.

- Words, case and punctuation stay; runs of spaces become one; line breaks stay.
- A word limit cuts at words; `original` gives the same as LAVIS's caption processor.
- Unknown settings are refused.
"""

from __future__ import annotations

import pytest
from lavis.common.registry import registry
from lavis.processors.blip_processors import BlipCaptionProcessor

from lavis_emovit.errors import ConfigError

TEXT = registry.get_processor_class("emovit_text")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Which  one:\tA, or B?  ", "Which one: A, or B?"),
        ("first \n  second", "first\nsecond"),
        ("", ""),
        ('It\'s "fine" (really)!', 'It\'s "fine" (really)!'),
    ],
)
def test_only_white_space_changes(text, expected):
    assert TEXT()(text) == expected
    assert TEXT()(TEXT()(text)) == expected


@pytest.mark.parametrize("item", [None, ["Why?"], 3])
def test_only_texts_are_taken(item):
    with pytest.raises(TypeError, match="expected a text, a single string, not"):
        TEXT()(item)


def test_a_word_limit_cuts_at_words():
    assert TEXT.from_config({"max_words": 3})("one two\nthree four") == "one two three"


def test_the_treatment_of_the_original_code():
    question = "What DOES the man (on the left) feel? " + "Why, " * 60
    processor = TEXT.from_config({"original": True})
    assert processor(question) == BlipCaptionProcessor(max_words=50)(question)
    assert len(processor(question).split(" ")) == 50


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'max_words'"):
        TEXT.from_config({"max_word": 3})
