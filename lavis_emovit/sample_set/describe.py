"""Plain descriptions of drawn scenes: shapes and things only, never a word for an emotion."""

from __future__ import annotations

import random

from lavis_emovit.sample_set.cues import INDOOR_PLACES
from lavis_emovit.sample_set.questions import questions
from lavis_emovit.sample_set.scene import SketchScene
from lavis_emovit.sample_set.words import (
    ACTION_WORDS,
    AIR_WORDS,
    BRIGHTNESS_WORDS,
    BROW_WORDS,
    EMOTION_WORDS,
    EYE_WORDS,
    MOUTH_WORDS,
    OBJECT_WORDS,
    PLACE_WORDS,
    SATURATION_WORDS,
    WHO_WORDS,
    emotion_words_in,
)

__all__ = ["EMOTION_WORDS", "describe", "emotion_words_in", "questions"]


def describe(scene: SketchScene, rng: random.Random) -> str:
    """Two to six sentences that say all drawn facts of the scene, in changing order and wording."""
    parts = [_air(scene, rng), _light(scene, rng)]
    if scene.object != "none":
        parts.append(_objects(scene, rng))
    if scene.view in ("close", "whole"):
        parts.append(_face(scene, rng))
    rng.shuffle(parts)
    return " ".join([_opening(scene, rng), *(part for part in parts if part)])


def _opening(scene: SketchScene, rng: random.Random) -> str:
    place, who, action = PLACE_WORDS[scene.place], WHO_WORDS[scene.who], ACTION_WORDS[scene.action]
    before = "before" if scene.place not in INDOOR_PLACES or scene.place == "none" else "in"
    if scene.view == "none":
        return rng.choice((f"A picture of {place} with nobody in it.", f"The picture shows {place}. There is nobody."))
    if scene.view == "tiny":
        return rng.choice(
            (
                f"A tiny person far away before {place} is {action}.",
                f"Before {place}, far away, a tiny person is {action}.",
            )
        )
    if scene.view == "close":
        return rng.choice(
            (f"A close face of {who} {before} {place}. {_subject(scene)} is {action}.",
             f"The picture shows the face of {who} {before} {place}, who is {action}.")
        )  # fmt: skip
    return rng.choice(
        (f"The picture shows {who} {action} {before} {place}.", f"{_subject(scene, 'A')} is {action} {before} {place}.")
    )


def _subject(scene: SketchScene, article: str = "The") -> str:
    words = WHO_WORDS[scene.who]
    if article == "A":
        return words[0].upper() + words[1:]
    return f"The {words.split(' ', 1)[1]}"


def _face(scene: SketchScene, rng: random.Random) -> str:
    facts = [
        f"the mouth is {MOUTH_WORDS[scene.mouth]}",
        f"the eyes are {EYE_WORDS[scene.eyes]}",
        f"the brows are {BROW_WORDS[scene.brows]}",
    ]
    rng.shuffle(facts)
    text = f"{facts[0]}, {facts[1]} and {facts[2]}."
    if scene.tears == "yes":
        text += " There are tears under the eyes."
    return text[0].upper() + text[1:]


def _objects(scene: SketchScene, rng: random.Random) -> str:
    things = OBJECT_WORDS[scene.object]
    verb = "are" if not things.startswith(("a ", "an ")) else "is"
    if scene.second_object != "none":
        things = f"{things} and {OBJECT_WORDS[scene.second_object]}"
        return rng.choice((f"There {verb} {things}.", f"One can see {things}."))
    return rng.choice(
        (f"There {verb} {things}.", f"One can see {things}.", f"{things[0].upper()}{things[1:]} {verb} in the picture.")
    )


def _air(scene: SketchScene, rng: random.Random) -> str:
    if scene.air == "none":
        return ""
    words = AIR_WORDS[scene.air]
    return rng.choice((f"In the air one can see {words}.", f"Around it one can see {words}."))


def _light(scene: SketchScene, rng: random.Random) -> str:
    light, strength = BRIGHTNESS_WORDS[scene.brightness], SATURATION_WORDS[scene.saturation]
    if scene.saturation == "grey":
        return rng.choice((f"The picture is {light} and grey.", f"It is {light}, without colours."))
    return rng.choice(
        (f"The picture is {light}, the colours are {strength} and mostly {scene.colour}.",
         f"It is {light}. {scene.colour.capitalize()} is the main colour and the colours are {strength}.")
    )  # fmt: skip
