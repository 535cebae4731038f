"""Datasets whose labels are in paths, or in files for each person or video.

- Codes, lines and files that contradict each other are refused by name; absent codes are noted; no blank line moves a
  label to another frame.
- Files that macOS adds beside others change nothing.
- The fingerprint follows labels and images, not the place of the folder.
"""

from __future__ import annotations

import pytest

from lavis_emovit.errors import DataError
from lavis_emovit.sources.base import Notes
from lavis_emovit.sources.catalogue import find_entry
from lavis_emovit.sources.layouts import fingerprint, open_dataset


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
