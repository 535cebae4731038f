"""Questions about visible facts of drawn scenes with their answers; never a word for an emotion."""

from __future__ import annotations

import random
from dataclasses import dataclass

from lavis_emovit.sample_set.scene import SketchScene, scene_facts
from lavis_emovit.sample_set.words import (
    ACTION_WORDS,
    AIR_WORDS,
    BRIGHTNESS_WORDS,
    BROW_WORDS,
    EYE_WORDS,
    MOUTH_WORDS,
    OBJECT_WORDS,
    PLACE_WORDS,
    SATURATION_WORDS,
    VIEW_WORDS,
    WHO_WORDS,
)


@dataclass(frozen=True)
class _Topic:
    """How one fact is asked for: open questions, openings of a multiple-choice question, and a yes-no question."""

    words: dict[str, str]
    open_questions: tuple[str, ...]
    choice_openings: tuple[str, ...]
    yes_no: str


_COLOUR_WORDS = {colour: colour for colour in ("red", "orange", "yellow", "green", "blue", "purple", "grey")}
_TOPICS: dict[str, _Topic] = {
    "place": _Topic(
        PLACE_WORDS,
        ("What place is it?", "Where is it?", "Which place does the picture show?"),
        ("Which of these places is shown", "Choose the place", "What place is it"),
        "Does the picture show {}?",
    ),
    "object": _Topic(
        OBJECT_WORDS,
        ("What object is there?", "Which thing can one see?", "What thing is in the picture?"),
        ("Which of these things is shown", "Choose the object", "What object is there"),
        "Can one see {}?",
    ),
    "who": _Topic(
        WHO_WORDS,
        ("Who is in the picture?", "Who is it?"),
        ("Which of these is shown", "Choose who is there", "Who is it"),
        "Is there {} in the picture?",
    ),
    "action": _Topic(
        ACTION_WORDS,
        ("What is the person doing?", "What does the person do?", "Which action is shown?"),
        ("Which of these actions is shown", "Choose the action", "What is the person doing"),
        "Is the person {}?",
    ),
    "mouth": _Topic(
        MOUTH_WORDS,
        ("How is the mouth?", "What shape is the mouth?"),
        ("Which of these describes the mouth", "Choose the mouth", "How is the mouth"),
        "Is the mouth {}?",
    ),
    "eyes": _Topic(
        EYE_WORDS,
        ("How are the eyes?", "What do the eyes look like?"),
        ("Which of these describes the eyes", "Choose the eyes", "How are the eyes"),
        "Are the eyes {}?",
    ),
    "brows": _Topic(
        BROW_WORDS,
        ("How are the brows?", "What do the brows look like?"),
        ("Which of these describes the brows", "Choose the brows", "How are the brows"),
        "Are the brows {}?",
    ),
    "air": _Topic(
        AIR_WORDS,
        ("What is in the air?", "What can one see in the sky or in the air?"),
        ("Which of these is in the air", "Choose what is in the air", "What is in the air"),
        "Can one see {} in the air?",
    ),
    "brightness": _Topic(
        BRIGHTNESS_WORDS,
        ("How bright is it?", "Is it dark or bright?"),
        ("Which of these describes the light", "Choose the light", "How bright is it"),
        "Is the picture {}?",
    ),
    "saturation": _Topic(
        SATURATION_WORDS,
        ("How are the colours?", "How strong are the colours?"),
        ("Which of these describes the colours", "Choose how the colours are", "How are the colours"),
        "Are the colours {}?",
    ),
    "colour": _Topic(
        _COLOUR_WORDS,
        ("What is the main colour?", "Which colour is mostly there?"),
        ("Which of these is the main colour", "Choose the main colour", "What is the main colour"),
        "Is the main colour {}?",
    ),
    "view": _Topic(
        VIEW_WORDS,
        ("How far away is the person?", "How is the person shown?"),
        ("Which of these describes how the person is shown", "Choose the distance of the person"),
        "Is the person {}?",
    ),
}
# Wordings of the list of options after an opening that asks, and after one that begins with "Choose".
_ASKING_FORMS: tuple[str, ...] = (
    "{opening}: {options}?",
    "{opening}? Options: {options}.",
    "{opening}? Answer with one of: {options}.",
    "{opening}? Choose from this list: {options}.",
)
_CHOOSING_FORMS: tuple[str, ...] = (
    "{opening}: {options}.",
    "{opening}. Options: {options}.",
    "{opening}. Answer with one of: {options}.",
    "{opening} from this list: {options}.",
)
_PERSON_TOPICS = frozenset({"mouth", "eyes", "brows"})


def questions(scene: SketchScene, rng: random.Random) -> list[tuple[str, str]]:
    """Questions and answers about the scene: for each visible fact an open, a multiple-choice and a yes-no question.

    Args:
        scene: the scene.
        rng: chooses wordings, options and their order.

    Returns:
        (question, answer) pairs in random order.
    """
    facts = scene_facts(scene)
    pairs: list[tuple[str, str]] = []
    for name, topic in _TOPICS.items():
        value = facts[name]
        if name in _PERSON_TOPICS and value == "none":
            continue
        if name == "action" and value == "none":
            continue
        pairs.append((rng.choice(topic.open_questions), topic.words[value]))
        taken = {value, facts["second_object"]} if name == "object" else {value}
        others = [other for other in topic.words if other not in taken and not (name == "action" and other == "none")]
        pairs.append(_choice(topic, value, others, rng))
        pairs.append(_yes_no(topic, value, others, rng))
    if facts["mouth"] != "none":
        pairs.append(("Are there tears under the eyes?", facts["tears"]))
    if facts["second_object"] != "none":
        pairs.append(("Which smaller thing is there?", OBJECT_WORDS[facts["second_object"]]))
    rng.shuffle(pairs)
    return pairs


def _choice(topic: _Topic, value: str, others: list[str], rng: random.Random) -> tuple[str, str]:
    count = min(len(others), rng.randint(2, 7))
    options = [topic.words[option] for option in (value, *rng.sample(others, count))]
    rng.shuffle(options)
    opening = rng.choice(topic.choice_openings)
    form = rng.choice(_CHOOSING_FORMS if opening.startswith("Choose") else _ASKING_FORMS)
    return form.format(opening=opening, options=", ".join(options)), topic.words[value]


def _yes_no(topic: _Topic, value: str, others: list[str], rng: random.Random) -> tuple[str, str]:
    true = rng.random() < 0.5 and value != "none"
    asked = value if true else rng.choice([other for other in others if other != "none"])
    return topic.yes_no.format(topic.words[asked]), "yes" if true else "no"
