"""Shortcuts of the label reader.

Properties:
- a shortcut gives the label of the full reading, or nothing: for sentences put together from labels, denials, doubts,
  idioms, announcements and punctuation, for all label sets;
- answers as good models write them take the shortcut.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_emovit.emotion.answer_claims import EmotionAnswer, Text, Words, claimed_answer, plain_text
from lavis_emovit.emotion.answer_shortcuts import evident_label, vocabulary_of
from lavis_emovit.emotion.inflections import word_forms
from lavis_emovit.emotion.labels import LABEL_SETS, get_label_set

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


def test_all_sets_have_a_vocabulary():
    for label_set in LABEL_SETS.values():
        forms = Words({tuple(form.split()): label for form, label in word_forms(label_set).items()})
        assert set(vocabulary_of(forms).simple.values()) <= set(label_set.labels)
