"""Tables of images.

- Every field comes from its column; empty cells stay unknown; labels become canonical.
- A file that is empty, in another encoding, or with duplicate column names is refused, with its name.
- Equal rows count once; unequal rows of an id are refused, or left out; every row and every column is accounted for.
- Faulty rows are named by line with the reason, all together; unknown columns with the nearest name.
- The photographs and the two rated sets in the shared data are read correctly.
"""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.sources.base import Notes
from lavis_emovit.sources.embedded import image_of_pixels
from lavis_emovit.sources.frames import number_rows
from lavis_emovit.sources.readers.table import TableReader
from lavis_emovit.sources.table_files import read_rows
from lavis_emovit.sources.table_settings import TableColumns, TableSettings

SHARED = Path(os.environ.get("EMOVIT_SHARED", "../shared")) / "data"
COLUMNS = TableColumns(
    image="file", emotion="label", split="part", caption="text", valence="v", arousal="a", group="who", extra=("age",)
)
HEAD = "file,label,part,text,v,a,who,age\n"


@pytest.fixture
def table(tmp_path):
    """Function that writes rows with the usual header; the images a.jpg and sub/b.jpg exist."""
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "sub/b.jpg"):
        (tmp_path / name).write_bytes(b"not decoded by the reader")

    def write(rows, head=HEAD):
        path = tmp_path / "labels.csv"
        path.write_text("\ufeff" + head + rows, encoding="utf-8")
        return path

    return write


def _read(path, columns=COLUMNS, source="mine", label_set="ekman6"):
    settings = TableSettings(file=path.name, columns=columns, label_set=label_set)
    return list(TableReader(path.parent, settings, source=source).read())


def test_every_field_comes_from_its_column(table):
    first, second = _read(table('a.jpg,Happy,test,"one, two",-0.5,1,p1,30\nsub\\b.jpg,,,,,,,\n'))
    assert first.id == "mine/a"
    assert (first.emotion, first.label_set, first.split, first.group) == ("happiness", "ekman6", "test", "p1")
    assert (first.caption, first.valence, first.arousal, first.extra) == ("one, two", -0.5, 1.0, {"age": "30"})
    assert (second.image, second.split, second.emotion, second.label_set) == ("sub/b.jpg", "train", None, None)
    assert second.extra == {}


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        (b"image,emotion,image\na.jpg,sad,b.jpg\n", {}, "labels.csv: several columns are called 'image'; rename"),
        (b"a.jpg,sad\n", {"header": ("image", "image")}, "labels.csv: several columns are called 'image'"),
        (b"image,emotion\na.jpg,caf\xe9\n", {"encoding": "utf-16"}, "labels.csv: not utf-16 text (.*). Set `encoding`"),
        (b"image,emotion\na.jpg,caf\xe9\n", {}, "labels.csv: not utf-8-sig text (byte 0xe9: .*). Set `encoding`"),
        (b"[1]", {"encoding": "utf-16", "format": "json"}, "labels.csv: not utf-16 text"),
        (b'[{"image": "1"}]', {"encoding": "utf-16", "format": "jsonl"}, "labels.csv: not utf-16 text (.*). Set `enc"),
        (b"", {}, "labels.csv: the file is empty; expected a table with image"),
        (b"\xef\xbb\xbf", {}, "labels.csv: the file is empty"),
        (b"\n\n", {}, "labels.csv: its first row is blank; expected the names of the columns image"),
        (b"", {"header": ("image", "emotion")}, "labels.csv: the file is empty"),
        (b"a\nb\n", {"skip_rows": 2}, "labels.csv: the file is empty after the 2 rows of `skip_rows`"),
    ],
)
def test_files_that_are_not_tables_are_refused(content, settings, expected, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected.replace("(", r"\(").replace(")", r"\)")):
        list(read_rows(path, TableSettings(**settings), ["image"], Notes()))


@pytest.mark.parametrize("head", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "sep=;;\n"])
@pytest.mark.parametrize("skip", ["", "made by Excel\n"])
def test_the_line_of_excel_that_names_the_delimiter_is_no_row(tmp_path, head, skip):
    path = tmp_path / "labels.csv"
    path.write_bytes(f"{skip}{head}image;text\na.jpg;1, 2, 3, 4\n".encode("utf-8-sig"))
    rows = list(read_rows(path, TableSettings(skip_rows=int(bool(skip))), ["image"], Notes()))
    assert rows == [(f"line {4 if skip else 3}", {"image": "a.jpg", "text": "1, 2, 3, 4"})]


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.csv", "labels.ods"])
@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"])
def test_spreadsheets_are_to_be_saved_as_csv(tmp_path, name, start):
    (tmp_path / name).write_bytes(start + bytes(range(256)))
    with pytest.raises(DataError, match=rf"{name}: a spreadsheet or an archive, not a table; save it as CSV"):
        list(read_rows(tmp_path / name, TableSettings(), ["image"], Notes()))


def test_columns_without_a_name_do_no_harm(tmp_path):
    (tmp_path / "labels.csv").write_text("image,,\na.jpg,,\n")
    assert [row["image"] for _, row in read_rows(tmp_path / "labels.csv", TableSettings(), ["image"], Notes())] == [
        "a.jpg"
    ]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('a.jpg,sad\nb.jpg,"fear\nc.jpg,awe\n', 3),
        ('a.jpg,"sad\nb.jpg,fear\nc.jpg,"awe\n', 2),
        ('a.jpg,"sad" and more\n', 2),
        ('"a.jpg,sad\n', 2),
    ],
)
def test_a_stray_quote_swallows_no_row(tmp_path, rows, line):
    path = tmp_path / "labels.csv"
    path.write_text(f"image,mood\n{rows}")
    with pytest.raises(DataError, match=rf"labels.csv: the row that starts in line {line} is not CSV .*quote=null"):
        list(read_rows(path, TableSettings(), ["image"], Notes()))
    cells = [row["mood"] for _, row in read_rows(path, TableSettings(quote=None), ["mood"], Notes())]
    assert cells == [row.partition(",")[2] for row in rows.splitlines()]


def test_repeated_keys_of_json_are_refused_by_line(tmp_path):
    (tmp_path / "t.jsonl").write_text(
        '{"image": "a.jpg", "mood": "sad"}\n{"image": "b.jpg", "mood": "sad", "mood": "awe"}\n'
        '{"image": "c.jpg", "mood": {"x": 1, "x": 2}}\n{"image": "d.jpg", "image": "d.jpg", "mood": "sad"}\n{"image":\n'
    )
    rows = dict(read_rows(tmp_path / "t.jsonl", TableSettings(), ["image", "mood"], Notes()))
    assert rows["line 1"] == {"image": "a.jpg", "mood": "sad"}
    faults = [rows[f"line {number}"].partition(" is repeated")[0] for number in (2, 3, 4)]
    assert faults == [f"not JSON (the key '{key}'" for key in ("mood", "x", "image")]
    assert rows["line 5"].startswith("not JSON (Expecting value")
    (tmp_path / "t.json").write_text('[{"image": "a.jpg"}, {"image": "b.jpg", "mood": "sad", "mood": "awe"}]')
    with pytest.raises(DataError, match=r"t.json: not JSON \(the key 'mood' is repeated in {'image': 'b.jpg'"):
        list(read_rows(tmp_path / "t.json", TableSettings(), ["image"], Notes()))


@pytest.mark.parametrize(
    ("rows", "count", "first"),
    [
        ('a.jpg,"sad\nb.jpg,fear\nc.jpg,awe"\nd.jpg,awe\n', 1, "2 to 4"),
        ('a.jpg,sad\n\n"b\n.jpg",sad\nc.jpg,"\n"', 2, "4 to 5"),
    ],
)
def test_rows_of_several_lines_are_reported(tmp_path, rows, count, first):
    path = tmp_path / "labels.csv"
    path.write_text(f"image,mood\n{rows}")
    notes = Notes()
    assert len(list(read_rows(path, TableSettings(), ["image", "mood"], notes))) == (2 if count == 1 else 3)
    assert notes.report() == [
        f"labels.csv: {count} rows of several lines (first: {first}), because quoted cells contain line breaks. If "
        "these quotes are part of the text, set `quote` to null (`--set quote=null`)."
    ]
    assert notes.serious() == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("gone.jpg,sad,,,,,,", "line 3: the image gone.jpg is missing"),
        ("sub/b.jpg,sadd,,,,,,", "line 3: unknown emotion 'sadd' .*did you mean"),
        ("sub/b.jpg,sad,,,high,,,", "line 3: column 'v': 'high' is not a number"),
        ("sub/b.jpg,sad,,,0_1,,,", "line 3: column 'v': '0_1' is not a number"),
        ("sub/b.jpg,sad,,,,1_0e-2,,", "line 3: column 'a': '1_0e-2' is not a number"),
        ("sub/b.jpg,sad,,,7,,,", "line 3: record: key 'valence'"),
        (",sad,,,,,,", "line 3: column 'file' is empty"),
        ("sub/b.jpg,sad", "line 3: expected 8 cells"),
        ("sub/b.jpg,sad,,,,,,,,", "line 3: expected 8 cells"),
        ("a.jpg,fear,,,,,,", "line 3: id 'mine/a' is already used in line 2, with other values"),
        ("../a.jpg,sad,,,,,,", "line 3: .*"),
    ],
)
def test_a_faulty_row_is_named(table, row, expected):
    with pytest.raises(DataError, match=rf"labels.csv: 1 fault:\n  - {expected}"):
        _read(table(f"a.jpg,sad,,,,,,\n{row}\n"))


def _account(path, rows, **settings):
    """(images of the records, notes) of a table with the columns image and mood."""
    path.write_text("image,mood\n" + rows, encoding="utf-8")
    notes = Notes()
    settings = TableSettings(columns={"emotion": "mood"}, label_set="ekman6", **{"file": path.name, **settings})
    records = list(TableReader(path.parent, settings, source="mine", notes=notes).read())
    assert notes.num_rows == len(records) + notes.skipped.total() + notes.num_joined
    return [record.image for record in records], notes


def test_equal_rows_are_one_record_and_unequal_rows_none(table):
    path = table("")
    rows = "a.jpg,sad\nsub/b.jpg,sad\na.jpg, Sad\na.jpg,sad\n"
    images, notes = _account(path, rows)
    assert images == ["a.jpg", "sub/b.jpg"]
    spellings = "'Sad' (1 images), 'sad' (3 images) are all read as the label 'sadness'"
    repeated = "2 skipped: rows that repeat an earlier row (a.jpg, a.jpg)"
    assert notes.report() == [spellings, repeated] and not notes.serious()
    with pytest.raises(DataError, match=r"line 6: id 'mine/a' is already used in line 2.*repeated=leave_out"):
        _account(path, f"{rows}a.jpg,fear\n")
    images, notes = _account(path, f"{rows}a.jpg,fear\n", repeated="leave_out")
    assert images == ["sub/b.jpg"]
    assert notes.skipped["rows of one id with different values"] == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "image,mood,statement,source\na.jpg,sad,He cries,web\n"),
        ("t.jsonl", '{"image": "a.jpg", "mood": "sad", "statement": "He cries"}\n'
                    '{"image": "sub/b.jpg", "mood": "sad", "source": {"url": "web"}}\n'),
        ("t.csv", "image,mood,statement,source\na.jpg,sad,,\n"),
    ],
)  # fmt: skip
def test_columns_that_no_field_takes_are_named(table, tmp_path, name, content):
    table("")
    (tmp_path / name).write_text(content)

    def note(**columns):
        notes = Notes()
        settings = TableSettings(file=name, columns={"emotion": "mood", **columns}, label_set="ekman6")
        list(TableReader(tmp_path, settings, source="mine", notes=notes).read())
        return notes

    assert note().report() == note().serious() == ["2 columns are not imported: statement, source"]
    assert note(ignore=("source", "statement")).report() == []
    notes = note()
    notes.refuses_unused = False
    assert notes.report() and not notes.serious()


def test_a_filled_column_without_a_name_is_reported(table):
    notes = Notes()
    path = table("a.jpg,sad,,,,,,,\nsub/b.jpg,sad,,,,,,,lost\n", head=HEAD[:-1] + ",\n")
    settings = TableSettings(file=path.name, columns=COLUMNS, label_set="ekman6")
    list(TableReader(path.parent, settings, source="mine", notes=notes).read())
    assert list(notes.unused) == ["(no name)"]


@pytest.mark.parametrize(("in_table", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("name", ["Renée/Café.jpg", "Málaga/plain.jpg", "plain/Ünï Çöde.jpg"])
def test_accents_match_in_both_forms_of_unicode(table, tmp_path, in_table, on_disk, name):
    image = tmp_path / unicodedata.normalize(on_disk, name)
    image.parent.mkdir()
    image.write_bytes(b"not decoded")
    rows = unicodedata.normalize(in_table, f"{name},sad\n{name}2,sad\n")
    images, notes = _account(table(""), rows, missing="leave_out")
    assert images == [unicodedata.normalize(on_disk, name)]
    assert notes.report() == [f"1 skipped: the image is missing ({unicodedata.normalize(in_table, name)}2)"]


def test_rows_that_fit_no_where_are_counted(table):
    files = [{"path": "labels.csv", "where": {"mood": label}} for label in ("sad", "fear")]
    images, notes = _account(table(""), "a.jpg,sad\nsub/b.jpg,anger\n", files=files)
    assert images == ["a.jpg"] and notes.serious() == ["1 skipped: rows of labels.csv that fit no `where`"]


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        # OpenFace: spaces after commas, frames from 1, a row for each frame without a face.
        (
            "frame, success, x, y, width, height, AU12_r\n1, 1, 2.5, 3, 10, 20, 0.5\n2, 0, 0, 0, 0, 0, 0\n",
            {
                "where": {"success": 1},
                "columns": {"box": ["x", "y", "width", "height"], "action_units": {12: "AU12_r"}},
            },
            ("f/000001.jpg", (2.5, 3.0, 12.5, 23.0), {12: 0.5}),
        ),
        # py-feat: frames as fractions, from 0, and a row without a face has empty cells.
        (
            "frame,FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,AU12\n1.0,2.5,3,10,20,0.5\n",
            {"columns": {"box": [f"FaceRect{n}" for n in ("X", "Y", "Width", "Height")], "action_units": {12: "AU12"}}},
            ("f/000001.jpg", (2.5, 3.0, 12.5, 23.0), {12: 0.5}),
        ),
        (
            "frame,FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,AU12\n1,,,,,\n",
            {"columns": {"box": [f"FaceRect{n}" for n in ("X", "Y", "Width", "Height")], "action_units": {12: "AU12"}}},
            ("f/000001.jpg", None, None),
        ),
    ],
)
def test_tables_of_face_tools(tmp_path, content, settings, expected):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "000001.jpg").write_bytes(b"not decoded")
    (tmp_path / "faces.csv").write_text(content)
    settings = TableSettings(file="faces.csv", image="f/{frame:06}.jpg", box_format="size", **settings)
    notes = Notes()
    (record,) = TableReader(tmp_path, settings, source="mine", notes=notes).read()
    assert (record.image, record.box, record.action_units) == expected
    assert notes.num_rows == 1 + notes.skipped.total() and notes.serious() == []


def test_a_box_in_one_cell_has_no_underscores(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"not decoded")
    for cell, expected in (("1_000 2 3", "expected four numbers"), ("[1_0, 2, 30, 40]", "'1_0' is not a number")):
        (tmp_path / "t.csv").write_text(f'image,box\na.jpg,"{cell}"\n')
        with pytest.raises(DataError, match=f"column 'box': {expected}"):
            _read(tmp_path / "t.csv", TableColumns(box=("box",)), label_set=None)


def test_numbers_of_other_files_have_no_underscores(tmp_path):
    (tmp_path / "v.txt").write_text("valence,arousal\n0.5,1\n0.5,1_0\n")
    with pytest.raises(DataError, match=r"v.txt, line 3: expected numbers, got '0.5,1_0'"):
        number_rows(tmp_path / "v.txt", header=True)
    assert image_of_pixels("1 0 255 9").tobytes() == bytes([1, 0, 255, 9])
    with pytest.raises(DataError, match="not numbers from 0 to 255"):
        image_of_pixels("1_0 0 255 9")


@pytest.mark.parametrize("row", ["1,,3,4", "a,2,3,4", "1,2,,"])
def test_a_box_with_a_missing_side_is_refused(tmp_path, row):
    (tmp_path / "a.jpg").write_bytes(b"not decoded")
    (tmp_path / "t.csv").write_text(f"image,l,t,r,b\na.jpg,{row}\n")
    with pytest.raises(DataError, match=r"columns l, t, r, b: expected four numbers|column 'l': 'a' is not a number"):
        _read(tmp_path / "t.csv", TableColumns(box=("l", "t", "r", "b")), label_set=None)


def test_missing_tables_columns_and_label_sets(table, tmp_path):
    with pytest.raises(DataError, match="no such table"):
        _read(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"no column 'part' \(did you mean 'parts'\?\); no column 'age'"):
        _read(table("", head="file,label,parts,text,v,a,who\n"))
    with pytest.raises(DataError, match="pass their label set"):
        _read(table(""), label_set=None)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared datasets are not available")
def test_the_shared_sets():
    columns = TableColumns(emotion="emotion", split="split", group="identity", extra=("age", "gender"))
    faces = _read(SHARED / "london_faces/labels.csv", columns, source="london_faces", label_set="neutral_happy2")
    assert Counter(record.emotion for record in faces) == {"happy": 102, "neutral": 102}
    assert Counter(record.split for record in faces) == {"train": 150, "test": 54}
    assert len({record.group for record in faces}) == 102
    for name, count in (("oasis", 610), ("bass", 502)):
        path = SHARED / name / "labels.csv"
        rated = TableColumns(split="split", valence="valence_norm", arousal="arousal_norm")
        records = _read(path, rated, source=name, label_set=None)
        with path.open(encoding="utf-8") as file:
            rows = {row["image"]: row for row in csv.DictReader(file)}
        assert len(records) == count
        for record in records:
            assert record.valence == float(rows[record.image]["valence_norm"])
            assert record.arousal == float(rows[record.image]["arousal_norm"])


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (".5 .25 20 30", (0.5, 0.25, 20.0, 30.0)),
        ("-.5 0 20 20", (-0.5, 0.0, 20.0, 20.0)),
        ("(1., 2.5e1, 3.0E+1, 40)", (1.0, 25.0, 30.0, 40.0)),
        ("\u22125 0 20 20", "'\u22125' is not a number"),
        ("1.2.3 4 5", "column 'box': expected four numbers"),
    ],
)
def test_every_number_of_a_box_is_read_whole(tmp_path, cell, expected):
    (tmp_path / "a.jpg").write_bytes(b"not decoded")
    (tmp_path / "t.csv").write_text(f'image,box\na.jpg,"{cell}"\n', encoding="utf-8")
    columns = TableColumns(box=("box",))
    if isinstance(expected, tuple):
        assert _read(tmp_path / "t.csv", columns, label_set=None)[0].box == expected
    else:
        with pytest.raises(DataError, match=expected):
            _read(tmp_path / "t.csv", columns, label_set=None)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Wut; Angst", ["anger", "fear"]),
        ("Wut;anger", ["anger"]),
        ("egal; Angst", ["fear"]),
        ("1;2.0", ["joy", "fear"]),
    ],
)
def test_label_names_apply_to_several_labels(tmp_path, cell, expected):
    (tmp_path / "a.jpg").write_bytes(b"not decoded")
    (tmp_path / "t.csv").write_text(f"image,labs\na.jpg,{cell}\n")
    names = {"Wut": "anger", "Angst": "fear", "egal": None, 1: "joy", 2: "fear"}
    settings = TableSettings(file="t.csv", columns={"labels": "labs"}, separator=";", label_names=names,
                             label_set="labels:anger, fear, joy", delimiter=",")  # fmt: skip
    (record,) = TableReader(tmp_path, settings, source="mine").read()
    assert record.labels == expected


@pytest.mark.parametrize("empty", ["null", '""', '"  "'])
def test_an_empty_item_is_no_label(tmp_path, empty):
    (tmp_path / "a.jpg").write_bytes(b"not decoded")
    (tmp_path / "t.jsonl").write_text(f'{{"image": "a.jpg", "labs": ["fear", {empty}]}}\n')
    settings = TableSettings(file="t.jsonl", columns={"labels": "labs"}, label_set="labels:fear, none")
    (record,) = TableReader(tmp_path, settings, source="mine").read()
    assert record.labels == ["fear"]


def test_class_codes_are_named_in_the_settings(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"not decoded")
    for code in ("3", "3.0", "-1"):
        (tmp_path / "t.csv").write_text(f"image,label\na.jpg,{code}\n")
        settings = TableSettings(file="t.csv", columns={"emotion": "label"}, label_set="ekman6")
        whole = code.removesuffix(".0")
        with pytest.raises(DataError, match=f"unknown emotion '{code}'.*`--set label_names.{whole}=anger`"):
            list(TableReader(tmp_path, settings, source="mine").read())
        named = settings.model_copy(update={"label_names": {whole: "fear"}})
        assert next(TableReader(tmp_path, named, source="mine").read()).emotion == "fear"


def test_equal_numbers_are_one_group(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.jpg").write_bytes(b"not decoded")
    for values, expected in (
        ('1, 1.0, "1", 2.0', ["1", "1", "1", "2.0"]),
        ("1.0, 1, 2.5, true", ["1.0", "1.0", "2.5", "True"]),
        ("3.0, 4.0, 3.0, 4.0", ["3.0", "4.0", "3.0", "4.0"]),
        # Accented letters as one character or two.
        ('"Zo\u00eb", "Zoe\u0308", "Zoe", "Zoe\u0308"', ["Zo\u00eb", "Zo\u00eb", "Zoe", "Zo\u00eb"]),
        ('"\u1112\u1161\u11ab", "\ud55c", "a", "b"', ["\u1112\u1161\u11ab", "\u1112\u1161\u11ab", "a", "b"]),
    ):
        rows = (f'{{"image": "{name}.jpg", "who": {value}}}' for name, value in zip("abcd", values.split(", ")))
        (tmp_path / "t.jsonl").write_text("\n".join(rows))
        records = _read(tmp_path / "t.jsonl", TableColumns(group="who"), label_set=None)
        assert [record.group for record in records] == expected


@pytest.mark.parametrize(
    ("written", "expected"), [("fear;joy;anger", ["negative", "positive"]), ("surprise;joy", ["positive"])]
)
def test_several_labels_are_mapped_to_the_coarser_set(table, written, expected):
    columns = TableColumns(image="file", labels="labels")
    settings = TableSettings(
        file="labels.csv", columns=columns, label_set="emotion6", separator=";", coarsen_to="polarity2"
    )
    path, notes = table(f"a.jpg,{written}\nsub/b.jpg,surprise\n", head="file,labels\n"), Notes()
    (record,) = TableReader(path.parent, settings, source="mine", notes=notes).read()
    assert (record.image, record.labels, record.label_set) == ("a.jpg", expected, "polarity2")
    assert notes.report() == ["1 skipped: no label has an equivalent in polarity2"] and notes.serious() == []
    # An image without labels stays one.
    path.write_text("file,labels\na.jpg,\n")
    (record,) = TableReader(path.parent, settings, source="mine").read()
    assert (record.labels, record.label_set) == ([], "polarity2")


def test_votes_are_added_up_in_the_coarser_set(table):
    votes = {"columns": {label: label for label in ("anger", "fear", "joy", "surprise")}, "beside": {"neutral": "none"}}
    settings = TableSettings(file="labels.csv", columns=TableColumns(image="file"), label_set="emotion6", votes=votes,
                             coarsen_to="polarity2")  # fmt: skip
    path = table("a.jpg,2,1,4,2,1\n", head="file,anger,fear,joy,surprise,none\n")
    (record,) = TableReader(path.parent, settings, source="mine").read()
    # The class is that of the label with the most votes; surprise has no polarity.
    assert (record.emotion, record.label_set) == ("positive", "polarity2")
    assert record.votes == pytest.approx({"negative": 0.3, "positive": 0.4, "surprise": 0.2, "neutral": 0.1})


def test_gathered_votes_are_votes_for_the_coarser_set(table):
    settings = TableSettings(file="labels.csv", columns=TableColumns(image="file", emotion="label"), gather=True,
                             label_set="emotion6", coarsen_to="polarity2")  # fmt: skip
    path = table("a.jpg,joy\na.jpg,fear\na.jpg,anger\n", head="file,label\n")
    (record,) = TableReader(path.parent, settings, source="mine").read()
    assert (record.emotion, record.label_set) == ("negative", "polarity2")
    assert record.votes == pytest.approx({"positive": 1 / 3, "negative": 2 / 3})


@pytest.mark.parametrize("ids", [("图1", "画1", "_1"), ("a b", "a_b", "a/b"), (".a", "a", "a.")])
def test_images_of_ids_that_give_one_file_name_stay_apart(tmp_path, ids):
    rows = [f"{one},{16 * (place + 1)} 0 0 0,happy" for place, one in enumerate(ids)]
    (tmp_path / "t.csv").write_text("\n".join(["name,px,label", *rows]), encoding="utf-8")
    columns = TableColumns(id="name", emotion="label")
    settings = TableSettings(file="t.csv", columns=columns, label_set="ekman6", pixels="px")
    for _ in range(2):  # a second reading finds the files of the first
        found = list(TableReader(tmp_path, settings, source="m", extract_to=tmp_path / "out").read())
        first_pixels = [Image.open(tmp_path / "out" / record.image).getpixel((0, 0)) for record in found]
        assert first_pixels == [16, 32, 48] and [record.id for record in found] == [f"m/{one}" for one in ids]


def test_rows_without_a_label_are_counted(table):
    notes = Notes()
    path = table("a.jpg,anger,,,,,,\nsub/b.jpg, ,,,,,,\n")
    settings = TableSettings(file=path.name, columns=COLUMNS, label_set="ekman6")
    records = list(TableReader(path.parent, settings, source="mine", notes=notes).read())
    assert [record.emotion for record in records] == ["anger", None]
    assert notes.lines == ["1 rows have no label in the column 'label'"] and notes.serious() == []
