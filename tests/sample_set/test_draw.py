"""Images of drawn scenes.

- The same scene gives the same pixels, at any size.
- Every value of every drawn fact is visible: changing one fact changes the image at 96 pixels.
- Lightness follows the brightness fact, colourfulness the saturation fact, the mean hue mostly the colour fact.
- Brightness and colourfulness of simple images equal values calculated by hand.
- An image takes milliseconds.
"""

from __future__ import annotations

import colorsys
import random
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lavis_emovit.images import brightness, colorfulness
from lavis_emovit.sample_set.canvas import TINTS
from lavis_emovit.sample_set.draw import render
from lavis_emovit.sample_set.scene import FACT_VALUES, SketchScene, sample_scene


def _plain_scene(**facts: str) -> SketchScene:
    """A calm field with a person in full, changed by the given facts."""
    scene = sample_scene(random.Random(0))
    plain = {
        "view": "whole", "who": "adult", "expression": "none", "mouth": "straight", "brows": "level", "eyes": "open",
        "tears": "no", "action": "standing", "place": "field", "object": "none", "second_object": "none",
        "air": "none", "brightness": "medium", "saturation": "vivid", "colour": "yellow",
    }  # fmt: skip
    return replace(scene, **{**plain, **facts})


def _pixels(scene: SketchScene, size_px: int = 96) -> np.ndarray:
    return np.asarray(render(scene, 192).resize((size_px, size_px), Image.Resampling.BICUBIC), dtype=np.float32)


def _values(fact: str, *without: str) -> tuple[str, ...]:
    return tuple(value for value in FACT_VALUES[fact] if value not in without)


def _changed_share(first: np.ndarray, second: np.ndarray) -> float:
    """Share of pixels that differ clearly."""
    return float((np.abs(first - second).max(axis=-1) > 24).mean())


def test_same_scene_same_pixels():
    rng = random.Random(1)
    for scene in (sample_scene(rng) for _ in range(20)):
        first = render(scene)
        assert first.size == (192, 192)
        assert first.mode == "RGB"
        assert first.tobytes() == render(scene).tobytes()
    assert render(scene, 64).size == (64, 64)


@pytest.mark.parametrize(
    ("fact", "values", "base"),
    [
        ("object", _values("object", "none"), {}),
        ("action", _values("action", "none", "standing"), {}),
        ("place", _values("place", "field"), {}),
        ("air", _values("air", "none"), {}),
        ("mouth", _values("mouth", "none", "straight"), {}),
        ("brows", ("raised", "lowered", "slanted"), {}),
        ("eyes", ("wide", "narrow", "closed"), {}),
        ("tears", ("yes",), {}),
        ("who", ("child", "old person", "clown"), {}),
        ("view", ("close", "tiny", "none"), {}),
        ("second_object", _values("second_object", "none"), {"view": "none", "object": "tree"}),
    ],
)
def test_each_value_is_visible_at_96_pixels(fact, values, base):
    # A brow is the smallest thing: about 20 of 9216 pixels.
    images = [_pixels(_plain_scene(**base)), *(_pixels(_plain_scene(**{**base, fact: value})) for value in values)]
    for index, image in enumerate(images):
        for other in images[index + 1 :]:
            assert _changed_share(image, other) > 0.0015


def test_lightness_colour_and_hue_follow_their_facts():
    rng = random.Random(2)
    levels: dict[str, list[float]] = {"dark": [], "medium": [], "bright": []}
    strengths: dict[str, list[float]] = {"grey": [], "plain": [], "vivid": []}
    hues = {name: colorsys.rgb_to_hsv(*(value / 255 for value in tint))[0] for name, tint in TINTS.items()}
    hits = []
    for scene in (sample_scene(rng) for _ in range(400)):
        image = render(scene, 96)
        levels[scene.brightness].append(brightness(image))
        strengths[scene.saturation].append(colorfulness(image))
        if scene.colour != "grey":
            hue = colorsys.rgb_to_hsv(*(np.asarray(image).mean(axis=(0, 1)) / 255))[0]
            distance = {name: min(abs(hue - of), 1 - abs(hue - of)) for name, of in hues.items() if name != "grey"}
            hits.append(min(distance, key=lambda name: distance[name]) == scene.colour)
    means = [np.mean(levels[level]) for level in ("dark", "medium", "bright")]
    assert means[0] + 0.12 < means[1] < means[2] - 0.12
    means = [np.mean(strengths[strength]) for strength in ("grey", "plain", "vivid")]
    assert means[0] < 0.1
    assert means[0] + 0.2 < means[1] < means[2] - 0.1
    assert np.mean(hits) > 0.75


def test_brightness_and_colorfulness_of_simple_images():
    assert (brightness(Image.new("RGB", (8, 8))), colorfulness(Image.new("RGB", (8, 8)))) == (0.0, 0.0)
    assert brightness(Image.new("RGB", (8, 8), (255, 255, 255))) == 1.0
    # By hand: luma of pure green is 0.587 * 255; a flat red has no spread, 0.3 * hypot(255, 127.5) / 109 = 0.785.
    assert brightness(Image.new("RGB", (8, 8), (0, 255, 0))) == 0.6
    assert colorfulness(Image.new("RGB", (8, 8), (255, 0, 0))) == 0.8
    halves = Image.new("RGB", (8, 8), (255, 0, 0))
    halves.paste((0, 0, 255), (0, 0, 4, 8))
    assert colorfulness(halves) == 1.0


def test_an_image_takes_milliseconds():
    rng = random.Random(3)
    scenes = [sample_scene(rng) for _ in range(60)]
    start = time.process_time()
    for scene in scenes:
        render(scene)
    assert (time.process_time() - start) / len(scenes) < 0.02
