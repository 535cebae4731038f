"""The drawn clips: emotion only in the change of light.

Properties:
- every label has the same single frames at every time, of every scene, so in every split;
- no two labels have the same pattern of light, also not with dark and bright exchanged;
- the two images of a scene differ clearly in lightness;
- the same settings give the same files; a scene is in one split; wrong settings are refused;
- the dataset gives batches of four frames, with the question and the label.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from lavis_emovit.errors import DataError
from lavis_emovit.images import brightness
from lavis_emovit.records import read_records
from lavis_emovit.sample_set.clips import PATTERNS, lights_of, scene_for, write_clip_sketch
from lavis_emovit.sample_set.draw import render
from lavis_emovit.sample_set.scene import NIGHT_AIR


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return write_clip_sketch(tmp_path_factory.mktemp("clips") / "drawn", images_per_class=20, size_px=32)


def test_single_frames_of_all_labels_are_the_same(drawn):
    frames = defaultdict(Counter)
    for record in read_records(drawn / "records.jsonl"):
        for place, path in enumerate(record.clip.frames):
            frames[record.split, place, path][record.emotion] += 1
    assert len(frames) == 10 * 4 * 2
    assert all(counts == dict.fromkeys(PATTERNS, 1) for counts in frames.values())


def test_no_two_labels_have_the_same_pattern():
    patterns = [lights_of(label, index) for label in PATTERNS for index in (0, 1)]
    assert len(set(patterns)) == 2 * len(PATTERNS)
    assert lights_of("fear", 0) == ("dark", "bright", "dark", "bright") and lights_of("awe", 7)[2:] == ("dark", "dark")


def test_dark_and_bright_differ():
    for number in random.Random(0).sample(range(1000), 20):
        scene = scene_for(number, 0)
        assert scene.air not in NIGHT_AIR
        dark, bright = (brightness(render(replace(scene, brightness=light), 48)) for light in ("dark", "bright"))
        assert bright - dark > 0.15


def test_files(drawn, tmp_path):
    again = write_clip_sketch(tmp_path / "again", images_per_class=20, size_px=32)
    files = sorted(path.relative_to(drawn) for path in drawn.rglob("*") if path.is_file())
    assert len(files) == 2 * 10 + 2
    assert all((drawn / file).read_bytes() == (again / file).read_bytes() for file in files)
    records = list(read_records(drawn / "records.jsonl"))
    assert Counter((record.emotion, record.split) for record in records) == {
        (label, split): count for label in PATTERNS for split, count in (("train", 14), ("val", 2), ("test", 4))
    }
    splits = defaultdict(set)
    for record in records:
        splits[record.group].add(record.split)
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"images_per_class": 30}, "multiple of 20"),
        ({"images_per_class": 0}, "multiple"),
        ({"label_noise": 0.1}, "to 0"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, values, text):
    with pytest.raises(DataError, match=text):
        write_clip_sketch(tmp_path / "clips", **values)
    assert not any(tmp_path.iterdir())
