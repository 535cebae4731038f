"""Shortcuts of the label reader.

Properties:
- a shortcut gives the label of the full reading, or nothing: for sentences put together from labels, denials, doubts,
  idioms, announcements and punctuation, for all label sets;
- answers as good models write them take the shortcut;
- a text is not searched for a phrase only if it cannot match, for strings that are made from the phrases' patterns;
- a label that is read from a text may be claimed by it.
"""

from __future__ import annotations

import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_emovit.emotion import answer_phrases as phrases
from lavis_emovit.emotion.answer_claims import EmotionAnswer, Text, Words, claimed_answer, plain_text
from lavis_emovit.emotion.answer_shortcuts import evident_label, vocabulary_of
from lavis_emovit.emotion.answers import may_claim, read_emotion
from lavis_emovit.emotion.inflections import word_forms
from lavis_emovit.emotion.labels import LABEL_SETS, get_label_set

if sys.version_info >= (3, 11):
    from re._parser import parse as parse_pattern
else:
    from sre_parse import parse as parse_pattern

# Parts of answers that change what a label beside them means.
PARTS = (
    "the image evokes|it is|she looks|not|never|no|without|nothing|no one|isn't|absence of|free of|devoid of "
    "hope,|rather than| instead of|less|more than|least likely|least likely:|is the least "
    "likely|dominates|prevails|fits best|is the dominant emotion|the dominant emotion is|the dominant emotion "
    "evoked here is|most likely|most likely:|best fit:|overall,|in conclusion,|therefore|on "
    "reflection,|actually,|answer:|the answer is|final answer:|emotion:|predict emotion:|predicted emotion:|i "
    "would say|i'd say|i choose| i can't tell|cannot tell|i am not sure|it is hard to say|unclear|is "
    "unclear|please provide the image|i'm sorry|i don't think so|i doubt it|not "
    "really|but|and|or|because|although|while|in contrast,|is it|?|yes|no.|.|,|;|:|!|-|(|)|0|0%|0.7|: none|is "
    "gone|is absent| is missing|-free|a hint of|happy to help|i'm afraid|i fear that|to my surprise|amusement "
    "park|angry birds|all the rage|horror film| neutral background|no doubt|without a doubt|nothing but|can't "
    "help but feel|happy birthday|pride flag|what a shame|content|the content of|danger|a stranger|some would "
    "say|if|once|used to be|too tired to be|hardly|far from|anything but|\n|\"|'|the|a|very"
).split("|")
SETS = ("mikels8", "ekman6", "webemo25", "polarity2", "expressions8", "aff_wild8")
FORMS = {name: sorted(word_forms(get_label_set(name))) for name in SETS}
KNOWN = {
    name: Words({tuple(form.split()): label for form, label in word_forms(get_label_set(name)).items()})
    for name in SETS
}


def check(text: str, name: str) -> bool:
    """Compare both readings; whether there was a shortcut."""
    plain = plain_text(text.casefold())
    label = evident_label(plain, vocabulary_of(KNOWN[name]))
    if label is not None:
        assert claimed_answer(Text(plain, KNOWN[name])) == EmotionAnswer(label, "ok"), plain
    return label is not None


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_shortcut_is_the_full_reading(name, data):
    parts = st.one_of(st.sampled_from(PARTS), st.sampled_from(FORMS[name]))
    check(" ".join(data.draw(st.lists(parts, min_size=1, max_size=9))), name)


@pytest.mark.parametrize("part", PARTS)
def test_one_part_before_or_behind_a_label(part):
    for form in ("sadness", "sad", "fear", "amusement", "angry", "awe"):
        frames = (
            "{part} {form}",
            "{form} {part}",
            "It is {form} {part}.",
            "{part}. It is {form}.",
            "{form}{part}",
            "{form}. {part}",
        )
        for frame in frames:
            check(frame.format(part=part, form=form), "mikels8")


@pytest.mark.parametrize(
    "frame",
    [
        "Predicted emotion: {label}. Reason: nobody in the image looks at the camera, and nothing moves.",
        "Emotion: {label}",
        "The dominant emotion evoked by this image is {label}.",
        "The valley is wide, without any people. The image evokes {label}, because of the light.",
        "{label}. The image shows a valley.",
    ],
)
def test_answers_of_good_models_take_the_shortcut(frame):
    for label in get_label_set("mikels8").labels:
        assert check(frame.format(label=label), "mikels8")


PHRASES = (
    *(*phrases.ANNOUNCEMENTS, *phrases.REFUSALS),
    *(phrases.CLAUSE_DENIAL, phrases.PHRASE_DENIAL, phrases.DENIED_LIST),
)


def text_of(pattern, random: Random) -> str:
    """A text as a parsed pattern describes it, without regard to borders of words and what is around."""
    parts = []
    for kind, value in pattern:
        if str(kind) == "LITERAL":
            parts.append(chr(value))
        elif str(kind) == "BRANCH":
            parts.append(text_of(random.choice(value[1]), random))
        elif str(kind) == "SUBPATTERN":
            parts.append(text_of(value[-1], random))
        elif str(kind).endswith("_REPEAT"):
            parts.extend(text_of(value[2], random) for _ in range(random.randint(value[0], min(value[1], 3))))
        elif str(kind) == "IN":
            parts.append(chr(value[0][1]) if str(value[0][0]) == "LITERAL" else random.choice(" w"))
        else:
            assert str(kind) in ("AT", "ASSERT", "ASSERT_NOT"), kind
    return "".join(parts)


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.pattern[:30])
def test_every_match_of_a_phrase_has_what_it_needs(phrase):
    parsed, random = parse_pattern(phrase.pattern), Random(0)
    for text in {text_of(parsed, random) for _ in range(1000)}:
        assert any(need in text for need in phrase.needs), text


def test_phrases_are_found():
    found = ["I'd say awe", "answer: awe", "i can't tell", "least likely: awe", "without awe", "free of awe, fear."]
    assert all(any(any(phrase.finditer(text.lower())) for phrase in PHRASES) for text in found)


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_label_that_is_read_may_be_claimed(name, data):
    parts = st.one_of(
        st.sampled_from(PARTS), st.sampled_from(FORMS[name]), st.sampled_from(["un", "less", "Not ", "*"])
    )
    text = "".join(data.draw(st.lists(parts, min_size=1, max_size=9)))
    label = read_emotion(text, get_label_set(name)).label
    assert label is None or may_claim(text, {label}, get_label_set(name))
    assert not may_claim("A lake.", get_label_set(name).labels, get_label_set(name))


def test_all_sets_have_a_vocabulary():
    for label_set in LABEL_SETS.values():
        forms = Words({tuple(form.split()): label for form, label in word_forms(label_set).items()})
        assert set(vocabulary_of(forms).simple.values()) <= set(label_set.labels)
