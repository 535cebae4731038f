"""The EmoSet reader.

- Entries of three and four fields, with any of the attributes absent and spaces around names, become records.
- A faulty entry is named by file and number with the reason; faults are reported together, after the sound entries.
- The real `info.json` is understood, and values outside it are kept and reported once.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from lavis_emovit.errors import DataError
from lavis_emovit.sources.readers.emoset import read_emoset

SHARED_INFO = Path(os.environ.get("EMOVIT_SHARED", "../shared")) / "data" / "emoset_info" / "info.json"
INFO = {
    name: {"label2idx": {value: number for number, value in enumerate(values)}, "idx2label": {}}
    for name, values in {
        "emotion": ["amusement", "awe"],
        "scene": ["beach", "bakery/shop"],
        "object": ["Balloon", "Tree"],
        "facial_expression": ["happy", "sad"],
        "human_action": ["boxing ", "running"],
    }.items()
}


def _write(root, entries_by_split, annotations):
    """A folder in EmoSet's layout with an image for every annotation."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "info.json").write_text(json.dumps(INFO))
    for split in ("train", "val", "test"):
        (root / f"{split}.json").write_text(json.dumps(entries_by_split.get(split, [])))
    for name, annotation in annotations.items():
        emotion = name.rpartition("_")[0]
        for kind, suffix in (("image", "jpg"), ("annotation", "json")):
            (root / kind / emotion).mkdir(parents=True, exist_ok=True)
            path = root / kind / emotion / f"{name}.{suffix}"
            path.write_text("not decoded by the reader" if kind == "image" else json.dumps(annotation))


def _entry(name, fields=3):
    emotion = name.rpartition("_")[0]
    entry = [emotion, f"image/{emotion}/{name}.jpg", f"annotation/{emotion}/{name}.json"]
    return [entry[0], name, *entry[1:]] if fields == 4 else entry


FULL = {
    "image_id": "awe_00001",
    "emotion": "awe",
    "brightness": 0.3,
    "colorfulness": 0.7,
    "scene": " beach ",
    "object": ["Tree", None, " Balloon"],
    "facial_expression": "happy",
    "human_action": "boxing ",
}


def test_three_and_four_fields_and_absent_attributes(tmp_path):
    _write(
        tmp_path,
        {"train": [_entry("awe_00001"), _entry("awe_00002", 4)], "test": [_entry("sadness_00001")]},
        {"awe_00001": FULL, "awe_00002": {"emotion": "Awe", "object": "Tree", "scene": None}, "sadness_00001": {}},
    )
    first, second, third = read_emoset(tmp_path)
    assert (first.id, first.image, first.split) == ("emoset/awe_00001", "image/awe/awe_00001.jpg", "train")
    assert (first.emotion, first.label_set, first.source) == ("awe", "mikels8", "emoset")
    assert first.attributes.model_dump() == {
        "brightness": 0.3,
        "colorfulness": 0.7,
        "scene": "beach",
        "object": ["Tree", "Balloon"],
        "facial_expression": "happy",
        "human_action": "boxing",
    }
    assert second.id == "emoset/awe_00002"
    assert {name: value for name, value in second.attributes if value is not None} == {"object": ["Tree"]}
    assert (third.emotion, third.split) == ("sadness", "test")
    assert all(value is None for _, value in third.attributes)


def test_another_source_name_and_some_splits(tmp_path):
    _write(
        tmp_path, {"train": [_entry("awe_00001")], "test": [_entry("awe_00002")]}, {"awe_00001": {}, "awe_00002": {}}
    )
    (record,) = read_emoset(tmp_path, source="mine", splits=["test"])
    assert (record.id, record.source) == ("mine/awe_00002", "mine")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            ["awe", "image/awe/awe_00001.jpg"],
            r"train.json, entry 1: expected \[emotion, image, annotation\].*of 2 fields",
        ),
        (["awe", 1, 2, 3, 4], r"entry 1: expected .*of 5 fields"),
        ({"emotion": "awe"}, r"entry 1: expected .*got dict"),
        (["awesome", *_entry("awe_00001")[1:]], r"entry 1: unknown emotion 'awesome' .*did you mean 'awe'"),
        (_entry("awe_00009"), r"entry 1: the image image/awe/awe_00009.jpg is missing"),
        (
            [*_entry("awe_00003")[:2], "annotation/awe/gone.json"],
            r"annotation/awe/gone.json: cannot be read",
        ),
        (_entry("awe_00004"), r"entry 1: 'awe' in the list, but 'fear' in the annotation"),
        (_entry("awe_00005"), r"awe_00005.json\): key 'attributes.brightness': .* \(got 7"),
        (_entry("awe_00000"), r"entry 1: 'image/awe/awe_00000.jpg' is already in train.json, entry 0"),
        (_entry("awe_00006"), r"entry 1: annotation/awe/awe_00006.json: unknown emotion 'bliss'"),
        (_entry("awe_00007"), r"awe_00007.json: expected an object, got list"),
    ],
)
def test_a_faulty_entry_is_named(tmp_path, entry, expected):
    annotations = {f"awe_0000{n}": {} for n in (0, 1, 3)}
    annotations |= {"awe_00004": {"emotion": "fear"}, "awe_00005": {"brightness": 7}, "awe_00006": {"emotion": "bliss"}}
    _write(tmp_path, {"train": [_entry("awe_00000"), entry]}, {**annotations, "awe_00007": []})
    found = []
    with pytest.raises(DataError, match=rf"{tmp_path}: 1 fault:\n  - .*{expected}.*"):
        for record in read_emoset(tmp_path):
            found.append(record.id)
    assert found == ["emoset/awe_00000"]


def test_faults_are_reported_together_up_to_a_limit(tmp_path):
    good = [_entry("awe_00000")]
    _write(tmp_path, {"train": good + [["joy", "a", "b"]] * 3}, {"awe_00000": {}})
    with pytest.raises(DataError, match=r"3 faults:\n(.*\n){3}Correct or remove"):
        list(read_emoset(tmp_path))
    _write(tmp_path, {"train": [["joy", "a", "b"]] * 500}, {})
    with pytest.raises(DataError, match="at least 20 faults, reading stopped"):
        list(read_emoset(tmp_path))


def test_a_folder_that_is_not_emoset(tmp_path):
    with pytest.raises(DataError, match=r"no such folder. Get EmoSet-118K at https://"):
        list(read_emoset(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"train.json: cannot be read .*as published"):
        list(read_emoset(tmp_path))
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(DataError, match=r"train.json: not JSON"):
        list(read_emoset(tmp_path))
    (tmp_path / "train.json").write_text('{"a": 1, "a": 2}')
    with pytest.raises(DataError, match=r"train.json: not JSON \(the key 'a' is repeated"):
        list(read_emoset(tmp_path))
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(DataError, match=r"train.json: expected a list, got dict"):
        list(read_emoset(tmp_path))
    (tmp_path / "info.json").write_text("{}")
    with pytest.raises(DataError, match=r"info.json: not EmoSet's info.json"):
        list(read_emoset(tmp_path))


def test_values_outside_the_vocabulary_are_kept_and_reported_once(tmp_path, caplog):
    names = [f"awe_0000{number}" for number in range(3)]
    _write(tmp_path, {"train": [_entry(name) for name in names]}, {name: {"scene": "moon base"} for name in names})
    with caplog.at_level(logging.WARNING):
        assert {record.attributes.scene for record in read_emoset(tmp_path)} == {"moon base"}
    assert [line.getMessage().partition(": ")[2] for line in caplog.records] == [
        "kept attribute values that info.json does not list: scene 'moon base' (3)"
    ]


@pytest.mark.skipif(not SHARED_INFO.is_file(), reason="the published info.json is not available")
def test_the_published_vocabulary_is_understood(tmp_path, caplog):
    _write(tmp_path, {"train": [_entry("awe_00001")]}, {"awe_00001": {**FULL, "scene": "bakery/shop"}})
    shutil.copy(SHARED_INFO, tmp_path / "info.json")
    with caplog.at_level(logging.WARNING):
        (record,) = read_emoset(tmp_path)
    assert record.attributes.human_action == "boxing"
    assert not caplog.records
