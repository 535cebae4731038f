"""Turns a `SketchScene` into a picture: place and air behind, object and person before, in its light and colour."""

from __future__ import annotations

import random

from PIL import Image

from lavis_emovit.sample_set.air import draw_front, draw_sky
from lavis_emovit.sample_set.canvas import TINTS, Canvas
from lavis_emovit.sample_set.cues import INDOOR_PLACES
from lavis_emovit.sample_set.figures import draw_person, draw_tiny_person
from lavis_emovit.sample_set.objects import HIGH_OBJECTS, OBJECT_PAINTERS, Placed
from lavis_emovit.sample_set.places_indoor import INDOOR_PAINTERS
from lavis_emovit.sample_set.places_outdoor import OUTDOOR_PAINTERS
from lavis_emovit.sample_set.scene import SketchScene

# Mean lightness of the background (0..255), and how persons and objects follow it: gain and lift, weaker so that they
# stand out in the dark.
_BACKGROUND_LUMA = {"dark": 54.0, "medium": 120.0, "bright": 178.0}
# Deep colours turn into others when they are lightened (red into pink), so pictures in them are a little darker.
_LUMA_OF_COLOUR = {"red": 0.8, "purple": 0.84, "blue": 0.88, "yellow": 1.1}
_FOREGROUND_TONE = {"dark": (0.76, 0.0), "medium": (0.92, 0.0), "bright": (0.96, 10.0)}
_SATURATION = {"grey": 0.08, "plain": 0.62, "vivid": 1.3}
# Share of the main colour's cast in background and foreground.
_CAST = {"grey": (0.0, 0.0), "plain": (0.58, 0.16), "vivid": (0.46, 0.1)}
_SUPERSAMPLING = 2


def render(scene: SketchScene, size_px: int = 192) -> Image.Image:
    """Draw the scene as an RGB picture of `size_px` x `size_px`. The same scene always gives the same pixels."""
    canvas = Canvas(size_px * _SUPERSAMPLING)
    rng = random.Random(scene.detail_seed)
    person_x = _person_x(scene)
    free_x = 100 - person_x if scene.view in ("close", "whole") else (22 if scene.person_left else 78)

    if scene.place in INDOOR_PLACES:
        INDOOR_PAINTERS[scene.place](canvas, rng)
    else:
        draw_sky(canvas, scene.air, scene.brightness, rng, free_x)
        OUTDOOR_PAINTERS[scene.place](canvas, rng)
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
        draw_person(canvas, scene, person_x, 47, 29)
    elif scene.view == "whole":
        draw_person(canvas, scene, person_x, 26, 16)
    draw_front(canvas, scene.air, rng)
    return canvas.image.reduce(_SUPERSAMPLING)


def _person_x(scene: SketchScene) -> float:
    offset = {"close": 12, "whole": 18, "tiny": 4, "none": 0}[scene.view]
    return 50 - offset if scene.person_left else 50 + offset


def _draw_objects(canvas: Canvas, scene: SketchScene, rng: random.Random, free_x: float) -> None:
    if scene.object == "none":
        return
    mirrored = rng.random() < 0.5
    painter = OBJECT_PAINTERS[scene.object]
    high = scene.object in HIGH_OBJECTS
    if scene.view == "none":
        x = 50.0
        if scene.second_object != "none":
            x = 32 if scene.person_left else 68
            y = 42 if scene.second_object in HIGH_OBJECTS else 74
            OBJECT_PAINTERS[scene.second_object](Placed(canvas, 100 - x, y, 17, not mirrored))
        painter(Placed(canvas, x, 45 if high else 62, 30, mirrored))
    elif scene.view == "tiny":
        painter(Placed(canvas, free_x, 34 if high else 72, 19, mirrored))
    elif scene.view == "whole":
        painter(Placed(canvas, 100 - scene_edge(scene), 34 if high else 72, 21, mirrored))
    else:
        painter(Placed(canvas, 100 - scene_edge(scene), 22 if high else 80, 17, mirrored))


def scene_edge(scene: SketchScene) -> float:
    """Distance of the object from the far side of the picture, in units."""
    return 22.0 if scene.person_left else 78.0
