"""A scene of the drawn sample set: every drawn fact, how scenes are sampled, and the emotion that follows from them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from lavis_emovit.sample_set.cues import (
    ACTIONS,
    AIR,
    BRIGHTNESS,
    BROWS,
    CLOSE_ACTIONS,
    COLOURS,
    COMMONNESS,
    CUE_WEIGHTS,
    EMOTIONS,
    EXPRESSION_GEOMETRY,
    EXPRESSIONS,
    EYES,
    INDOOR_AIR,
    INDOOR_PLACES,
    MOUTHS,
    NIGHT_AIR,
    OBJECTS,
    PLACES,
    SATURATION,
    TEARS,
    VIEWS,
    WHO,
)

# A cue value is drawn with probability proportional to its commonness times exp(SHARPNESS * its weight for the wanted
# emotion): at 0 the cues would say nothing, at 3 any one of them would give the emotion away.
SHARPNESS = 1.05
# The winning emotion leads the next one by at least this sum of weights: below it people could not agree either.
MIN_MARGIN = 2.5

# One categorical value for each drawn fact; "none" where the thing is absent. The order of values is fixed: models are
# trained on it.
FACT_VALUES: dict[str, tuple[str, ...]] = {
    "view": VIEWS,
    "who": WHO,
    "expression": EXPRESSIONS,
    "mouth": MOUTHS,
    "brows": BROWS,
    "eyes": EYES,
    "tears": TEARS,
    "action": (*ACTIONS, "none"),
    "place": PLACES,
    "object": (*OBJECTS, "none"),
    "second_object": (*OBJECTS, "none"),
    "air": AIR,
    "brightness": BRIGHTNESS,
    "saturation": SATURATION,
    "colour": COLOURS,
}
# The second object weighs like a first one, the rest under their own names.
CUE_OF_FACT = {name: "object" if name == "second_object" else name for name in FACT_VALUES}


@dataclass(frozen=True)
class SketchScene:
    """Everything that is drawn. The fields of `FACT_VALUES` carry meaning; the last three only vary the drawing.

    `emotion` follows from the facts (`emotion_of`), without label noise. `expression` is one of EmoSet's six facial
    expressions or "none" (no face, or a plain one); the face is drawn from `mouth`, `brows`, `eyes` and `tears`.
    """

    emotion: str
    view: str
    who: str
    expression: str
    mouth: str
    brows: str
    eyes: str
    tears: str
    action: str
    place: str
    object: str
    second_object: str
    air: str
    brightness: str
    saturation: str
    colour: str
    person_left: bool
    look: int
    detail_seed: int


def scene_facts(scene: SketchScene) -> dict[str, str]:
    """One categorical value for each drawn fact; keys and values are those of `FACT_VALUES`."""
    return {name: getattr(scene, name) for name in FACT_VALUES}


def emotion_scores(facts: dict[str, str]) -> dict[str, float]:
    """Sum of the weights of all given facts, for each emotion."""
    scores = dict.fromkeys(EMOTIONS, 0.0)
    for name, value in facts.items():
        for emotion, weight in CUE_WEIGHTS.get(CUE_OF_FACT[name], {}).get(value, {}).items():
            scores[emotion] += weight
    return scores


def emotion_of(facts: dict[str, str]) -> str:
    """The emotion with the largest score; the first in alphabetical order where two are equal."""
    scores = emotion_scores(facts)
    return max(EMOTIONS, key=lambda emotion: scores[emotion])


def sample_scene(rng: random.Random, emotion: str | None = None) -> SketchScene:
    """A random scene, of the given emotion or of one drawn uniformly.

    Every cue is drawn on its own around what suits the wanted emotion, so that cues of other emotions cross over;
    scenes whose sum does not end at the wanted emotion with a lead of `MIN_MARGIN` are drawn again.

    Raises:
        ValueError: the emotion is none of the eight.
    """
    wanted = rng.choice(EMOTIONS) if emotion is None else emotion
    if wanted not in EMOTIONS:
        raise ValueError(f"unknown emotion '{wanted}', expected one of {', '.join(EMOTIONS)}")
    while True:
        facts = _sample_facts(rng, wanted)
        scores = emotion_scores(facts)
        lead = scores.pop(wanted) - max(scores.values())
        if lead >= MIN_MARGIN:
            return SketchScene(
                emotion=wanted,
                **facts,
                person_left=rng.random() < 0.5,
                look=rng.randrange(1 << 30),
                detail_seed=rng.randrange(1 << 30),
            )


def _sample_facts(rng: random.Random, wanted: str) -> dict[str, str]:
    facts = dict.fromkeys(FACT_VALUES, "none")
    view = facts["view"] = _sample_view(rng, wanted)
    if view in ("close", "whole"):
        facts["who"] = _sample_cue(rng, "who", WHO[:-1], wanted)
        facts["action"] = _sample_cue(rng, "action", CLOSE_ACTIONS if view == "close" else tuple(ACTIONS), wanted)
        facts.update(_sample_face(rng, wanted, facts["action"]))
    elif view == "tiny":
        facts["who"] = "adult"
        facts["action"] = _sample_cue(rng, "action", ("standing", "arms wide", "arms up"), wanted)
    facts["place"] = "none" if rng.random() < 0.07 else _sample_cue(rng, "place", PLACES[:-1], wanted)
    if rng.random() < (0.5 if view == "tiny" else 0.85):
        facts["object"] = _sample_cue(rng, "object", tuple(OBJECTS), wanted)
        if view == "none" and rng.random() < 0.6:
            others = tuple(name for name in OBJECTS if name != facts["object"])
            facts["second_object"] = _sample_cue(rng, "object", others, wanted)
    facts["air"] = _sample_cue(rng, "air", INDOOR_AIR if facts["place"] in INDOOR_PLACES else AIR, wanted)
    levels = BRIGHTNESS[:2] if facts["air"] in NIGHT_AIR else BRIGHTNESS
    facts["brightness"] = _sample_cue(rng, "brightness", levels, wanted)
    facts["saturation"] = _sample_cue(rng, "saturation", SATURATION, wanted)
    grey = facts["saturation"] == "grey"
    facts["colour"] = "grey" if grey else _sample_cue(rng, "colour", COLOURS[:-1], wanted)
    return facts


def _sample_view(rng: random.Random, wanted: str) -> str:
    # A tiny figure before something large is the classic picture of awe; elsewhere faces and figures prevail.
    shares = (0.18, 0.22, 0.35, 0.25) if wanted == "awe" else (0.36, 0.38, 0.06, 0.20)
    return rng.choices(VIEWS, shares)[0]


def _sample_face(rng: random.Random, wanted: str, action: str) -> dict[str, str]:
    expression = _sample_cue(rng, "expression", EXPRESSIONS, wanted)
    mouths, brows, eyes = EXPRESSION_GEOMETRY[expression]
    tears = expression == "sad" and rng.random() < 0.6
    # Hands that cover the eyes would hide what they say, and a nose held between fingers still leaves the mouth free.
    eye = "closed" if action == "wiping eyes" and "closed" in eyes else rng.choice(eyes)
    return {
        "expression": expression,
        "mouth": _sample_cue(rng, "mouth", mouths, wanted),
        "brows": rng.choice(brows),
        "eyes": eye,
        "tears": "yes" if tears else "no",
    }


def _sample_cue(rng: random.Random, cue: str, values: tuple[str, ...], wanted: str) -> str:
    weights, common = CUE_WEIGHTS[cue], COMMONNESS.get(cue, {})
    chances = [
        common.get(value, 1.0) * math.exp(SHARPNESS * weights.get(value, {}).get(wanted, 0.0)) for value in values
    ]
    return rng.choices(values, chances)[0]
