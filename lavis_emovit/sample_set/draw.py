"""Turns a `SketchScene` into an image: the place and the sky behind, objects and a person in front."""

from __future__ import annotations

import random

from PIL import Image

from lavis_emovit.sample_set.canvas import TINTS, Canvas
from lavis_emovit.sample_set.drawing import DrawingFile, Frame
from lavis_emovit.sample_set.person import draw_person, draw_tiny_person
from lavis_emovit.sample_set.scene import INDOOR_PLACES, SketchScene
from lavis_emovit.sample_set.scenery import AIR, PLACES
from lavis_emovit.sample_set.vocabulary import FACTS

# Mean lightness of the background (0..255). Persons and objects follow it less (gain and lift): they must be visible in
# the dark.
_BACKGROUND_LUMA = {"dark": 54.0, "medium": 120.0, "bright": 178.0}
# Deep colours turn into others when they are lightened (red into pink), so images in them are a little darker.
_LUMA_OF_COLOUR = {"red": 0.8, "purple": 0.84, "blue": 0.88, "yellow": 1.1}
_FOREGROUND_TONE = {"dark": (0.76, 0.0), "medium": (0.92, 0.0), "bright": (0.96, 10.0)}
_SATURATION = {"grey": 0.08, "plain": 0.62, "vivid": 1.3}
# Share of the main colour's cast in background and foreground.
_CAST = {"grey": (0.0, 0.0), "plain": (0.58, 0.16), "vivid": (0.46, 0.1)}
_SUPERSAMPLING = 2
OBJECTS = DrawingFile("objects")


def render(scene: SketchScene, size_px: int = 192) -> Image.Image:
    """Draw the scene as an RGB image of `size_px` x `size_px`. The same scene always gives the same pixels."""
    canvas = Canvas(size_px * _SUPERSAMPLING)
    rng = random.Random(scene.detail_seed)
    whole = Frame(canvas, rng)
    offset = {"close": 12, "whole": 18, "tiny": 4, "none": 0}[scene.view]
    person_x = 50 - offset if scene.person_left else 50 + offset
    free_x = 100 - person_x if scene.view in ("close", "whole") else (22 if scene.person_left else 78)

    if scene.place not in INDOOR_PLACES:
        # Single large things such as the moon are drawn around the origin of the frame.
        back = whole.at(free_x, 0)
        back.draw(AIR.part(FACTS["air"][scene.air].get("sky", "dark" if scene.brightness == "dark" else "blue")))
        back.draw(AIR.drawing("air", scene.air, "back"))
        if scene.air == "none" and scene.brightness == "bright":
            back.draw(AIR.part("sun"))
    whole.draw(PLACES.drawing("place", scene.place))
    background_cast, foreground_cast = _CAST[scene.saturation]
    tint, saturation = TINTS[scene.colour], _SATURATION[scene.saturation]
    mean_luma = _BACKGROUND_LUMA[scene.brightness] * _LUMA_OF_COLOUR.get(scene.colour, 1.0)
    canvas.tone_background(mean_luma, saturation, tint, background_cast)
    gain, lift = _FOREGROUND_TONE[scene.brightness]
    canvas.set_tone(gain, lift, saturation, tint, foreground_cast)

    if scene.view == "tiny":
        draw_tiny_person(canvas, scene, person_x, 94, 24)
    _draw_objects(canvas, scene, rng, free_x)
    if scene.view == "close":
        draw_person(whole.at(person_x, 47, 29), scene)
    elif scene.view == "whole":
        draw_person(whole.at(person_x, 26, 16), scene)
    whole.draw(AIR.drawing("air", scene.air, "front"))
    return canvas.image.reduce(_SUPERSAMPLING)


def _draw_objects(canvas: Canvas, scene: SketchScene, rng: random.Random, free_x: float) -> None:
    if scene.object == "none":
        return
    mirrored = rng.random() < 0.5
    # Flying and hanging things are drawn in the upper half of the image.
    high = "high" in FACTS["object"][scene.object]
    # x of the object, on the side away from the person.
    aside = 78.0 if scene.person_left else 22.0
    if scene.view == "none":
        x = 50.0
        if scene.second_object != "none":
            x = 32 if scene.person_left else 68
            y = 42 if "high" in FACTS["object"][scene.second_object] else 74
            second = Frame(canvas, rng, 100 - x, y, 17, not mirrored)
            second.draw(OBJECTS.drawing("object", scene.second_object))
        spot = (x, 45 if high else 62, 30)
    else:
        spot = {
            "tiny": (free_x, 34 if high else 72, 19),
            "whole": (aside, 34 if high else 72, 21),
            "close": (aside, 22 if high else 80, 17),
        }[scene.view]
    Frame(canvas, rng, *spot, mirrored).draw(OBJECTS.drawing("object", scene.object))
