"""Descriptions and questions of drawn scenes.

- No text contains a word for an emotion, over thousands of scenes; the list of such words is checked, too.
- The vocabulary has under 400 words.
- A description states every drawn fact; answers agree with the facts; a list of options contains the answer once.
- Texts depend on the scene and the random state alone.
"""

from __future__ import annotations

import random
import re

import pytest

from lavis_emovit.sample_set.describe import describe
from lavis_emovit.sample_set.questions import questions
from lavis_emovit.sample_set.scene import FACT_VALUES, SketchScene, sample_scene
from lavis_emovit.sample_set.vocabulary import words_of

NUM_SCENES = 2500
PLACE_WORDS, OBJECT_WORDS, ACTION_WORDS, AIR_WORDS = map(words_of, ("place", "object", "action", "air"))
WHO_WORDS, MOUTH_WORDS, BROW_WORDS, EYE_WORDS = map(words_of, ("who", "mouth", "brows", "eyes"))

# Stems that must not start any word of a description, question or answer: the eight emotions, their relatives in other
# label sets, and words for expressions that name a feeling instead of a shape.
EMOTION_WORDS: tuple[str, ...] = (
    "afraid", "alone", "amus", "anger", "angr", "annoy", "anxi", "awe", "bor", "calm", "celebrat", "cheer", "comfort",
    "content", "cozy", "cry", "delight", "depress", "despair", "disgust", "dread", "eager", "ecsta", "emotion", "enjoy",
    "enthus", "excit", "fear", "feel", "fright", "frown", "fun", "furi", "gloom", "glad", "grief", "grim", "gross",
    "happ", "hate", "horr", "humor", "irrita", "joy", "laugh", "lone", "love", "mad", "melanchol", "merr", "miser",
    "mood", "mourn", "nause", "nerv", "panic", "peace", "play with joy", "pleas", "rage", "relax", "repuls", "revolt",
    "sad", "scar", "scream", "seren", "shock", "sick", "smil", "sneer", "sob", "sorrow", "spook", "startl", "sublim",
    "surpris", "tear-stained", "terr", "thrill", "unhapp", "upset", "weep", "wonder", "worr", "yuck",
)  # fmt: skip
# Plain words that begin like one of those.
_PLAIN_WORDS = frozenset({"board", "border", "born", "scarf"})
_WORD = re.compile(r"[a-z]+")
_STEMS = tuple(stem for stem in EMOTION_WORDS if _WORD.fullmatch(stem))


def _emotion_words_in(text: str) -> list[str]:
    """The words of a text that name an emotion."""
    words = _WORD.findall(text.lower())
    return [word for word in words if word not in _PLAIN_WORDS and word.startswith(_STEMS)]


@pytest.fixture(scope="module")
def texts() -> list[tuple[SketchScene, str, list[tuple[str, str]]]]:
    rng = random.Random(8)
    scenes = [sample_scene(rng) for _ in range(NUM_SCENES)]
    return [(scene, describe(scene, rng), questions(scene, rng)) for scene in scenes]


def test_no_text_names_an_emotion(texts):
    for _, description, pairs in texts:
        for text in (description, *(part for pair in pairs for part in pair)):
            assert _emotion_words_in(text) == [], text


# The labels of Mikels' and Ekman's sets with inflections, and words for expressions that name a feeling.
FORBIDDEN = """
    amusement amused anger angry awe awesome contentment disgust disgusted excitement exciting fear fearful sadness sad
    sadly happy happiness surprise surprised joy smiling smile crying laughing celebrating frown scared afraid lonely
    calm
""".split()


@pytest.mark.parametrize("word", FORBIDDEN)
def test_words_for_emotions_are_found(word):
    assert _emotion_words_in(f"The person is {word}, they say.") == [word]


def test_plain_words_are_not_found():
    assert _emotion_words_in("A person is surfing on a board before a big wave; there are tears.") == []


def test_vocabulary_is_small(texts):
    words: set[str] = set()
    for _, description, pairs in texts:
        for text in (description, *(part for pair in pairs for part in pair)):
            words.update(re.findall(r"[a-z]+", text.lower()))
    assert 150 < len(words) < 400


def test_description_states_every_fact(texts):
    for scene, description, _ in texts:
        text = description.lower()
        assert PLACE_WORDS[scene.place] in text
        for name in (scene.object, scene.second_object):
            assert name == "none" or OBJECT_WORDS[name] in text
        if scene.air != "none":
            assert AIR_WORDS[scene.air] in text
        if scene.view in ("close", "whole"):
            assert WHO_WORDS[scene.who] in text
            assert ACTION_WORDS[scene.action] in text
            assert f"the mouth is {MOUTH_WORDS[scene.mouth]}" in text
            assert f"the eyes are {EYE_WORDS[scene.eyes]}" in text
            assert f"the brows are {BROW_WORDS[scene.brows]}" in text
            assert ("tears" in text) == (scene.tears == "yes")
        elif scene.view == "none":
            assert "nobody" in text
        assert (scene.brightness if scene.brightness != "medium" else "neither dark nor bright") in text
        assert scene.colour in text or "without colours" in text


def test_words_cover_the_vocabulary():
    for name, words in (("place", PLACE_WORDS), ("object", OBJECT_WORDS), ("action", ACTION_WORDS), ("air", AIR_WORDS)):
        assert set(words) == set(FACT_VALUES[name])
        assert len(set(words.values())) == len(words), "two values have the same words"


def test_options_contain_the_answer_once(texts):
    num_choices = 0
    for _, _, pairs in texts:
        for question, answer in pairs:
            match = re.search(r"(?:: )([^:]+)[?.]$", question)
            if match is None:
                continue
            num_choices += 1
            options = match.group(1).split(", ")
            assert options.count(answer) == 1, (question, answer)
            assert len(set(options)) == len(options) >= 3
    assert num_choices > 5 * NUM_SCENES


def test_answers_agree_with_the_scene(texts):
    for scene, _, pairs in texts:
        answers = dict(pairs)
        for question in ("Where is it?", "What place is it?"):
            assert answers.get(question, PLACE_WORDS[scene.place]) == PLACE_WORDS[scene.place]
        assert answers.get("How is the mouth?", MOUTH_WORDS.get(scene.mouth)) == MOUTH_WORDS.get(scene.mouth)
        assert ("Are there tears under the eyes?" in answers) == (scene.view in ("close", "whole"))
        for question, answer in pairs:
            if question.startswith("Can one see") and question.endswith("in the air?"):
                requested = question.removeprefix("Can one see ").removesuffix(" in the air?")
                assert answer == ("yes" if requested == AIR_WORDS[scene.air] else "no")
            elif question.startswith("Can one see"):
                requested = question.removeprefix("Can one see ").removesuffix("?")
                assert answer == ("yes" if requested == OBJECT_WORDS[scene.object] else "no")
                assert scene.second_object == "none" or requested != OBJECT_WORDS[scene.second_object]


def test_yes_and_no_are_both_common(texts):
    answers = [answer for _, _, pairs in texts for _, answer in pairs if answer in ("yes", "no")]
    assert 0.35 < answers.count("yes") / len(answers) < 0.6


def test_texts_depend_on_scene_and_random_state():
    scene = sample_scene(random.Random(3))
    assert describe(scene, random.Random(1)) == describe(scene, random.Random(1))
    assert questions(scene, random.Random(1)) == questions(scene, random.Random(1))
    assert len({describe(scene, random.Random(seed)) for seed in range(12)}) > 3
