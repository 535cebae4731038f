"""Label sets of your own, with numbers, signs, punctuation and any script in their labels.

- Every label is read as itself: alone, announced, with a full stop, and in a sentence if it has letters, digits or a
  symbol; never as another label, and never out of the middle of a word or a number.
- A list in YAML contains the labels as they are written: what YAML reads as something else is refused.
- Case, form of Unicode, spaces and underscores do not matter; two labels that differ in nothing else are refused.
"""

from __future__ import annotations

import unicodedata

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lavis_emovit.emotion.answers import EmotionAnswer, read_emotion
from lavis_emovit.emotion.labels import LabelSet, LabelSetName, get_label_set
from lavis_emovit.emotion.questions import categorical_answer
from lavis_emovit.errors import DataError

INVALID, AMBIGUOUS, NEGATED = "invalid", "ambiguous", "negated"
SETS = {
    "signs": "-1, 0, +1",
    "one sign": "-1, 0, 1",
    "fractions": "0, 0.5, 1, -0.5, .25",
    "ranges": "1, 2, 1-2, 3+, <1, 10%",
    "symbols": "+, -, *, ?",
    "languages": "c, c++, java",
    "emoji": "\U0001f600, \U0001f622, \u2764\ufe0f, \U0001f44d, \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "punctuation": "high-arousal, joy & love, fear/anxiety, sad (mild), mr. happy, king's day, what?, no!",
    "underscores": "very_happy, sad, _odd_",
    "accents": "g\u00ean\u00e9, ravi, fro\u0308hlich",
    "scripts": "\u0916\u0941\u0936\u0940, \u0916\u0941\u0936, \u60b2\u3057\u3044",
    "words": "none, unknown, the end, not sad, sad, a",
}


@pytest.mark.parametrize("frame", ["{}", " {}\n", "Predict emotion: {}", "Predict emotion: {}.", "predict emotion:{}"])
@pytest.mark.parametrize("labels", SETS.values(), ids=SETS)
def test_every_label_is_read_as_itself(labels, frame):
    label_set = get_label_set(f"labels:{labels}")
    for label in label_set.labels:
        for written in (label, label.upper(), unicodedata.normalize("NFD", label)):
            assert read_emotion(frame.format(written), label_set) == EmotionAnswer(label, "ok")
        assert read_emotion(categorical_answer(label), label_set).label == label


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters=",<"), min_size=1, max_size=6), min_size=2))
def test_any_text_is_refused_or_read_as_itself(labels):
    try:
        label_set = get_label_set(f"labels:{','.join(labels)}")
    except DataError:
        return
    for label in label_set.labels:
        assert label_set.canonical(label) == label
        assert read_emotion(categorical_answer(label), label_set) == EmotionAnswer(label, "ok")
        read_emotion(f"It is {label}, not {label}: {label}.", label_set)


@pytest.mark.parametrize(
    ("labels", "text", "outcome"),
    [
        ("signs", "1", INVALID),
        ("signs", "The valence is -1.", "-1"),
        ("signs", "**+1**", "+1"),
        ("signs", "\u22121", "-1"),
        ("signs", "not -1", NEGATED),
        ("signs", "-1 or +1", AMBIGUOUS),
        ("signs", "-1.5", INVALID),
        ("one sign", "+1", INVALID),
        ("one sign", "-1, because the man is alone", "-1"),
        ("fractions", "It is 0.5, not 1.", "0.5"),
        ("fractions", "1.5", INVALID),
        ("ranges", "Answer: 1-2", "1-2"),
        ("ranges", "2-3", INVALID),
        ("ranges", "1%", INVALID),
        ("symbols", "She looks happy - really + truly", INVALID),
        ("languages", "I think that it is C++.", "c++"),
        ("emoji", "great\U0001f44d", "\U0001f44d"),
        ("emoji", "\u2764", "\u2764\ufe0f"),
        ("emoji", "\U0001f600 \U0001f622", AMBIGUOUS),
        ("emoji", "\U0001f92f", INVALID),
        ("punctuation", "The image is of Mr. Happy. He smiles.", "mr. happy"),
        ("punctuation", "Predict emotion: Sad (mild), because it rains", "sad (mild)"),
        ("punctuation", "It shows high arousal", "high-arousal"),
        ("punctuation", "non-high-arousal", NEGATED),
        ("punctuation", "joy & love or fear/anxiety", AMBIGUOUS),
        ("punctuation", "highly-arousal", INVALID),
        ("punctuation", "It is King\u2019s Day", "king's day"),
        ("underscores", "They look very happy", "very_happy"),
        ("underscores", "not VERY_HAPPY but sad", "sad"),
        ("accents", "Il est G\u00caN\u00c9.", "g\u00ean\u00e9"),
        ("scripts", "\u0916\u0941\u0936\u0940 \u0939\u0948", "\u0916\u0941\u0936\u0940"),
        ("words", "It is not sad", "not sad"),
    ],
)
def test_labels_in_sentences(labels, text, outcome):
    is_status = outcome in (INVALID, AMBIGUOUS, NEGATED)
    expected = EmotionAnswer(None, outcome) if is_status else EmotionAnswer(outcome, "ok")
    answer = read_emotion(text, get_label_set(f"labels:{SETS[labels]}"))
    assert answer == EmotionAnswer(expected.label and unicodedata.normalize("NFC", expected.label), expected.status)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Calm", "calm "),
        ("very_happy", "Very  Happy"),
        ("g\u00ean\u00e9", unicodedata.normalize("NFD", "g\u00ean\u00e9")),
        ("\u2764", "\u2764\ufe0f"),
        ("\u22121", "-1"),
        ("don't", "don\u2019t"),
    ],
)
def test_labels_that_no_reader_can_tell_apart_are_refused(first, second):
    with pytest.raises(DataError, match=rf"'{first.strip()}' and '{' '.join(second.split())}' are the same label"):
        get_label_set(f"labels:{first}, wild, {second}")
    with pytest.raises(DataError, match="are the same label"):
        LabelSet("mine", ("wild", first, second))


@pytest.mark.parametrize(
    ("labels", "spelt", "label"),
    [
        ("underscores", "Very_Happy", "very_happy"),
        ("underscores", "very happy", "very_happy"),
        ("accents", unicodedata.normalize("NFD", "G\u00caN\u00c9"), "g\u00ean\u00e9"),
        ("accents", "fr\u00f6hlich", "fr\u00f6hlich"),
        ("emoji", "\u2764", "\u2764\ufe0f"),
        ("signs", "\u22121", "-1"),
    ],
)
def test_records_may_spell_a_label_otherwise(labels, spelt, label):
    assert get_label_set(f"labels:{SETS[labels]}").canonical(spelt) == label


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("[-1, 0, 1]", "labels: -1, 0, 1"),
        ("['yes', 'no', '0.5']", "labels: yes, no, 0.5"),
        ("[mr. happy, '1:30']", "labels: mr. happy, 1:30"),
    ],
)
def test_list_in_yaml(written, name):
    assert TypeAdapter(LabelSetName).validate_python(yaml.safe_load(written)) == name


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('["happy, excited", sad]', "'happy, excited' contains a comma"),
        ("[yes, no]", "reads a label as True, .* put quotes around it"),
        ("[null, sad]", "reads a label as None, .* put quotes around it"),
        ("[~, sad]", "reads a label as None"),
        ("[1:30, sad]", "reads a label as 90"),
        ("[0.5, 1]", "reads a label as 0.5"),
        ("[a, [b]]", r"reads a label as \['b'\]"),
        ("[a, {b: c}]", "reads a label as {'b': 'c'}"),
        ("[2024-01-01, sad]", "reads a label as datetime.date"),
        ("[a, '']", "two or more different labels"),
        ("[]", "two or more different labels"),
        ("[a, __]", "two or more different labels"),
        ('[a, "\u200b"]', "two or more different labels"),
    ],
)
def test_list_in_yaml_that_is_not_read_as_written(written, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(LabelSetName).validate_python(yaml.safe_load(written))
