"""A scene of the drawn sample set: its facts, how they are sampled, and the emotion that follows from them."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

from lavis_emovit.sample_set.vocabulary import CUE_WEIGHTS, EMOTIONS, FACTS

# The probability of a value is proportional to its commonness times exp(SHARPNESS * its weight for the wanted emotion):
# at 0 the facts would carry no information, at 3 almost any single fact would determine the emotion.
SHARPNESS = 1.05
# Smallest lead of the emotion over the next one: with less, people would not agree on the emotion of a scene.
MIN_MARGIN = 2.5


@dataclass(frozen=True)
class SketchScene:
    """Everything that is drawn. The fields of `FACT_VALUES` are facts; the last three fields only vary the drawing.

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


# The weights of a second object are those of a first one; all other facts have weights under their name.
CUE_OF_FACT = {
    field.name: "object" if field.name == "second_object" else field.name for field in fields(SketchScene)[1:-3]
}
# Values of each drawn fact; "none" where the thing is absent. The order is fixed: models are trained on it.
FACT_VALUES: dict[str, tuple[str, ...]] = {name: tuple(FACTS[cue]) for name, cue in CUE_OF_FACT.items()}

INDOOR_PLACES = tuple(place for place, entry in FACTS["place"].items() if "indoor" in entry)
INDOOR_AIR = tuple(air for air, entry in FACTS["air"].items() if "indoors" in entry)
# Under a night sky no scene is bright.
NIGHT_AIR = tuple(air for air, entry in FACTS["air"].items() if entry.get("sky") == "night")
# Actions that are visible next to a face that fills the image. Their order is fixed: sampling depends on it.
CLOSE_ACTIONS = (
    "standing", "arms up", "raising a fist", "boxing", "hands on cheeks", "wiping eyes", "holding the nose", "drinking",
    "eating ice cream",
)  # fmt: skip


def scene_facts(scene: SketchScene) -> dict[str, str]:
    """One categorical value for each drawn fact; keys and values are those of `FACT_VALUES`."""
    return {name: getattr(scene, name) for name in FACT_VALUES}


def emotion_scores(facts: dict[str, str]) -> dict[str, float]:
    """Sum of the weights of all given facts, for each emotion."""
    scores = dict.fromkeys(EMOTIONS, 0.0)
    for name, value in facts.items():
        for emotion, weight in CUE_WEIGHTS[CUE_OF_FACT[name]][value].items():
            scores[emotion] += weight
    return scores


def emotion_of(facts: dict[str, str]) -> str:
    """The emotion with the largest score, of equal ones the first in alphabetical order."""
    return max(EMOTIONS, key=emotion_scores(facts).__getitem__)


def sample_scene(rng: random.Random, emotion: str | None = None) -> SketchScene:
    """A random scene, of the given emotion (else ValueError) or of one drawn uniformly.

    Every fact is drawn independently, with a preference for values that suit the wanted emotion, so values that suit
    other emotions occur as well. Scenes in which the wanted emotion does not lead by `MIN_MARGIN` are drawn again.
    """
    wanted = rng.choice(EMOTIONS) if emotion is None else emotion
    if wanted not in EMOTIONS:
        raise ValueError(f"unknown emotion '{wanted}', expected one of {', '.join(EMOTIONS)}")
    while True:
        facts = _sample_facts(rng, wanted)
        scores = emotion_scores(facts)
        if scores.pop(wanted) - max(scores.values()) >= MIN_MARGIN:
            person_left, look, detail_seed = rng.random() < 0.5, rng.randrange(1 << 30), rng.randrange(1 << 30)
            return SketchScene(wanted, **facts, person_left=person_left, look=look, detail_seed=detail_seed)


def _present(fact: str) -> list[str]:
    return [value for value in FACTS[fact] if value != "none"]


def _sample_facts(rng: random.Random, wanted: str) -> dict[str, str]:
    facts = dict.fromkeys(FACT_VALUES, "none")
    # A tiny figure in front of something large is typical of awe; other emotions show faces and figures.
    shares = (0.18, 0.22, 0.35, 0.25) if wanted == "awe" else (0.36, 0.38, 0.06, 0.20)
    view = facts["view"] = rng.choices(FACT_VALUES["view"], shares)[0]
    if view in ("close", "whole"):
        facts["who"] = _sample_cue(rng, "who", _present("who"), wanted)
        facts["action"] = _sample_cue(rng, "action", CLOSE_ACTIONS if view == "close" else _present("action"), wanted)
        facts.update(_sample_face(rng, wanted, facts["action"]))
    elif view == "tiny":
        facts["who"] = "adult"
        facts["action"] = _sample_cue(rng, "action", ("standing", "arms wide", "arms up"), wanted)
    facts["place"] = "none" if rng.random() < 0.07 else _sample_cue(rng, "place", _present("place"), wanted)
    if rng.random() < (0.5 if view == "tiny" else 0.85):
        facts["object"] = _sample_cue(rng, "object", _present("object"), wanted)
        if view == "none" and rng.random() < 0.6:
            others = [name for name in _present("object") if name != facts["object"]]
            facts["second_object"] = _sample_cue(rng, "object", others, wanted)
    facts["air"] = _sample_cue(rng, "air", INDOOR_AIR if facts["place"] in INDOOR_PLACES else [*FACTS["air"]], wanted)
    levels = ("dark", "medium") if facts["air"] in NIGHT_AIR else ("dark", "medium", "bright")
    facts["brightness"] = _sample_cue(rng, "brightness", levels, wanted)
    facts["saturation"] = _sample_cue(rng, "saturation", FACT_VALUES["saturation"], wanted)
    grey = facts["saturation"] == "grey"
    colours = [colour for colour in FACTS["colour"] if colour != "grey"]
    facts["colour"] = "grey" if grey else _sample_cue(rng, "colour", colours, wanted)
    return facts


def _sample_face(rng: random.Random, wanted: str, action: str) -> dict[str, str]:
    expression = _sample_cue(rng, "expression", FACT_VALUES["expression"], wanted)
    shapes = FACTS["expression"][expression]
    tears = expression == "sad" and rng.random() < 0.6
    # Hands that wipe the eyes hide them, so the eyes are closed where the expression allows it.
    wiped = action == "wiping eyes" and "closed" in shapes["eyes"]
    return {
        "expression": expression,
        "eyes": "closed" if wiped else rng.choice(shapes["eyes"]),
        "mouth": _sample_cue(rng, "mouth", shapes["mouths"], wanted),
        "brows": rng.choice(shapes["brows"]),
        "tears": "yes" if tears else "no",
    }


def _sample_cue(rng: random.Random, cue: str, values: Sequence[str], wanted: str) -> str:
    values = tuple(values)
    return rng.choices(values, cum_weights=_chances(cue, values, wanted))[0]


@functools.lru_cache(maxsize=4096)
def _chances(cue: str, values: tuple[str, ...], wanted: str) -> list[float]:
    """Cumulative weights of the values, for `random.choices`."""
    common = [FACTS[cue][value].get("common", 1.0) for value in values]
    weights = [CUE_WEIGHTS[cue][value].get(wanted, 0.0) for value in values]
    return list(itertools.accumulate(c * math.exp(SHARPNESS * weight) for c, weight in zip(common, weights)))
