"""The drawn sample set stays as it was recorded: the same settings give the same files and texts.

- Scenes, descriptions and questions are those recorded from version c87bad2.
- Every image, annotation and list of a set has the bytes recorded from that version. JPEG and drawing differ between
  versions of Pillow, so these are compared under the recorded one only.

A recorded set is the sha256 of its list of files, as this command prints it:

    emovit data draw --out drawn --images-per-class 40 --seed 0 \
        && (cd drawn && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum)
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict
from pathlib import Path

import PIL
import pytest

from lavis_emovit.sample_set.describe import describe
from lavis_emovit.sample_set.questions import questions
from lavis_emovit.sample_set.scene import sample_scene
from lavis_emovit.sample_set.write import write_sketch

RECORDED_PILLOW = "13.0.0"
# (images per class, seed, size in pixels, label noise) -> sha256 of the list of files.
RECORDED_SETS = {
    (40, 0, 192, 0.04): "b72e6ddd34b0d1de27e6e15fd1baaaf73d71244f92e507ce9727cc5a1cd3a39c",
    (40, 1, 96, 0.04): "c58aa89ce9b2bf79d5180977d853680ef5d14484ae54b08257c8a4d4ba9c1407",
    (40, 2, 333, 0.0): "0e3ba9fe4d3aa6ad0ee115aaae2938f290392b60719d5e4d866ca125dbaee3e8",
    (40, 12345, 48, 0.3): "41f77585166eb882d02425f67cd40b4eefb9b49ade877a0741f5891a06195bda",
}
# sha256 of 1,000 scenes, and of their descriptions and questions: see `_scenes_and_texts`.
RECORDED_SCENES = "46c2fe1835e9cdf5a0ff8ec11e4101ee0d276b10b2f1847f85507ce899a15f8f"
RECORDED_TEXTS = "cc92f0365ad59d273cc275905f3d822687cfd147186777f04f37d5f442a77250"


def _sha256(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def _scenes_and_texts() -> tuple[str, str]:
    rng = random.Random(2024)
    scenes = [sample_scene(rng) for _ in range(1000)]
    texts = [[describe(scene, rng), questions(scene, rng)] for scene in scenes]
    return _sha256(json.dumps([asdict(scene) for scene in scenes])), _sha256(json.dumps(texts))


def test_scenes_and_texts_are_the_recorded_ones():
    assert _scenes_and_texts() == (RECORDED_SCENES, RECORDED_TEXTS)


@pytest.mark.skipif(PIL.__version__ != RECORDED_PILLOW, reason=f"bytes were recorded with Pillow {RECORDED_PILLOW}")
@pytest.mark.parametrize("settings", RECORDED_SETS, ids=str)
def test_files_are_the_recorded_ones(settings, tmp_path):
    root: Path = write_sketch(tmp_path / "set", *settings)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    listing = "".join(f"{_sha256((root / name).read_bytes())}  ./{name}\n" for name in names)
    assert _sha256(listing) == RECORDED_SETS[settings]
