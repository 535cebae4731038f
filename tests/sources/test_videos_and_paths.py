"""Datasets whose labels are in paths, or in files for each person or video.

- Codes, lines and files that contradict each other are refused by name; absent codes are noted; no blank line moves a
  label to another frame.
- Every file and entry that gives no record is counted, with an example; values of any type are refused by name.
- Files that macOS adds beside others change nothing.
- The fingerprint follows labels and images, not the place of the folder.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.io

from lavis_emovit.errors import DataError
from lavis_emovit.sources.base import Notes
from lavis_emovit.sources.catalogue import find_entry
from lavis_emovit.sources.layouts import LayoutSettings, fingerprint, open_dataset


def _read(name, root, tmp_path):
    notes = Notes()
    reader = open_dataset(root, find_entry(name).layout, source=name, notes=notes, extract_to=tmp_path / "extracted")
    return list(reader.read()), reader.image_root, notes


CODES = "ActionUnit_Labels/SN001/SN001_au"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({f"{CODES}12.txt": "1,0\n1,3\n2,3\n"}, r"SN001_au12.txt: frame 1 has the codes 0 and 3 for unit 12"),
        ({f"{CODES}12.txt": "1,9\n2,3\n1,3\n"}, r"SN001_au12.txt: frame 1 has the codes 9 and 3 for unit 12"),
        ({f"{CODES}01.txt": "1,5\n"}, r"SN001_au1.txt: frame 1 has the codes 5 and 0 for unit 1"),
    ],
)
def test_codes_that_contradict_each_other_are_refused(draw_published, tmp_path, files, expected):
    draw_published["disfa"](tmp_path / "set")
    for name, text in files.items():
        (tmp_path / "set" / name).write_text(text)
    with pytest.raises(DataError, match=expected):
        _read("disfa", tmp_path / "set", tmp_path)


def test_codes_that_are_absent_are_noted(draw_published, tmp_path):
    draw_published["disfa"](tmp_path / "set")
    whole = _read("disfa", tmp_path / "set", tmp_path)
    assert whole[2].serious() == []
    path = tmp_path / "set" / f"{CODES}12.txt"
    # The same code twice is no contradiction, and 9 is "not coded".
    path.write_text("1,1\n1,1\n21,9\n")
    records, _, notes = _read("disfa", tmp_path / "set", tmp_path)
    assert notes.serious() == ["SN001: 39 of 41 frames have no line for action unit 12"]
    assert [record.action_units for record in records[:3]] == [{1: 0.0, 12: 1.0}, {1: 0.0}, {1: 0.0}]
    assert records[3:] == whole[0][3:]
    path.unlink()
    notes = _read("disfa", tmp_path / "set", tmp_path)[2]
    assert notes.serious() == ["SN001: 41 of 41 frames have no line for action unit 12"]


VIDEO = "annotations/Third VA_Estimation_Challenge/Train_Set/1-30-1280x720.txt"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda lines: [*lines[:2], "", *lines[3:]], r"line 3: blank, but the place of a line is its frame"),
        (lambda lines: [lines[0], "  ", *lines[1:]], r"line 2: blank"),
        (lambda lines: [*lines[:40], "", "", *lines[42:]], r"line 41: blank"),
        (lambda lines: [*lines, "", " "], None),
    ],
)
def test_a_blank_line_moves_no_label(draw_published, tmp_path, edit, expected):
    draw_published["aff_wild2"](tmp_path / "set")
    before = _read("aff_wild2", tmp_path / "set", tmp_path)[0]
    path = tmp_path / "set" / VIDEO
    path.write_text("\n".join(edit(path.read_text().splitlines())) + "\n")
    if expected is None:
        assert _read("aff_wild2", tmp_path / "set", tmp_path)[0] == before
    else:
        with pytest.raises(DataError, match=f"1-30-1280x720.txt, {expected}"):
            _read("aff_wild2", tmp_path / "set", tmp_path)


def test_two_files_of_a_task_agree(draw_published, tmp_path):
    draw_published["aff_wild2"](tmp_path / "set")
    path = tmp_path / "set" / VIDEO
    copy = path.parent.parent / "Validation_Set" / path.name
    copy.write_text(path.read_text())
    assert len(_read("aff_wild2", tmp_path / "set", tmp_path)[0]) == 9
    copy.write_text(path.read_text().replace("0.5,", "0.25,", 1))
    with pytest.raises(DataError, match=r"Validation_Set/1-30-1280x720.txt, line 2: valence is 0.25 here, and 0.5 in"):
        _read("aff_wild2", tmp_path / "set", tmp_path)


def test_the_frame_of_a_sequence_is_that_of_its_image(draw_published, tmp_path):
    draw_published["ck_plus"](tmp_path / "set")
    for person, frame in (("S000", 1), ("S001", 2), ("S002", 3)):
        folder = tmp_path / "set" / "Emotion" / person / "001"
        (folder / f"{person}_001_00000003_emotion.txt").rename(folder / f"{person}_001_{frame:08d}_emotion.txt")
    records = {record.id: record for record in _read("ck_plus", tmp_path / "set", tmp_path)[0]}
    for person, frame in (("S000", 1), ("S001", 2), ("S002", 3), ("S003", 3)):
        record = records[f"ck_plus/{person}_001"]
        assert (record.extra["frame"], record.image[-5]) == (frame, str(frame))


@pytest.mark.parametrize("name", ["ck_plus", "disfa", "bp4d", "aff_wild2", "fi", "bass"])
def test_files_that_macos_adds_are_ignored(draw_published, tmp_path, name):
    draw_published[name](tmp_path / "set")
    before = _read(name, tmp_path / "set", tmp_path)
    for path in [path for path in (tmp_path / "set").rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07\x00Mac OS X\xff")
    after = _read(name, tmp_path / "set", tmp_path)
    assert after[0] == before[0] and after[2].report() == before[2].report()


def test_a_fingerprint_changes_with_the_labels(draw_published, tmp_path):
    """Of layouts whose labels are in paths, or in files for each person."""
    for name, edit in {
        "fi": lambda root: (root / "awe/2.jpg").rename(root / "fear/moved.jpg"),
        "webemo": lambda root: (root / "train/zest/9.jpg").write_bytes(b"other bytes"),
        "ck_plus": lambda root: (root / "FACS/S001/001/S001_001_00000003_facs.txt").write_text("4 5\n"),
        "disfa": lambda root: (root / f"{CODES}12.txt").write_text("1,0\n"),
        "aff_wild2": lambda root: (root / VIDEO).unlink(),
    }.items():
        root, layout = tmp_path / name, find_entry(name).layout
        draw_published[name](root)
        first = fingerprint(root, layout)
        root.rename(tmp_path / "moved")
        assert first == fingerprint(tmp_path / "moved", layout) is not None
        (tmp_path / "moved").rename(root)
        edit(root)
        assert first != fingerprint(root, layout), name


@pytest.mark.parametrize(
    ("name", "locked"),
    [
        ("ck_plus", "Emotion/S002"),
        ("disfa", "ActionUnit_Labels/SN001"),
        ("aff_wild2", "annotations/Third VA_Estimation_Challenge/Train_Set"),
        ("fi", "awe"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused(draw_published, tmp_path, lock_folder, name, locked):
    draw_published[name](tmp_path / "set")
    assert (tmp_path / "set" / locked).is_dir()
    lock_folder(tmp_path / "set" / locked)
    with pytest.raises(DataError, match=f"{locked}: the folder cannot be read .* Give yourself permission"):
        _read(name, tmp_path / "set", tmp_path)


@pytest.mark.parametrize(
    ("dataset", "name", "text", "reason"),
    [
        ("disfa", "ActionUnit_Labels/SN001/SN001_au1 (copy).txt", "1,0\n", "files of codes whose names do not fit"),
        ("disfa", "ActionUnit_Labels/SN001/SN_01_au1.txt", "1,0\n", "files of codes whose names do not fit"),
        ("aff_wild2", "annotations/README.txt", "x", "text files in no folder of a split"),
        ("aff_wild2", "annotations/EXPR/Trainset/1.txt", "Neutral\n0\n", "text files in no folder of a split"),
        ("ck_plus", "Emotion/S999/S999_001_00000002_emotion.txt", "3", "files that are no label of a sequence"),
    ],
)
def test_files_that_give_no_record_are_counted(draw_published, tmp_path, dataset, name, text, reason):
    draw_published[dataset](tmp_path / "set")
    before, _, notes = _read(dataset, tmp_path / "set", tmp_path)
    rows = notes.num_rows
    (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "set" / name).write_text(text)
    records, _, notes = _read(dataset, tmp_path / "set", tmp_path)
    assert records == before and notes.num_rows == rows + 1
    assert [line for line in notes.report() if reason in line and name in line]


def test_a_folder_below_that_of_a_split_has_its_annotations(draw_published, tmp_path):
    draw_published["aff_wild2"](tmp_path / "set")
    before, _, _ = _read("aff_wild2", tmp_path / "set", tmp_path)
    place = (tmp_path / "set" / VIDEO).parent
    (place / "batch1").mkdir()
    (tmp_path / "set" / VIDEO).rename(place / "batch1" / (tmp_path / "set" / VIDEO).name)
    place.rename(place.with_name("Training_Set"))
    assert [(r.id, r.valence) for r in _read("aff_wild2", tmp_path / "set", tmp_path)[0]] == [
        (r.id, r.valence) for r in before
    ]


def test_codes_of_another_frame_are_noted(draw_published, tmp_path):
    draw_published["ck_plus"](tmp_path / "set")
    path = next((tmp_path / "set" / "FACS").rglob("*_facs.txt"))
    path.rename(path.with_name(path.name.replace("_facs", "0_facs")))
    assert any("codes of another frame" in line for line in _read("ck_plus", tmp_path / "set", tmp_path)[2].serious())


@pytest.mark.parametrize("codes", ["9 -5", "-9 5", "9 99"])
def test_impossible_action_units_are_refused(draw_published, tmp_path, codes):
    draw_published["ck_plus"](tmp_path / "set")
    path = next((tmp_path / "set" / "FACS").rglob("*_facs.txt"))
    path.write_text(codes + "\n")
    with pytest.raises(DataError, match="'action_units'"):
        _read("ck_plus", tmp_path / "set", tmp_path)


@pytest.mark.parametrize(
    "value", [1 + 2j, np.array([(1, 2)], dtype=[("a", int), ("b", int)]), np.datetime64("2020-01-01"), "x", [1, 2]]
)
def test_an_array_that_is_no_number_is_refused_by_name(draw_published, tmp_path, value):
    _affectnet(tmp_path / "set", np.asarray(value))
    with pytest.raises(DataError, match=r"0_val\.npy: cannot be read as one number"):
        _read("affectnet", tmp_path / "set", tmp_path)


def test_an_archive_and_an_endless_array_are_refused_by_name(tmp_path):
    path = _affectnet(tmp_path / "set", np.asarray(0.5))
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }".ljust(117) + b"\n"
    with path.open("wb") as file:
        np.savez(file, a=1)
    archive = path.read_bytes()
    for content in (archive, b"\x93NUMPY\x01\x00\x76\x00" + head):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"0_val\.npy: cannot be read as one number"):
            _read("affectnet", tmp_path / "set", tmp_path)


def _affectnet(root, valence):
    """The release of 2021 with an image in each folder; returns the file of a valence."""
    from PIL import Image

    for folder in ("train_set", "val_set"):
        (root / folder / "images").mkdir(parents=True)
        (root / folder / "annotations").mkdir()
        Image.new("RGB", (20, 20)).save(root / folder / "images" / "0.jpg")
        for name in ("exp", "val", "aro"):
            np.save(root / folder / "annotations" / f"0_{name}.npy", np.asarray(0))
    path = root / "train_set" / "annotations" / "0_val.npy"
    np.save(path, valence)
    return path


def _emotic(root, *people):
    from PIL import Image

    (root / "Annotations").mkdir(parents=True)
    (root / "emotic").mkdir()
    Image.new("RGB", (40, 40)).save(root / "emotic" / "a.jpg")
    rated = {"valence": 5.0, "arousal": 5.0, "dominance": 5.0}
    entries = np.empty(len(people), dtype=[(name, object) for name in ("filename", "folder", "person")])
    for number, changes in enumerate(people):
        person = {
            "body_bbox": np.array([1.0, 1, 20, 20]),
            "annotations_categories": {"categories": "Peace"},
            "annotations_continuous": rated | (changes or {}),
        }
        entries[number] = ("a.jpg", "", np.zeros((0, 0)) if changes is None else person)
    scipy.io.savemat(root / "Annotations" / "Annotations.mat", {"train": entries})


def test_an_entry_without_a_person_is_counted(tmp_path):
    _emotic(tmp_path / "set", {}, None)
    records, _, notes = _read("emotic", tmp_path / "set", tmp_path)
    assert len(records) == 1 and notes.num_rows == 2 and dict(notes.skipped) == {"entries without a person": 1}


def test_an_empty_rating_is_none_and_one_in_words_is_refused(tmp_path):
    _emotic(tmp_path / "set", {"valence": np.zeros((0, 0))})
    ((record,), _, _) = _read("emotic", tmp_path / "set", tmp_path)
    assert record.valence is None and record.arousal is not None
    _emotic(tmp_path / "other", {"valence": "seven"})
    with pytest.raises(DataError, match=r"entry 0, person 0: valence is not a number \(\['seven'\]\)"):
        _read("emotic", tmp_path / "other", tmp_path)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["AU6 and AU12 are active, and there is no AU4."], {4: 0.0, 6: 1.0, 12: 1.0}),
        # One answer claims a unit that the other denies.
        (["AU6, AU12.", "AU12 is active, AU6 is absent."], {4: 0.0, 12: 1.0}),
        (["A friendly face."], None),
    ],
)
def test_action_units_of_answers(tmp_path, answers, expected):
    turns = [turn for text in answers for turn in ({"from": "human", "value": "?"}, {"from": "gpt", "value": text})]
    (tmp_path / "train.json").write_text(json.dumps([{"image": "a.jpg", "conversations": turns}]))
    settings = {"units": [4, 6, 12], "units_by": "gpt-4v", "check_images": False}
    notes = Notes()
    node = LayoutSettings.model_validate({"source": "conversations", "conversations": settings})
    (record,) = node.reader(tmp_path, source="mine", notes=notes).read()
    assert record.action_units == expected
    assert (record.extra.get("units_by") == "gpt-4v") is (expected is not None)
    assert notes.serious() == [] and len(notes.lines) == (expected is None)
