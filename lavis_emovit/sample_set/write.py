"""Writes the drawn sample set to disk in the layout of EmoSet."""

from __future__ import annotations

import json
import logging
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.files import name_full_disk
from lavis_emovit.images import brightness, colorfulness
from lavis_emovit.own_files import Written, read_own
from lavis_emovit.paths import expand_home
from lavis_emovit.sample_set.draw import render
from lavis_emovit.sample_set.scene import SketchScene, sample_scene
from lavis_emovit.sample_set.vocabulary import EMOTIONS, FACTS

logger = logging.getLogger(__name__)

# Raise it whenever the same settings give other images, so that old sets on disk are recognised.
DRAWING_VERSION = 1
LABEL_NOISE = 0.04
SPLITS: dict[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}
SETTINGS_FILE = "sketch.json"
# EmoSet numbers its emotions with the four pleasant ones first.
_EMOSET_EMOTIONS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
JPEG_QUALITY = 92
_STALE_AFTER_S = 3600


def write_sketch(
    root: str | Path,
    images_per_class: int = 150,
    seed: int = 0,
    size_px: int = 192,
    label_noise: float = LABEL_NOISE,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw the sample set into the folder `root`, or keep a set that was drawn there with the same settings.

    The folder appears under its name only when it is complete. The same settings give the same bytes (with one version
    of Pillow), and image i of a class does not depend on the number of images. The files are those of EmoSet, and
    `sketch.json` with the settings and the images whose label is wrong on purpose.

    Args:
        images_per_class: of the 8 emotions; 70/10/20 % are for train, val and test.
        label_noise: share of the images whose label is not the emotion of their scene.
        progress: called with (finished images, all images) after each image.

    Raises:
        DataError: a setting is out of range, or `root` contains something else.
    """
    settings = _checked_settings(images_per_class, seed, size_px, label_noise)
    return write_folder(root, settings, lambda folder: _write_all(folder, settings, progress))


def write_folder(root: str | Path, settings: dict[str, Any], write: Callable[[Path], None]) -> Path:
    """Let `write` draw a set into a new folder, which becomes `root` when it is complete, with `sketch.json`.

    A complete folder with the same settings is kept. DataError if `root` contains something else.
    """
    root = expand_home(root).absolute()
    if _is_written(root, settings):
        logger.info("keeping the sample set in %s", root)
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{root.name}.unfinished-"
    # Killed processes leave such folders; recent ones may belong to a running process.
    for folder in root.parent.glob(f"{prefix}*"):
        if time.time() - folder.stat().st_mtime > _STALE_AFTER_S:
            shutil.rmtree(folder, ignore_errors=True)
    with name_full_disk(root):
        unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=root.parent))
    try:
        unfinished.chmod(0o755)
        with name_full_disk(root):
            write(unfinished)
        _move_into_place(unfinished, root, settings)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def scene_for(label: str, index: int, seed: int, label_noise: float = LABEL_NOISE) -> SketchScene:
    """The scene of image `index` (from 0) of a label; its `emotion` is another one where the label is noise."""
    rng = random.Random(f"emoset_sketch/{seed}/{label}/{index}")
    wrong = rng.random() < label_noise
    others = [emotion for emotion in EMOTIONS if emotion != label]
    return sample_scene(rng, rng.choice(others) if wrong else label)


def annotation_of(scene: SketchScene, image_id: str, label: str, image: Image.Image) -> dict[str, Any]:
    """The annotation with EmoSet's keys; attributes for which EmoSet has no name are absent."""
    measured = {"brightness": brightness(image), "colorfulness": colorfulness(image)}
    return {"image_id": image_id, "emotion": label, **measured, **drawn_attributes(scene)}


def drawn_attributes(scene: SketchScene) -> dict[str, Any]:
    """The attributes of EmoSet that do not depend on the light, as far as it has names for them."""
    objects = [FACTS["object"][name].get("emoset") for name in (scene.object, scene.second_object)]
    found = {
        "scene": scene.place,
        "object": [name for name in objects if name],
        "facial_expression": scene.expression,
        "human_action": FACTS["action"][scene.action].get("emoset"),
    }
    return {name: value for name, value in found.items() if value not in ("none", None, [])}


def _checked_settings(images_per_class: int, seed: int, size_px: int, label_noise: float) -> dict[str, Any]:
    if images_per_class < 10:
        raise DataError(f"images_per_class is {images_per_class}; it must be at least 10, so that no split is empty")
    if not 32 <= size_px <= 2048:
        raise DataError(f"size_px is {size_px}; it must be between 32 and 2048")
    if not 0 <= label_noise < 0.5:
        raise DataError(f"label_noise is {label_noise}; it must be at least 0 and less than 0.5")
    return {
        "drawing_version": DRAWING_VERSION,
        "images_per_class": images_per_class,
        "seed": seed,
        "size_px": size_px,
        "label_noise": label_noise,
    }


class _Drawn(Written):
    """The file `sketch.json`, as far as it is read."""

    settings: dict[str, int | float | str | None]


def _is_written(root: Path, settings: dict[str, Any]) -> bool:
    """Whether the set exists already; folders with other content are refused."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise DataError(f"{root} is a file; choose a folder for the sample set")
    settings_file = root / SETTINGS_FILE
    if not settings_file.exists():
        if any(root.iterdir()):
            raise DataError(f"{root} is not empty and not a drawn sample set; choose another folder")
        return False
    found = read_own(settings_file, _Drawn, f"Remove {root} to draw the set again.").settings
    if found != settings:
        changed = [key for key in sorted({*found, *settings}) if found.get(key) != settings.get(key)]
        changes = [f"{key} {found.get(key)} (requested {settings.get(key)})" for key in changed]
        raise DataError(
            f"{root} contains a sample set with other settings: {', '.join(changes)}. Choose another folder, or remove "
            "this one to draw the set again."
        )
    return True


def _write_all(root: Path, settings: dict[str, Any], progress: Callable[[int, int], None] | None) -> None:
    count, seed = settings["images_per_class"], settings["seed"]
    total, done = count * len(EMOTIONS), 0
    entries: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    relabelled: dict[str, str] = {}
    for label in EMOTIONS:
        for folder in ("image", "annotation"):
            (root / folder / label).mkdir(parents=True)
        splits = _splits_of(label, count, seed)
        for index in range(count):
            scene = scene_for(label, index, seed, settings["label_noise"])
            image_id = f"{label}_{index + 1:05d}"
            image_path, annotation_path = f"image/{label}/{image_id}.jpg", f"annotation/{label}/{image_id}.json"
            image = render(scene, settings["size_px"])
            image.save(root / image_path, "JPEG", quality=JPEG_QUALITY)
            _write_json(root / annotation_path, annotation_of(scene, image_id, label, image))
            entries[splits[index]].append([label, image_path, annotation_path])
            if scene.emotion != label:
                relabelled[image_id] = scene.emotion
            done += 1
            if progress:
                progress(done, total)
    for split, rows in entries.items():
        lines = ",\n".join(json.dumps(row) for row in rows)
        (root / f"{split}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8", newline="\n")
    _write_json(root / "info.json", _info())
    _write_json(root / SETTINGS_FILE, {"settings": settings, "emotion_of_noisy_labels": relabelled})


def _splits_of(label: str, count: int, seed: int) -> list[str]:
    """The split of each image of a class: exact shares, in an order that depends on the seed."""
    num_train, num_val = round(count * SPLITS["train"]), round(count * SPLITS["val"])
    splits = ["train"] * num_train + ["val"] * num_val + ["test"] * (count - num_train - num_val)
    random.Random(f"emoset_sketch/splits/{seed}/{label}").shuffle(splits)
    return splits


def _info() -> dict[str, dict[str, dict[str, Any]]]:
    """The content of `info.json`: for each attribute the values that can occur, numbered as in EmoSet."""
    tenths = [step / 10 for step in range(11)]
    values: dict[str, Sequence[Any]] = {
        "emotion": _EMOSET_EMOTIONS,
        "brightness": tenths,
        "colorfulness": tenths,
        "scene": sorted(place for place in FACTS["place"] if place != "none"),
        "object": sorted({entry["emoset"] for entry in FACTS["object"].values() if "emoset" in entry}),
        "facial_expression": [expression for expression in FACTS["expression"] if expression != "none"],
        "human_action": sorted({entry["emoset"] for entry in FACTS["action"].values() if "emoset" in entry}),
    }
    return {
        attribute: {
            "label2idx": {str(value): index for index, value in enumerate(found)},
            "idx2label": {str(index): value for index, value in enumerate(found)},
        }
        for attribute, found in values.items()
    }


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", newline="\n")


def _move_into_place(unfinished: Path, root: Path, settings: dict[str, Any]) -> None:
    try:
        if root.is_dir():
            root.rmdir()
        unfinished.replace(root)
    except OSError:
        # A folder that is not empty cannot be replaced. If another process has finished the same set, keep that one.
        if not _is_written(root, settings):
            raise
