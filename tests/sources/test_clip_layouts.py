"""Clips in tables and folders: videos, parts of videos, folders of frames, and folds.

Properties:
- columns of times make a record of each part of a video, in seconds or clock times; times that are none are named;
- a folder of frames is a clip; missing numbers leave gaps in its times; frames without a number are refused by name, as
  is an empty folder, and a missing one counts as a missing image;
- a folder of classes may contain videos or folders of frames, and accounts for what does not fit the pattern;
- a JSON object of rows is read by `key`, and without it refused with the setting;
- settings that do not fit together are refused;
- `test_fold` tests one fold and trains on the others; a fold that nobody is in is an error with those that exist;
- several labels of a row may be one compound class, whatever their order;
- settings that a dataset does not use change nothing that its shards are compared by;
- split lists name the folders of frames;
- an annotated frame of Aff-Wild2 may be a clip with its neighbours, whose key frame it is;
- a part of a video of Aff-Wild2 has the values of its frames over time, and every frame is accounted for.
"""

from __future__ import annotations

import json

import pytest
from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.settings import parse_settings
from lavis_emovit.sources.base import Notes
from lavis_emovit.sources.catalogue import DeclaredPreparation
from lavis_emovit.sources.layouts import LayoutSettings
from lavis_emovit.sources.readers.aff_wild2 import AffWild2Settings
from lavis_emovit.sources.readers.folder import FolderSettings
from lavis_emovit.sources.table_settings import TableFile, TableSettings

VIDEOS = {"stored_as": "videos"}
FRAMES = {"stored_as": "frames", "rate_fps": 10}


def _file(path, content="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def _read(root, layout, **node):
    notes = Notes()
    settings = LayoutSettings.model_validate({"source": layout, layout: node})
    return list(settings.reader(root, source="mine", notes=notes).read()), notes


def _problems(layout, **node):
    return " ".join(parse_settings(LayoutSettings, {"source": layout, layout: node}, "")[1])


def test_parts_of_a_video(tmp_path):
    _file(tmp_path / "film.mp4")
    _file(
        tmp_path / "t.csv", "file,from,to,mood\nfilm.mp4,2.5,0:00:04.250,fear\nfilm.mp4,1:02:03,,joy\nfilm.mp4,,,joy\n"
    )
    node = {"file": "t.csv", "clips": VIDEOS, "label_set": "emotion6"}
    columns = {"image": "file", "emotion": "mood", "start": "from", "end": "to"}
    records, notes = _read(tmp_path, "table", columns=columns, **node)
    parts = [(record.id, record.clip.start_s, record.clip.end_s) for record in records]
    assert parts == [("mine/film_2.5_4.25", 2.5, 4.25), ("mine/film_3723", 3723.0, None), ("mine/film", None, None)]
    assert {record.image for record in records} == {"film.mp4"} and notes.serious() == []
    _file(tmp_path / "t.csv", "file,from,to,mood\nfilm.mp4,soon,9,fear\n")
    with pytest.raises(DataError, match=r"column 'from': 'soon' is no time; expected seconds, or 0:01:02.5"):
        _read(tmp_path, "table", columns=columns, **node)


def test_a_folder_of_frames_is_a_clip(tmp_path):
    for number in (3, 4, 7):
        _file(tmp_path / "a" / f"face_{number}.jpg")
    _file(tmp_path / "t.csv", "file\na\n")
    node = {"file": "t.csv", "clips": FRAMES, "columns": {"image": "file"}}
    (record,), _ = _read(tmp_path, "table", **node)
    assert record.image == "a/face_4.jpg" and record.id == "mine/a"
    assert record.clip.frames == ("a/face_3.jpg", "a/face_4.jpg", "a/face_7.jpg")
    assert record.clip.times_s == pytest.approx((0.0, 0.1, 0.4))
    (tmp_path / "b").mkdir()
    _file(tmp_path / "t.csv", "file\nb\nc\n")
    with pytest.raises(DataError, match=r"b: the folder has no images(?s:.*)the folder of frames c is missing"):
        _read(tmp_path, "table", **node)
    _file(tmp_path / "t.csv", "file\na\nc\n")
    records, notes = _read(tmp_path, "table", missing="leave_out", **node)
    assert len(records) == 1 and notes.skipped == {"the folder of frames is missing": 1}
    _file(tmp_path / "a" / "cover.jpg")
    with pytest.raises(DataError, match=r"cover.jpg: its name does not end in the number of the frame"):
        _read(tmp_path, "table", missing="leave_out", **node)


def test_folders_of_classes(tmp_path):
    for number, name in enumerate(("happy/v1.5.MP4", "sad/ben.avi", "other.webm", "sad/readme.txt")):
        _file(tmp_path / "videos" / name, str(number))
        for frame in range(2):
            _file(tmp_path / "frames" / name / f"{frame}.png")
    records, notes = _read(tmp_path / "videos", "folder", clips=VIDEOS, pattern="{label}/{group}")
    assert [(one.id, one.image, one.emotion, one.group) for one in records] == [
        ("mine/happy/v1.5", "happy/v1.5.MP4", "happy", "v1.5"), ("mine/sad/ben", "sad/ben.avi", "sad", "ben")
    ]  # fmt: skip
    assert notes.num_rows == 3 and list(notes.skipped.values()) == [1]
    assert "videos that don't fit {label}/{group}, for example other.webm" in str(notes.report())
    records, notes = _read(tmp_path / "frames", "folder", clips=FRAMES)
    assert [one.id for one in records] == ["mine/happy/v1.5.MP4", "mine/sad/ben.avi", "mine/sad/readme.txt"]
    assert records[0].clip.rate_fps == 10 and records[0].image == "happy/v1.5.MP4/1.png"
    assert notes.num_rows == 4 and list(notes.skipped.values()) == [1]
    with pytest.raises(DataError, match=r"no video fits {label}/{name\*}.<suffix>, and there are none at all"):
        _read(tmp_path / "frames" / "happy", "folder", clips=VIDEOS)


def test_a_json_object_of_rows(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    _file(tmp_path / "t.json", json.dumps({"one": {"image": "1.png"}, "two": {"image": "1.png"}}))
    records, _ = _read(tmp_path, "table", file="t.json", key="name", columns={"id": "name"})
    assert [one.id for one in records] == ["mine/one", "mine/two"]
    with pytest.raises(DataError, match=r"expected a list of objects, got dict. For an object of rows, set `key`"):
        _read(tmp_path, "table", file="t.json")
    with pytest.raises(DataError, match=r"entry 'one'(?s:.*)has a key 'image' of its own; give `key` another name"):
        _read(tmp_path, "table", file="t.json", key="image")


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"clips": {"stored_as": "frames"}}, "frames need rate_fps"),
        ({"clips": {**VIDEOS, "rate_fps": 5}}, "videos have their own times, so remove rate_fps"),
        ({"clips": FRAMES, "columns": {"start": "a"}}, "`columns.start` and `end` are times in a video"),
        ({"columns": {"end": "a"}}, "`columns.start` and `end` are times in a video"),
        ({"clips": VIDEOS, "gather": True}, "`pixels` and `gather` are for images"),
        ({"compound": " and "}, "`compound` joins the labels of `columns.labels`"),
    ],
)
def test_settings_that_do_not_fit_are_refused(node, expected):
    assert expected in _problems("table", **node)


def test_folds(tmp_path):
    for fold in (1, 2, 3):
        _file(tmp_path / f"set_{fold}.csv", f"file\n{fold}a.mp4\n{fold}b.mp4\n")
        for name in "ab":
            _file(tmp_path / f"{fold}{name}.mp4")
    files = [{"path": f"set_{fold}.csv", "fold": fold} for fold in (1, 2, 3)]
    node = {"files": files, "clips": VIDEOS, "columns": {"image": "file"}}
    records, _ = _read(tmp_path, "table", **node)
    prepare = {"source": "table", "table": node}
    found = DeclaredPreparation.model_validate({**prepare, "test_fold": 2}).resplit(records, tmp_path)
    assert [one.id[5:] for one in found if one.split == "test"] == ["2a", "2b"]
    assert [one.id[5:] for one in found if one.split == "train"] == ["1a", "1b", "3a", "3b"]
    with pytest.raises(DataError, match="no record is in fold 9; the folds are 1, 2, 3 "):
        DeclaredPreparation.model_validate({**prepare, "test_fold": 9}).resplit(records, tmp_path)
    bare = [one.model_copy(update={"extra": {}}) for one in records]
    with pytest.raises(DataError, match="record 'mine/1a' has no 'fold' in `extra`"):
        DeclaredPreparation.model_validate({**prepare, "test_fold": 1}).resplit(bare, tmp_path)
    _, problems = parse_settings(DeclaredPreparation, {**prepare, "test_fold": 1, "split_lists": {"train": "t"}}, "")
    assert "`test_fold` gives the splits" in " ".join(problems)


def test_compound_classes(tmp_path):
    for name in "123":
        _file(tmp_path / f"{name}.png")
    _file(tmp_path / "t.csv", "image;labels\n1.png;joy+fear\n2.png;fear\n3.png;fear+joy\n")
    node = {"file": "t.csv", "label_set": "emotion6", "separator": "+", "columns": {"labels": "labels"}}
    records, _ = _read(tmp_path, "table", compound=" and ", **node)
    assert [one.emotion for one in records] == ["fear and joy", "fear", "fear and joy"]
    assert {one.label_set for one in records} == {"labels: fear, fear and joy"} and records[0].labels is None
    records, _ = _read(tmp_path, "table", **node)
    assert records[0].labels == ["joy", "fear"] and records[0].emotion is None


def test_new_settings_leave_earlier_shards_valid():
    old = {"path": "t.csv", "split": None, "images": None, "where": {}}
    assert TableFile(path="t.csv").model_dump() == old
    assert TableFile(path="t.csv", fold=0).model_dump() == {**old, "fold": 0}
    for settings in (TableSettings(), FolderSettings(), AffWild2Settings(), DeclaredPreparation(source="table")):
        added = {"key", "clips", "group_pattern", "compound", "clip", "test_fold"} & set(type(settings).model_fields)
        assert added and all(getattr(settings, key) is None for key in added)


def test_split_lists_name_folders_of_frames(tmp_path):
    for name in ("sad/1", "sad/2", "joy/1"):
        _file(tmp_path / name / "000001.jpg")
    _file(tmp_path / "train.txt", "sad/1 5\njoy/1 4\n")
    _file(tmp_path / "test.txt", "sad/2 5\n")
    records, _ = _read(tmp_path, "folder", clips=FRAMES)
    lists = {"train": "train.txt", "test": "test.txt"}
    prepare = DeclaredPreparation.model_validate({"source": "folder", "split_lists": lists})
    found = prepare.resplit(records, tmp_path)
    assert {one.id: one.split for one in found} == {"mine/joy/1": "train", "mine/sad/1": "train", "mine/sad/2": "test"}


def test_an_annotated_frame_with_its_neighbours(tmp_path):
    _file(tmp_path / "annotations" / "VA" / "Train_Set" / "7.txt", "valence,arousal\n" + "0.5,-0.25\n" * 10)
    for number in (1, 2, 4, 5, 6, 7):
        _file(tmp_path / "cropped_aligned" / "7" / f"{number:05d}.jpg")
    records, _ = _read(tmp_path, "aff_wild2", every=4, clip={"neighbours": 2, "rate_fps": 10})
    first, second = records
    assert first.image.endswith("00001.jpg") and first.clip.key_s == 0
    assert [name[-5:] for name in second.clip.frames] == ["4.jpg", "5.jpg", "6.jpg", "7.jpg"]
    assert (second.clip.rate_fps, second.clip.key_s, second.valence) == (10, pytest.approx(0.1), 0.5)
    assert second.image == second.clip.frames[1] and second.extra["frame"] == 5


def test_parts_of_videos_with_values_over_time(tmp_path):
    tasks = {
        "VA/Train_Set": "valence,arousal\n" + "0.5,-0.25\n" * 6 + "-5,-5\n" * 2 + "1,0\n" * 3,
        "EXPR/Train_Set": "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n" + "0\n" * 4 + "4\n" * 7,
        "AU/Train_Set": "AU12,AU4\n" + "1,-1\n" * 4 + "-1,-1\n" * 7,
    }
    for folder, text in tasks.items():
        _file(tmp_path / "annotations" / folder / "7.txt", text)
    for number in (1, 2, 3, 5, 6, 7, 8, 9, 11):
        _file(tmp_path / "cropped_aligned" / "7" / f"{number:05d}.jpg")
    records, notes = _read(tmp_path, "aff_wild2", part={"length_s": 0.5, "rate_fps": 10})
    first, second = records
    trace = first.clip.trace
    assert (first.id, first.group, first.emotion, first.label_set) == ("mine/7/00001", "7", None, "aff_wild8")
    assert [name[-5:] for name in first.clip.frames] == ["1.jpg", "2.jpg", "3.jpg", "5.jpg"]
    assert trace.times_s == first.clip.times_s == pytest.approx((0, 0.1, 0.2, 0.4))
    assert trace.emotion == ("neutral", "neutral", "neutral", "happiness") and trace.valence == (0.5,) * 4
    assert trace.action_units == {12: (1, 1, 1, None)} and first.extra == {"occurrence_only": "12"}
    assert (second.emotion, second.clip.trace.arousal) == ("happiness", (-0.25, None, None, 0.0))
    assert second.clip.trace.times_s == pytest.approx((0, 0.1, 0.2, 0.3)) and second.clip.trace.action_units is None
    # Frame 11 is alone in its part; frames 4 and 10 show no face.
    assert notes.account(2) == "11 rows: 2 records, 3 skipped, 6 joined to the record of another row"
    assert notes.serious() == []
    both = _problems("aff_wild2", part={"length_s": 1}, clip={"neighbours": 1})
    assert "`clip` makes a clip around each frame, `part` one of many frames" in both
    assert "part" not in AffWild2Settings().model_dump()
