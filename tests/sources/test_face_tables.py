"""Tables of OpenFace, py-feat and LibreFace; the small tables here have the columns that these programs write.

- Values get the scale of their program: an intensity stays one, a probability is never one, and a value beyond the
  scale is refused.
- Where presence and intensity disagree, one rule decides, and the disagreements are counted by unit.
- Frames find their images whatever the padding and whether counting starts at 0 or 1; an unknown start is refused.
- Rows without a face, of low confidence or without an image, and images without a row, are counted and named.
- Each of several faces gets a record with its box; records of a file get the values that they do not have.
"""

from __future__ import annotations

import pytest
from PIL import Image

from lavis_emovit.cli.main import main
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, read_records, write_records, write_summary
from lavis_emovit.sources.base import Notes
from lavis_emovit.sources.layouts import LayoutSettings

OPENFACE = "frame, face_id, timestamp, confidence, success, AU06_r, AU12_r, AU12_c, AU28_c\n"
OPENFACE_ROW = "{frame}, {face}, 0.04, {confidence}, {success}, 0.40, {au12_r}, {au12_c}, 1.0\n"
PY_FEAT = "FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,FaceScore,AU01,AU12,{emotions},input,frame\n"
LIBREFACE = "frame_idx,frame_time_in_ms,pitch,au_7,au_12,au_5_intensity,au_12_intensity,facial_expression\n"


def openface_row(frame, *, face=0, confidence=0.98, success=1, au12_r=2.5, au12_c=1):
    return OPENFACE_ROW.format(**locals())


def draw(folder, names, size=(100, 80)):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(folder / name)


def read(root, layout, **settings):
    notes = Notes()
    node = LayoutSettings.model_validate({"source": layout, layout: settings})
    records = list(node.reader(root, source="mine", notes=notes).read())
    assert notes.num_rows == len(records) + notes.skipped.total() + notes.num_joined
    return records, notes


def test_openface_gives_intensities_and_units_with_presence_only(tmp_path):
    draw(tmp_path, ["frames/clip/shot_0001.png", "frames/clip/shot_0002.png", "frames/clip/shot_0009.png"])
    rows = [openface_row(1), openface_row(2, success=0), openface_row(3), openface_row(4, confidence=0.6)]
    rows += [openface_row(9, confidence="nan"), openface_row(9, confidence="")]
    (tmp_path / "clip.csv").write_text(OPENFACE + "".join(rows))
    records, notes = read(tmp_path, "openface", images="frames/{name}")
    (record,) = records
    assert record.image == "clip/shot_0001.png"
    assert record.action_units == {6: 0.4, 12: 2.5, 28: 1.0}
    assert record.extra["units_by"] == "openface" and record.extra["units_scale"] == "intensity"
    assert record.occurrence_only == {28}
    assert record.active_units() == {6: False, 12: True, 28: True}
    assert record.group == "clip" and record.extra["confidence"] == 0.98
    assert notes.skipped == {
        "success is 0": 1, "confidence below 0.75": 1, "rows whose image is missing": 1,
        "no value of confidence": 2, "images without a usable row": 2,
    }  # fmt: skip
    assert notes.examples["rows whose image is missing"] == ["clip frame 3"]
    assert notes.examples["images without a usable row"] == ["clip/shot_0002.png", "clip/shot_0009.png"]


@pytest.mark.parametrize(("prefer", "value", "is_active"), [("intensity", 0.9, False), ("presence", 1.0, True)])
def test_presence_and_intensity_that_disagree_are_counted(tmp_path, prefer, value, is_active):
    draw(tmp_path, [f"clip/{frame}.png" for frame in range(1, 5)])
    # Present with a low intensity, absent with a high one, and twice the same.
    pairs = [(0.9, 1), (3.0, 0), (1.0, 1), (0.99, 0)]
    rows = [openface_row(frame, au12_r=r, au12_c=c) for frame, (r, c) in enumerate(pairs, start=1)]
    (tmp_path / "clip.csv").write_text(OPENFACE + "".join(rows))
    records, notes = read(tmp_path, "openface", images="{name}", prefer=prefer)
    assert records[0].action_units[12] == value
    assert records[0].active_units()[12] is is_active
    assert f"disagree in 2 of 4 values (AU12 2); the {prefer} counts" in notes.report()[0]
    assert notes.serious() == []
    # Unit 6 has an intensity only.
    assert records[0].extra["units_scale"] == "intensity" and (12 in records[0].occurrence_only) is is_active


def test_a_probability_is_not_an_intensity(tmp_path):
    draw(tmp_path, ["a/one.jpg", "a/two.jpg"], size=(300, 200))
    emotions = "anger,disgust,fear,happiness,sadness,surprise,neutral"
    (tmp_path / "t.csv").write_text(
        PY_FEAT.format(emotions=emotions)
        + "10.5,20,100,80,0.99,0.3,0.96,0.01,0,0,0.9,0,0,0.09,C:\\photos\\one.jpg,0\n"
        + "250,-4,100,80,0.98,0.3,0.6,0.01,0,0,0.1,0,0,0.9,/photos/two.jpg,1\n"
        + ",,,,,,,,,,,,,,/photos/one.jpg,2\n"
        + "400,20,100,80,0.99,0.3,0.96,0.01,0,0,0.9,0,0,0.09,/photos/one.jpg,0\n"
        + "10,20,100,80,0.99,0.3,0.96,0.01,0,0,0.9,0,0,0.09,/photos/broken.jpg,0\n"
    )
    (tmp_path / "a" / "broken.jpg").write_bytes(b"no image")
    records, notes = read(tmp_path, "py_feat", images="a", levels=["units", "expression"])
    assert [record.action_units for record in records] == [{1: 0.3, 12: 0.96}, {1: 0.3, 12: 0.6}]
    assert records[0].active_units() == {1: False, 12: True}
    assert records[0].occurrence_only == {1, 12} and records[0].extra["units_scale"] == "probability"
    # The second box crosses two edges of the image.
    assert [record.box for record in records] == [(10.5, 20, 110.5, 100), (250, 0, 300, 76)]
    assert [record.emotion for record in records] == ["happiness", "neutral"]
    assert records[0].extra["expression_by"] == "py_feat"
    assert notes.skipped == {
        "no face was found": 1, "the box of the face is outside of its image": 1,
        "the image cannot be opened (UnidentifiedImageError)": 1, "images without a usable row": 1,
    }  # fmt: skip
    (tmp_path / "t.csv").write_text(
        PY_FEAT.format(emotions="neutral") + "1,2,10,8,0.99,0.3,2.4,1,one.jpg,0\n" + "1,2,10,8,0.9,0.3,1.05,1,two.jpg,0"
    )
    with pytest.raises(DataError, match=r"t.csv, line 2: column 'AU12': 2.4 is not within 0 and 1, the scale of py_f"):
        read(tmp_path, "py_feat", images="a")


def test_the_newer_detector_of_py_feat(tmp_path):
    draw(tmp_path, ["clip/00000.jpg", "clip/00001.jpg"])
    columns = "Neutral,Happy,Sad,Surprise,Fear,Disgust,Anger,Contempt,valence,arousal"
    values = "0.1,0.2,0.05,0.05,0.1,0.1,0.1,0.3,-0.4,0.25"
    (tmp_path / "t.csv").write_text(
        PY_FEAT.format(emotions=columns) + f"1,2,10,8,0.99,0,1,{values},videos/clip.mp4,1\n"
    )
    levels = ["units", "expression", "affect"]
    (record,), _ = read(tmp_path, "py_feat", images="{name}", levels=levels)
    assert record.image == "clip/00001.jpg" and record.emotion == "contempt"
    assert (record.valence, record.arousal) == (-0.4, 0.25) and record.extra["affect_by"] == "py_feat"


def test_libreface_counts_from_0_but_its_frames_from_1(tmp_path):
    draw(tmp_path, [f"clip/frame_{number:09d}.png" for number in (1, 2, 3)])
    (tmp_path / "clip.csv").write_text(
        LIBREFACE + "0,0.0,3.1,1,0,1.25,0.4,Happiness\n2,0.08,3.1,0,1,-0.2,5.01,Neutral\n"
    )
    records, notes = read(tmp_path, "libreface", images="{name}", levels=["units", "expression"])
    assert [record.image for record in records] == ["clip/frame_000000001.png", "clip/frame_000000003.png"]
    assert [record.action_units for record in records] == [{5: 1.25, 7: 1.0, 12: 0.4}, {5: 0.0, 7: 0.0, 12: 5.0}]
    assert records[0].occurrence_only == {7}
    assert [record.emotion for record in records] == ["happiness", "neutral"]
    assert "2 values slightly outside their scale are set to its end" in notes.lines


def test_a_table_for_one_image(tmp_path):
    draw(tmp_path, ["photos/face7.jpg"])
    (tmp_path / "face7.csv").write_text(LIBREFACE.partition("pitch,")[2] + "1,0,2.0,3.0,Fear\n")
    (record,), _ = read(tmp_path, "libreface", images="photos")
    assert record.image == "face7.jpg" and record.group is None and record.action_units == {5: 2.0, 7: 1.0, 12: 3.0}


@pytest.mark.parametrize(("first", "settings"), [(0, {}), (1, {}), (4, {"frame_offset": 3}), (4, {"frames": "order"})])
def test_the_first_frame(tmp_path, first, settings):
    draw(tmp_path, [f"clip/f{number:04d}.png" for number in range(first, first + 3)])
    (tmp_path / "clip.csv").write_text(OPENFACE + "".join(openface_row(frame) for frame in (1, 2, 3)))
    records, _ = read(tmp_path, "openface", images="{name}", **settings)
    assert [record.image for record in records] == [f"clip/f{first + number:04d}.png" for number in range(3)]
    if settings:
        with pytest.raises(DataError, match=r"number 4.*Set frame_offset to -1 or 0"):
            read(tmp_path, "openface", images="{name}")


def test_aligned_faces_have_a_record_each_without_a_box(tmp_path):
    draw(tmp_path, [f"clip_aligned/frame_det_{face:02d}_{frame:06d}.bmp" for face in (0, 1) for frame in (7, 8)])
    landmarks = ", ".join([*(f"x_{n}" for n in range(68)), *(f"y_{n}" for n in range(68))])
    places = ", ".join([*map(str, range(10, 78)), *map(str, range(2, 70))])
    head = OPENFACE.strip() + ", " + landmarks + "\n"
    rows = [openface_row(f, face=n, au12_r=n).strip() + ", " + places + "\n" for f in (7, 8) for n in (0, 1)]
    (tmp_path / "clip.csv").write_text(head + "".join(rows))
    records, _ = read(tmp_path, "openface", images="{name}_aligned")
    assert [(record.image[-6:-4], record.action_units[12], record.box) for record in records] == [
        ("07", 0, None), ("07", 1, None), ("08", 0, None), ("08", 1, None),
    ]  # fmt: skip
    assert [record.image[23:25] for record in records] == ["00", "01", "00", "01"]
    # In a whole frame, the landmarks give the box.
    draw(tmp_path, ["clip/0007.png", "clip/0001.png"])
    record = read(tmp_path, "openface", images="{name}")[0][0]
    assert (record.id, record.box) == ("mine/clip/0007/face0", (10, 2, 77, 69))


def test_faces_without_boxes_cannot_be_told_apart(tmp_path):
    draw(tmp_path, ["clip/1.png"])
    rows = [openface_row(1, confidence=0.8), openface_row(1, face=1, confidence=0.9, au12_r=1.5)]
    (tmp_path / "clip.csv").write_text(OPENFACE + "".join(rows))
    (record,), notes = read(tmp_path, "openface", images="{name}")
    assert record.action_units[12] == 1.5
    assert list(notes.skipped.values()) == [1]


def record_of(number, image, **values):
    return EmotionRecord(id=f"r/{number}", image=image, split="train", source="r", **values)


def test_records_of_a_file_get_what_they_do_not_have(tmp_path):
    emotions = "Neutral,Happy"
    rows = [
        "10,10,20,20,0.99,0.1,0.9,0.1,0.9,x/two.jpg,0\n", "60,10,20,20,0.99,0.8,0.2,0.9,0.1,x/two.jpg,0\n",
        "10,10,20,20,0.99,0.1,0.9,0.1,0.9,x/coded.jpg,1\n", "1,1,9,9,0.99,0.1,0.9,0.1,0.9,x/other.jpg,2\n",
        "10,10,20,20,0.99,0.1,0.9,0.1,0.9,x/crowd.jpg,3\n", "60,10,20,20,0.99,0.8,0.2,0.9,0.1,x/crowd.jpg,3\n",
    ]  # fmt: skip
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.csv").write_text(PY_FEAT.format(emotions=emotions) + "".join(rows))
    given = [
        record_of(0, "p/two.jpg", box=(50, 0, 100, 80), emotion="sadness", label_set="ekman6"),
        record_of(1, "p/two.jpg", box=(0, 0, 50, 80)),
        record_of(2, "p/coded.jpg", action_units={12: 4.0}, extra={"note": "by hand"}),
        record_of(3, "p/crowd.jpg"),
        record_of(4, "p/lonely.jpg"),
    ]
    draw(tmp_path, ["p/two.jpg", "p/coded.jpg", "p/crowd.jpg", "p/lonely.jpg"])
    write_records(tmp_path / "r.jsonl", given)
    write_summary(tmp_path / "r.jsonl", tmp_path)
    root, out = tmp_path / "tables", tmp_path / "out.jsonl"
    settings = {"records": str(tmp_path / "r.jsonl"), "levels": ["units", "expression"]}
    records, notes = read(root, "py_feat", **settings)
    assert [record.id for record in records] == [record.id for record in given]
    assert [record.action_units for record in records] == [{1: 0.8, 12: 0.2}, {1: 0.1, 12: 0.9}, {12: 4.0}, None, None]
    # Labels by people stay, and so do records that no row, or more than one, fits.
    assert [record.emotion for record in records] == ["sadness", "happiness", "happiness", None, None]
    assert records[3:] == given[3:]
    assert "expression_by" not in records[0].extra and records[0].extra["units_by"] == "py_feat"
    assert records[2].extra["note"] == "by hand" and "units_by" not in records[2].extra
    assert notes.examples["rows whose image is missing"] == ["x/other.jpg"]
    assert notes.skipped["faces that belong to no record, or one of several that fit a record"] == 2
    # The same from the command line.
    change = [f"--set=records={settings['records']}", "--set=levels=[units,expression]", "--no-categorical"]
    assert main(["data", "import", "py_feat", str(root / "t.csv"), "--out", str(out), *change]) == 0
    assert list(read_records(out)) == records


def test_tables_that_describe_the_same_images(tmp_path):
    draw(tmp_path, ["frames/1.png"])
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text(OPENFACE + openface_row(1))
    with pytest.raises(DataError, match=r"one.csv and two.csv both have rows of 1.png. Name the folder of each video"):
        read(tmp_path, "openface", images="frames")
    _, notes = read(tmp_path, "openface", images="frames", file="one.csv", levels=["units", "expression"])
    assert "no row has a value for the level 'expression'" in notes.lines


def test_bad_tables(tmp_path):
    draw(tmp_path, ["a/one.jpg", "b/one.jpg", "c/1.png", "c/01.png"])
    table = tmp_path / "t.csv"
    table.write_text(PY_FEAT.format(emotions="neutral") + "1,2,10,8,0.99,0.3,0.4,1,one.jpg,0\n")
    with pytest.raises(DataError, match=r"'one.jpg' may be a/one.jpg or b/one.jpg; name the folder with `images`"):
        read(tmp_path, "py_feat")
    with pytest.raises(DataError, match=r"as openface writes them; it looks like a table of py_feat: `emovit data imp"):
        read(tmp_path, "openface")
    (tmp_path / "c.csv").write_text(OPENFACE + openface_row(1))
    with pytest.raises(DataError, match=r"c/?: (1.png and 01.png|01.png and 1.png) have the same frame number"):
        read(tmp_path, "openface", file="c.csv", images="{name}")
    (tmp_path / "c.csv").write_text(OPENFACE + openface_row("one"))
    with pytest.raises(DataError, match=r"c.csv, line 2: column 'frame': 'one' is not a number"):
        read(tmp_path, "openface", file="c.csv", images="{name}")
    with pytest.raises(DataError, match=r"nothing: no such folder of images; name it with `images`"):
        read(tmp_path, "openface", file="c.csv", images="nothing/{name}")
    with pytest.raises(DataError, match=r"none.csv: no such table"):
        read(tmp_path, "openface", file="none.csv")
