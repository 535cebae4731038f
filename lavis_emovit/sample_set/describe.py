"""Plain descriptions of drawn scenes: shapes and things only, never a word for an emotion."""

from __future__ import annotations

import random

from lavis_emovit.sample_set.scene import INDOOR_PLACES, SketchScene
from lavis_emovit.sample_set.vocabulary import FACTS


def describe(scene: SketchScene, rng: random.Random) -> str:
    """Two to six sentences that state all drawn facts of the scene, in changing order and wording."""
    parts = [_air(scene, rng), _light(scene, rng)]
    if scene.object != "none":
        parts.append(_objects(scene, rng))
    if scene.view in ("close", "whole"):
        parts.append(_face(scene, rng))
    rng.shuffle(parts)
    return " ".join([_opening(scene, rng), *(part for part in parts if part)])


def _words(scene: SketchScene, fact: str) -> str:
    return FACTS[fact][getattr(scene, fact)]["words"]


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _opening(scene: SketchScene, rng: random.Random) -> str:
    place, who, action = _words(scene, "place"), _words(scene, "who"), _words(scene, "action")
    before = "before" if scene.place not in INDOOR_PLACES or scene.place == "none" else "in"
    openings = {
        "none": (f"A picture of {place} with nobody in it.", f"The picture shows {place}. There is nobody."),
        "tiny": (
            f"A tiny person far away before {place} is {action}.",
            f"Before {place}, far away, a tiny person is {action}.",
        ),
        "close": (
            f"A close face of {who} {before} {place}. The {who.split(' ', 1)[-1]} is {action}.",
            f"The picture shows the face of {who} {before} {place}, who is {action}.",
        ),
        "whole": (
            f"The picture shows {who} {action} {before} {place}.",
            f"{_capitalised(who)} is {action} {before} {place}.",
        ),
    }
    return rng.choice(openings[scene.view])


def _face(scene: SketchScene, rng: random.Random) -> str:
    verbs = {"mouth": "is", "eyes": "are", "brows": "are"}
    facts = [f"the {part} {verb} {_words(scene, part)}" for part, verb in verbs.items()]
    rng.shuffle(facts)
    tears = " There are tears under the eyes." if scene.tears == "yes" else ""
    return _capitalised(f"{facts[0]}, {facts[1]} and {facts[2]}.{tears}")


def _objects(scene: SketchScene, rng: random.Random) -> str:
    things = _words(scene, "object")
    verb = "is" if things.startswith(("a ", "an ")) else "are"
    alone = scene.second_object == "none"
    if not alone:
        things = f"{things} and {FACTS['object'][scene.second_object]['words']}"
    sentences = [f"There {verb} {things}.", f"One can see {things}."]
    return rng.choice([*sentences, f"{_capitalised(things)} {verb} in the picture."] if alone else sentences)


def _air(scene: SketchScene, rng: random.Random) -> str:
    if scene.air == "none":
        return ""
    words = _words(scene, "air")
    return rng.choice((f"In the air one can see {words}.", f"Around it one can see {words}."))


def _light(scene: SketchScene, rng: random.Random) -> str:
    light, strength, colour = _words(scene, "brightness"), _words(scene, "saturation"), scene.colour
    if scene.saturation == "grey":
        return rng.choice((f"The picture is {light} and grey.", f"It is {light}, without colours."))
    return rng.choice(
        (
            f"The picture is {light}, the colours are {strength} and mostly {colour}.",
            f"It is {light}. {colour.capitalize()} is the main colour and the colours are {strength}.",
        )
    )
