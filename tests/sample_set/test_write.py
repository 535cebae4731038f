"""The drawn sample set on disk.

- Layout, keys and names are those of EmoSet (names copied from its `info.json`); the split is 70/10/20 in every class.
- The same seed gives the same bytes, another seed other bytes; a larger set begins with the images of a smaller one.
- About 4 % of the labels are wrong, and the settings file lists them.
- A complete set is kept; other settings, other folders and bad values are refused; a failure leaves nothing behind.
- The EmoSet reader reads it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.sample_set import write
from lavis_emovit.sample_set.scene import EMOTIONS
from lavis_emovit.sample_set.write import scene_for, write_sketch
from lavis_emovit.sources.readers.emoset import read_emoset

# From EmoSet's own info.json.
EMOSET_SCENES = (
    "alley amusement_park basement bathroom beach bedroom bow_window boxing_ring canyon carrousel cemetery field "
    "forest_path formal_garden hospital_room jail_cell lake landfill mountain_snowy playground railroad_track stadium "
    "stage street swamp volcano waterfall wave"
).split()
EMOSET_ACTIONS = (
    "bouncing on trampoline|boxing |celebrating|crying|dancing|drinking|eating ice cream|garbage collecting|jogging|"
    "juggling balls|playing guitar|pumping fist|reading book|surfing water|throwing ball|watering plants|yoga"
).split("|")
EMOSET_OBJECTS = (
    "Axe|Balloon|Bat|Bench|Bull|Butterfly|Cake|Candle|Car|Cat|Drum|Duck|Eagle|Elephant|Flag|Flower|Guitar|Ice cream|"
    "Lighthouse|Rose|Skull|Snail|Snake|Spider|Stop sign|Suitcase|Teapot|Teddy bear|Toilet|Tree|Umbrella|"
    "Waste container|Whale|Wheelchair|Worm"
).split("|")
EMOSET_EXPRESSIONS = ["angry", "disgust", "fear", "happy", "sad", "surprise"]
EMOSET_EMOTIONS = {
    "amusement": 0, "awe": 1, "contentment": 2, "excitement": 3, "anger": 4, "disgust": 5, "fear": 6, "sadness": 7,
}  # fmt: skip


@pytest.fixture(scope="module")
def sketch_root(tmp_path_factory) -> Path:
    return write_sketch(tmp_path_factory.mktemp("sketch") / "set", images_per_class=20, seed=3, size_px=64)


def _digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout_is_that_of_emoset(sketch_root):
    sizes = {}
    for split in ("train", "val", "test"):
        entries = json.loads((sketch_root / f"{split}.json").read_text())
        sizes[split] = len(entries)
        for emotion, image, annotation in entries:
            stem = Path(image).stem
            assert image == f"image/{emotion}/{stem}.jpg"
            assert annotation == f"annotation/{emotion}/{stem}.json"
            with Image.open(sketch_root / image) as opened:
                assert (opened.format, opened.size, opened.mode) == ("JPEG", (64, 64), "RGB")
            assert json.loads((sketch_root / annotation).read_text())["image_id"] == stem
    assert sizes == {"train": 8 * 14, "val": 8 * 2, "test": 8 * 4}


def test_info_has_the_structure_and_names_of_emoset(sketch_root):
    info = json.loads((sketch_root / "info.json").read_text())
    assert list(info) == [
        "emotion", "brightness", "colorfulness", "scene", "object", "facial_expression", "human_action",
    ]  # fmt: skip
    assert info["emotion"]["label2idx"] == EMOSET_EMOTIONS
    assert info["brightness"]["label2idx"]["0.3"] == 3
    assert info["brightness"]["idx2label"]["3"] == 0.3
    assert list(info["scene"]["label2idx"]) == EMOSET_SCENES
    assert list(info["object"]["label2idx"]) == EMOSET_OBJECTS
    assert list(info["human_action"]["label2idx"]) == EMOSET_ACTIONS
    assert list(info["facial_expression"]["label2idx"]) == EMOSET_EXPRESSIONS


def test_annotations_contain_what_is_drawn_and_nothing_else(sketch_root):
    absent = dict.fromkeys(("scene", "object", "facial_expression", "human_action"), 0)
    for label in EMOTIONS:
        for index in range(20):
            scene = scene_for(label, index, seed=3)
            path = sketch_root / "annotation" / label / f"{label}_{index + 1:05d}.json"
            found = json.loads(path.read_text())
            assert found["emotion"] == label
            assert 0 <= found["brightness"] <= 1 and round(found["brightness"], 1) == found["brightness"]
            assert 0 <= found["colorfulness"] <= 1 and round(found["colorfulness"], 1) == found["colorfulness"]
            assert found.get("scene", "none") == scene.place
            assert found.get("facial_expression", "none") == scene.expression
            assert set(found.get("object", ())) <= set(EMOSET_OBJECTS)
            assert ("human_action" in found) <= (scene.action != "none")
            for key in absent:
                absent[key] += key not in found
    assert all(0 < count < 150 for count in absent.values()), absent


def test_bytes_depend_on_the_settings_alone(sketch_root, tmp_path):
    again = write_sketch(tmp_path / "again", images_per_class=20, seed=3, size_px=64)
    assert _digest(again) == _digest(sketch_root)
    other = _digest(write_sketch(tmp_path / "other", images_per_class=10, seed=4, size_px=64))
    small = _digest(write_sketch(tmp_path / "small", images_per_class=10, seed=3, size_px=64))
    whole = _digest(sketch_root)
    images = [name for name in small if name.startswith("image/")]
    assert len(images) == 80
    assert all(small[name] == whole[name] for name in images)
    assert all(small[name] != other[name] for name in images)


def test_about_4_percent_of_labels_are_wrong(sketch_root):
    wrong = sum(scene_for(label, index, seed=0).emotion != label for label in EMOTIONS for index in range(400))
    # 3200 draws of probability 0.04: standard deviation 0.0035.
    assert abs(wrong / 3200 - 0.04) < 0.0105
    noisy = json.loads((sketch_root / "sketch.json").read_text())["emotion_of_noisy_labels"]
    expected = {
        f"{label}_{index + 1:05d}": scene_for(label, index, seed=3).emotion
        for label in EMOTIONS
        for index in range(20)
        if scene_for(label, index, seed=3).emotion != label
    }
    assert noisy == expected != {}
    assert all(scene_for("awe", index, seed=0, label_noise=0.0).emotion == "awe" for index in range(50))


def test_complete_set_is_kept(sketch_root):
    stamp = (sketch_root / "train.json").stat().st_mtime_ns
    assert write_sketch(sketch_root, images_per_class=20, seed=3, size_px=64) == sketch_root
    assert (sketch_root / "train.json").stat().st_mtime_ns == stamp


def test_other_settings_are_refused(sketch_root):
    with pytest.raises(DataError, match=r"seed 3 \(requested 5\)"):
        write_sketch(sketch_root, images_per_class=20, seed=5, size_px=64)


def test_other_folders_and_bad_values_are_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not empty"):
        write_sketch(tmp_path / "photos")
    assert (tmp_path / "photos" / "mine.txt").read_text() == "keep"
    with pytest.raises(DataError, match="is a file"):
        write_sketch(tmp_path / "photos" / "mine.txt")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sketch.json").write_text("{")
    with pytest.raises(DataError, match=r"sketch\.json: damaged: not JSON"):
        write_sketch(tmp_path / "broken")
    for bad in ({"images_per_class": 9}, {"size_px": 8}, {"label_noise": 0.5}):
        with pytest.raises(DataError, match=next(iter(bad))):
            write_sketch(tmp_path / "new", **bad)
    assert not (tmp_path / "new").exists()


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    drawn = []

    def fail_later(scene, size_px):
        drawn.append(scene)
        if len(drawn) > 15:
            raise KeyboardInterrupt
        return Image.new("RGB", (size_px, size_px))

    monkeypatch.setattr(write, "render", fail_later)
    with pytest.raises(KeyboardInterrupt):
        write_sketch(tmp_path / "set", images_per_class=10)
    assert list(tmp_path.iterdir()) == []


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "set").mkdir()
    seen = []
    write_sketch(tmp_path / "set", 10, size_px=32, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (80, 80)
    assert (tmp_path / "set" / "sketch.json").exists()


def test_emoset_reader_reads_it(sketch_root):
    records = list(read_emoset(sketch_root, source="emoset_sketch"))
    assert len(records) == 160
    assert {record.emotion for record in records} == set(EMOTIONS)
    assert sum(record.split == "test" for record in records) == 32
    for record in records:
        found = json.loads(
            (sketch_root / record.image.replace("image/", "annotation/").replace(".jpg", ".json")).read_text()
        )
        assert record.attributes.brightness == found["brightness"]
        assert (record.attributes.scene or None) == found.get("scene")
