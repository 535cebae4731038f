"""The drawn clips: scenes whose emotion is only in how their light changes.

Every scene is drawn twice, dark and bright, and every emotion has two clips of it: its pattern of the two images, and
the same pattern with dark and bright exchanged. So all emotions have the same single frames at every time, and only the
comparison of frames distinguishes them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.files import write_json
from lavis_emovit.paths import RECORDS_NAME
from lavis_emovit.sample_set.draw import render
from lavis_emovit.sample_set.scene import NIGHT_AIR, SketchScene, sample_scene
from lavis_emovit.sample_set.write import (
    DRAWING_VERSION,
    JPEG_QUALITY,
    SETTINGS_FILE,
    drawn_attributes,
    write_folder,
)

# Raise its last number whenever other clips or records are made of the same drawings.
CLIP_VERSION = f"{DRAWING_VERSION}.2"
RATE_FPS = 3
# Which of the two images each frame is.
PATTERNS = {
    "amusement": (0, 1, 1, 0),  # the light changes for a moment and comes back
    "awe": (0, 0, 1, 1),  # day breaks, or night falls
    "contentment": (0, 0, 0, 0),  # nothing changes
    "fear": (0, 1, 0, 1),  # the light flickers
}
_LIGHTS = ("dark", "bright")
_SPLIT_OF_SCENE = ("train",) * 7 + ("val",) + ("test",) * 2


def scene_for(number: int, seed: int) -> SketchScene:
    """Scene `number` (from 0), in its dark version; whatever it shows says nothing about the label of its clips."""
    rng = random.Random(f"emoclip_sketch/{seed}/{number}")
    while (scene := sample_scene(rng)).air in NIGHT_AIR:
        pass
    return replace(scene, brightness="dark")


def lights_of(label: str, index: int) -> tuple[str, ...]:
    """`dark` or `bright` for each frame of clip `index` (from 0) of a label; its scene is number `index // 2`."""
    return tuple(_LIGHTS[(light + index) % 2] for light in PATTERNS[label])


def write_clip_sketch(
    root: str | Path,
    images_per_class: int = 200,
    seed: int = 0,
    size_px: int = 96,
    label_noise: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw the clips into the folder `root`, as frames and `records.jsonl`, or keep those with the same settings.

    The folder appears under its name only when it is complete. The same settings give the same bytes (with one version
    of Pillow), and clip i of a label does not depend on the number of clips.

    Args:
        images_per_class: clips of each label, two of each scene; 70/10/20 % of the scenes are for train, val and test.
        label_noise: must be 0; with noise, the labels of a scene's clips could follow from single frames.
        progress: called with (finished scenes, all scenes) after each scene.

    Raises:
        DataError: a setting is out of range, or `root` contains something else.
    """
    if images_per_class % 20 or images_per_class <= 0:
        raise DataError(
            f"images_per_class is {images_per_class}; clips need a multiple of 20, two of each scene, so that every "
            "split has its share of the scenes"
        )
    if label_noise:
        raise DataError(f"label_noise is {label_noise}; clips have none, set it to 0")
    settings = {"clip_version": CLIP_VERSION, "images_per_class": images_per_class, "seed": seed, "size_px": size_px}
    return write_folder(root, settings, lambda folder: _write(folder, settings, progress))


def _write(root: Path, settings: dict[str, Any], progress: Callable[[int, int], None] | None) -> None:
    num_scenes = settings["images_per_class"] // 2
    lines = []
    for number in range(num_scenes):
        scene, folder = scene_for(number, settings["seed"]), f"frames/{number + 1:05d}"
        (root / folder).mkdir(parents=True)
        for light in _LIGHTS:
            image = render(replace(scene, brightness=light), settings["size_px"])
            image.save(root / folder / f"{light}.jpg", "JPEG", quality=JPEG_QUALITY)
        for label, index in product(PATTERNS, (2 * number, 2 * number + 1)):
            frames = [f"{folder}/{light}.jpg" for light in lights_of(label, index)]
            record = {
                "id": f"emoclip_sketch/{label}_{index + 1:05d}",
                "image": frames[0],
                "split": _SPLIT_OF_SCENE[number % 10],
                "source": "emoclip_sketch",
                "emotion": label,
                "label_set": f"labels: {', '.join(PATTERNS)}",
                "group": f"scene {number + 1}",
                "clip": {"frames": frames, "rate_fps": RATE_FPS},
                "attributes": drawn_attributes(scene),
            }
            lines.append(json.dumps(record) + "\n")
        if progress:
            progress(number + 1, num_scenes)
    (root / RECORDS_NAME).write_text("".join(lines), encoding="utf-8", newline="\n")
    write_json(root / SETTINGS_FILE, {"settings": settings})
