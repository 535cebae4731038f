"""Properties of every reader, whatever the bytes of the dataset's files.

- The outcome is records with a complete account (rows = records + skipped + joined), or a DataError that names a file.
- Every record that is read can be written, and is read back as it was.

`EMOVIT_PROPERTY_EXAMPLES` sets the number of inputs for each reader; a long run takes 100,000.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import datasets
import numpy
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.records import parse_record
from lavis_emovit.sources.base import LAYOUTS, Notes
from lavis_emovit.sources.layouts import LayoutSettings
from lavis_emovit.sources.readers.huggingface import read_huggingface
from lavis_emovit.sources.table_settings import TableSettings

EXAMPLES = int(os.environ.get("EMOVIT_PROPERTY_EXAMPLES", "25"))
short = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))

TOKENS = (
    b"NaN", b"1e999", b"-1", b"9" * 400, b"2.5", b"true", b"null", b"[", b"[" * 100_000, b"{", b'"', b"'", b",", b";",
    b"\n", b"\r", b"\0", b"\xff", b"\xc2\xb2", b"\xef\xbb\xbf", b"..", b"/", b"../a.jpg", b"a" * 300, b"\\", b" ", b"",
)  # fmt: skip
pieces = st.sampled_from(TOKENS) | st.binary(max_size=12)
# (place as a share of the file, bytes to drop, bytes to insert)
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), pieces), max_size=4)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars | st.sampled_from(["a.jpg", "é.jpg", "train", "happiness", "human", "gpt"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


STATEMENT_KEYS = ("image_id", "ov_emotion", "statement_list")
EEMO_KEYS = ("image_name", "category", "emotion_list", "Valence", "judge_Q", "judge_A", "judge_answer", "choose_Q")
PAIR_KEYS = ("id", "image1_url", "image2_url", "question", "options", "correct_answer", "question_type")


def edited(content, changes):
    for share, length, piece in changes:
        place = round(share * len(content))
        content = content[:place] + piece + content[place + length :]
    return content


def check(root, layout, **node):
    """Read a dataset; its records, or None if it is refused."""
    notes = Notes()
    settings = LayoutSettings.model_validate({"source": layout, **({layout: node} if node else {})})
    reader = settings.reader(root, source="mine", notes=notes, extract_to=root / "extracted")
    return outcome(reader.read, notes, (root.name, "mine"))


def outcome(read, notes, names):
    try:
        records = list(read())
    except DataError as error:
        assert any(name in str(error) for name in names), error
        assert len(str(error)) < 20_000
        return None
    assert notes.num_rows == len(records) + notes.skipped.total() + notes.num_joined
    for record in records:
        assert parse_record(record.to_json(), "here") == record
    return records


@pytest.fixture
def folder():
    """Function that gives a new folder with two images, `a.jpg` and `é.jpg`."""

    def make():
        root = Path(tempfile.mkdtemp(dir=parent))
        for name in ("a.jpg", "é.jpg"):
            (root / name).write_bytes(b"not decoded by the readers")
        return root

    with tempfile.TemporaryDirectory() as parent:
        yield make


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)


CSV = "image,mood,v,box,votes,note\na.jpg,happiness,0.5,0 1 2 3,3,x\né.jpg,sadness,-1,1 2 3 4,1,\n"
LINES = '{"image": "a.jpg", "mood": "happiness", "v": 0.5, "box": [0, 1, 2, 3], "votes": 3}\n'
COLUMNS = {"emotion": "mood", "valence": "v", "box": ["box"]}
VIDEOS = {"stored_as": "videos"}


@pytest.mark.parametrize("repeated", ["refuse", "leave_out"])
@pytest.mark.parametrize(("name", "content"), [("t.csv", CSV), ("t.jsonl", LINES * 2), ("t.json", f"[{LINES}]")])
@given(changes=edits)
@example([(0.0, 0, b"[" * 100_000)])
@short
def test_a_table(folder, name, content, repeated, changes):
    root = folder()
    write(root, {name: edited(content.encode(), changes)})
    more = {"missing": "leave_out", "gather": repeated == "refuse"}
    check(root, "table", file=name, columns=COLUMNS, label_set="ekman6", repeated=repeated, **more)
    columns = {**COLUMNS, "start": "v", "end": "votes"}
    check(root, "table", file=name, columns=columns, label_set="ekman6", repeated=repeated, clips=VIDEOS)


@given(rows=st.dictionaries(st.text(max_size=3), st.fixed_dictionaries({"image": values, "v": values}), max_size=3))
@example({"a": {"image": "frames", "v": 1}})
@short
def test_a_table_of_clips_in_a_json_object(folder, rows):
    root = folder()
    write(root, {"t.json": json.dumps(rows), "frames/a1.jpg": "x", "frames/a02.jpg": "x"})
    more = {"file": "t.json", "key": "name", "columns": {"id": "name", "valence": "v"}, "missing": "leave_out"}
    check(root, "table", clips={"stored_as": "frames", "rate_fps": 25}, **more)
    check(root, "table", clips=VIDEOS, **more)


@given(rows=st.lists(st.fixed_dictionaries({"image": values, "mood": values, "v": values, "box": values}), max_size=4))
@example([{"image": "a.jpg", "mood": "fear", "v": float("nan"), "box": [1, 2, float("inf"), 9]}])
@example([{"image": "a.jpg", "mood": "fear", "v": 0, "box": [0, 0, 10**400, 9]}])
@example([{"image": "a.jpg", "mood": ["fear"], "v": {}, "box": [None, {}, [], "x"]}])
@short
def test_a_table_of_json_values(folder, rows):
    root = folder()
    write(root, {"t.json": json.dumps(rows)})
    check(root, "table", file="t.json", columns=COLUMNS, label_set="ekman6", missing="leave_out")


@given(changes=edits)
@short
def test_a_parquet_table(folder, changes):
    root = folder()
    table = {"image": ["a.jpg", "é.jpg"], "mood": ["fear", None], "v": [0.5, float("nan")], "box": [[0, 1, 2, 3], None]}
    pyarrow.parquet.write_table(pyarrow.table(table), root / "t.parquet")
    # Only the end of the file, its description: damaged pages are decoded by pyarrow alone.
    content = (root / "t.parquet").read_bytes()
    write(root, {"t.parquet": content[:-8] + edited(content[-8:], changes)})
    check(root, "table", file="t.parquet", columns=COLUMNS, label_set="ekman6")


@given(
    moods=st.lists(
        st.none() | st.sampled_from(["fear", "anger", "fear ", "²"]) | st.text(max_size=6), min_size=1, max_size=4
    ),
    numbers=st.lists(st.none() | st.floats(), min_size=4, max_size=4),
)
@short
def test_a_huggingface_object(folder, moods, numbers):
    root, notes = folder(), Notes()
    columns = {"image": ["a.jpg"] * len(moods), "mood": moods, "v": numbers[: len(moods)]}
    settings = TableSettings(columns={"emotion": "mood", "valence": "v"}, label_set="ekman6")
    dataset = datasets.Dataset.from_dict(columns)
    outcome(
        lambda: read_huggingface(dataset, settings, source="mine", extract_to=root, notes=notes),
        notes,
        ("mine", "image"),
    )


names = st.text("aé²{}*_.:\\ ", min_size=1, max_size=6)


@given(
    paths=st.lists(st.tuples(names, names, st.sampled_from([".jpg", ".PNG", ".heic", ".txt", ".mp4", ""])), max_size=6)
)
@example([(":", ":", ".jpg"), (" ", ":", ".jpg")])
@short
def test_a_folder(folder, paths):
    root = folder()
    (root / "a.jpg").unlink()
    for label, name, suffix in paths:
        if not {label, name + suffix} & {".", ".."} and not (root / label).is_file():
            write(root, {f"{label}/{name}{suffix}": "x"})
    for node in ({}, {"label_set": "ekman6"}, {"pattern": "{split}/{name}"}, {"id_from": "name"}, {"clips": VIDEOS},
                 {"clips": {"stored_as": "frames", "rate_fps": 25}, "pattern": "{name*}"}):  # fmt: skip
        check(root, "folder", **node)


ITEM = {
    "image": "a.jpg",
    "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}],
    "split": "val",
}


@given(changes=edits, lines=st.booleans())
@short
def test_conversations(folder, changes, lines):
    root = folder()
    content = "\n".join([json.dumps(ITEM)] * 2) if lines else json.dumps([ITEM] * 2)
    name = "t.jsonl" if lines else "t.json"
    write(root, {name: edited(content.encode(), changes)})
    check(root, "conversations", file=name)


turns = st.lists(values | st.fixed_dictionaries({"from": values, "value": values}), max_size=4)
items = st.fixed_dictionaries(
    {},
    optional={
        "image": values, "images": values, "conversations": values | turns, "messages": values | turns, "kind": values,
        "split": values, "emotion": values, "provenance": values, "id": values, "prompt": values | turns,
        "completion": values | turns, "problem": values, "answer": values,
        "emovit_record": values | st.sampled_from(['{"id": "a/b"}', '{"id": "a/b", "split": 1}', '{"id": ""}']),
    },
)  # fmt: skip


@given(found=st.lists(values | items, max_size=4))
@short
def test_conversations_of_json_values(folder, found):
    root = folder()
    write(root, {"t.json": json.dumps(found)})
    check(root, "conversations", file="t.json", check_images=False)


@given(changes=edits, cell=values | st.just('{"id": "a"}'))
@example([], '{"id": "a", "split": "val", "source": "b"}')
@short
def test_conversations_in_parquet(folder, changes, cell):
    root = folder()
    Image.new("L", (1, 1)).save(root / "a.png")
    content = {"bytes": (root / "a.png").read_bytes(), "path": "a.png"}
    rows = [{"problem": "?", "answer": "!", "images": [content]}] * 2
    table = pyarrow.Table.from_pylist(rows).append_column("emovit_record", [[json.dumps(cell)] * 2])
    pyarrow.parquet.write_table(table, root / "t.parquet")
    write(root, {"t.parquet": edited((root / "t.parquet").read_bytes(), changes)})
    check(root, "conversations", file="t.parquet")


@given(lists=edits, annotation=edits, info=edits)
@short
def test_emoset(folder, lists, annotation, info):
    root = folder()
    entries = '[["awe", "a.jpg", "awe.json"], ["awe", "é.jpg", "awe.json"]]'
    fields = '{"emotion": "awe", "brightness": 0.5, "object": ["tree"], "scene": "park"}'
    words = {name: {"label2idx": {"park": 0}} for name in ("scene", "facial_expression", "human_action", "object")}
    files = {"train.json": edited(entries.encode(), lists), "awe.json": edited(fields.encode(), annotation)}
    write(root, {**files, "info.json": edited(json.dumps(words).encode(), info), "val.json": "[]", "test.json": "[]"})
    check(root, "emoset")


@given(entries=st.lists(values, max_size=3), fields=values)
@short
def test_emoset_of_json_values(folder, entries, fields):
    root = folder()
    lists = json.dumps([*entries, ["awe", "a.jpg", "awe.json"]])
    write(root, {"train.json": lists, "val.json": "[]", "test.json": "[]", "awe.json": json.dumps(fields)})
    check(root, "emoset")


cells = st.floats(-3, 12) | st.just(float("nan")) | st.just(float("inf")) | st.text("ab12 .", max_size=4)


@given(box=st.lists(cells, max_size=5), name=cells, category=cells | st.just("Peace"), rating=cells)
@short
def test_emotic(folder, box, name, category, rating):
    root = folder()
    rated = dict.fromkeys(("valence", "arousal", "dominance"), rating)
    person = {"body_bbox": box, "annotations_categories": {"categories": category}, "annotations_continuous": rated}
    people = [{"filename": file, "folder": "", "person": person} for file in ("a.jpg", name)]
    (root / "Annotations").mkdir()
    scipy.io.savemat(root / "Annotations" / "Annotations.mat", {"train": people})
    check(root, "emotic", images="")


@given(label=edits, units=edits)
@short
def test_ck_plus(folder, label, units):
    root = folder()
    stem = "S1/001/S1_001_00000002"
    write(root, {f"cohn-kanade-images/{stem}.png": "x", f"Emotion/{stem}_emotion.txt": edited(b"   3.0\n", label)})
    write(root, {f"FACS/{stem}_facs.txt": edited(b"  1.0  2.0\n  12.0 0.0\n", units)})
    check(root, "ck_plus")


@given(intensity=edits, occurrence=edits, every=st.integers(1, 3))
@short
def test_action_units(folder, intensity, occurrence, every):
    root = folder()
    write(root, {f"frames/P1/{number}.jpg": "x" for number in (1, 2, 3)})
    write(
        root,
        {
            "P1_au12.txt": edited(b"1,0\n2,5\n3,9\n", intensity),
            "P1_occ.csv": edited(b"0,1,4\n1,0,1\n2,9,1\n", occurrence),
        },
    )
    check(root, "action_units", intensity="{person}_au{unit}.txt", occurrence="{person}_occ.csv", every=every)


@given(first=edits, second=edits, every=st.integers(1, 3))
@short
def test_aff_wild2(folder, first, second, every):
    root = folder()
    write(root, {f"cropped_aligned/v/{number:05d}.jpg": "x" for number in (1, 2, 3)})
    write(root, {"annotations/VA/Train_Set/v.txt": edited(b"valence,arousal\n0.5,-0.5\n-5,-5\n1,1\n", first)})
    write(root, {"annotations/EX/Validation_Set/v.txt": edited(b"Neutral,Anger\n0\n-1\n1\n", second)})
    check(root, "aff_wild2", every=every, clip=None if every == 1 else {"neighbours": every})


@given(number=values, tail=st.integers(0, 8))
@short
def test_affectnet(folder, number, tail):
    root = folder()
    for split in ("train_set", "val_set"):
        write(root, {f"{split}/images/0.jpg": "x", f"{split}/images/notes.txt": "x"})
        (root / split / "annotations").mkdir()
        for name, value in (("exp", 1), ("val", "0.5"), ("aro", number)):
            path = root / split / "annotations" / f"0_{name}.npy"
            numpy.save(path, numpy.array(value if isinstance(value, int | float | str) else str(value)))
            os.truncate(path, path.stat().st_size - (tail if name == "aro" else 0))
    check(root, "affectnet")


@given(changes=edits)
@short
def test_records(folder, changes):
    root = folder()
    line = '{"id": "s/1", "image": "a.jpg", "split": "train", "source": "s", "votes": {"awe": 1}, "extra": {"a": 1}}\n'
    lines = line + line.replace("s/1", "s/2").replace("a.jpg", "é.jpg")
    write(root, {"records.jsonl": edited(lines.encode(), changes)})
    check(root, "records")


@given(found=st.lists(values, max_size=2), fields=st.dictionaries(st.sampled_from(STATEMENT_KEYS), values, max_size=3))
@short
@example(found=[], fields={})
def test_statements(folder, found, fields):
    root = folder()
    (root / "images").mkdir()
    (root / "a.jpg").rename(root / "images" / "a.jpg")
    good = {"image_id": "a.jpg", "statement_list": [{"statement": "Awe.", "label": "correct", "class": "x"}]}
    write(root, {"MVEI_metadata.json": json.dumps([*found, {**good, **fields}]).encode()})
    check(root, "statements")


@given(found=st.lists(values, max_size=2), fields=st.dictionaries(st.sampled_from(EEMO_KEYS), values, max_size=3))
@short
@example(found=[], fields={})
def test_eemo_bench(folder, found, fields):
    root = folder()
    (root / "images").mkdir()
    (root / "a.jpg").rename(root / "images" / "a.jpg")
    good = {
        "image_name": "a.jpg", "emotion_list": [["joy", 9]], "Valence": [5, 1], "Arousal": [5, 1], "Dominance": [5, 1],
        "judge_Q": "Joy?", "judge_A": {"A": "Yes", "B": "No"}, "judge_answer": "A",
    }  # fmt: skip
    write(root, {"Ebench_1_data(jac_en_check).json": json.dumps([*found, {**good, **fields}]).encode()})
    check(root, "eemo_bench")


@given(found=st.lists(values, max_size=2), fields=st.dictionaries(st.sampled_from(PAIR_KEYS), values, max_size=3))
@short
@example(found=[], fields={})
def test_eemo_bench_pair(folder, found, fields):
    root = folder()
    (root / "images").mkdir()
    (root / "a.jpg").rename(root / "images" / "a.jpg")
    good = {
        "id": 1, "image1_url": "a.jpg", "image2_url": "a.jpg", "question": "Which?", "correct_answer": "A",
        "options": "{'A': 'Both.', 'B': 'Neither.'}", "question_type": "What/How",
    }  # fmt: skip
    write(root, {"EEmo-Bench(pair).json": json.dumps([*found, {**good, **fields}]).encode()})
    check(root, "eemo_bench_pair")


POPE_KEYS = ("question_id", "image", "text", "label")
PROBLEM_KEYS = ("question", "choices", "answer", "hint", "image", "subject", "split")
VQA_KEYS = ("image", "question", "question_id", "answer")


@given(found=st.lists(values, max_size=2), fields=st.dictionaries(st.sampled_from(POPE_KEYS), values, max_size=3))
@short
@example(found=[], fields={})
def test_pope(folder, found, fields):
    root = folder()
    good = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}
    lines = [json.dumps(one) for one in (*found, {**good, **fields})]
    write(root, {f"coco_pope_{name}.json": "\n".join(lines) for name in ("random", "popular", "adversarial")})
    check(root, "pope", images=".")


@given(text=edits)
@short
def test_mme(folder, text):
    root = folder()
    (root / "color").mkdir()
    (root / "a.jpg").rename(root / "color" / "a.jpg")
    lines = "Is it red? Please answer yes or no.\tYes\nIs it blue? Please answer yes or no.\tNo\n"
    write(root, {"color/a.txt": edited(lines.encode(), text)})
    check(root, "mme")


@given(found=values, fields=st.dictionaries(st.sampled_from(PROBLEM_KEYS), values, max_size=3))
@short
@example(found={}, fields={})
def test_scienceqa(folder, found, fields):
    root = folder()
    (root / "test" / "1").mkdir(parents=True)
    (root / "a.jpg").rename(root / "test" / "1" / "image.png")
    good = {"question": "Which?", "choices": ["one", "two"], "answer": 0, "image": "image.png", "split": "test"}
    write(root, {"problems.json": json.dumps({"0": found, "1": {**good, **fields}})})
    check(root, "scienceqa")


@given(found=st.lists(values, max_size=2), fields=st.dictionaries(st.sampled_from(VQA_KEYS), values, max_size=3))
@short
@example(found=[], fields={})
def test_lavis_vqa(folder, found, fields):
    root = folder()
    good = {"image": "a.jpg", "question": "What is it?", "question_id": 1, "answer": ["a dog"] * 10}
    write(root, {"vqa.json": json.dumps([*found, {**good, **fields}])})
    check(root, "lavis_vqa", file="vqa.json", images=".")


FACE_TABLES = {
    "openface": "frame, face_id, confidence, success, AU12_r, AU12_c\n1, 0, 0.9, 1, 2.5, 1\n2, 1, 0.9, 1, 0, 0\n",
    "py_feat": "FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,FaceScore,AU12,Happy,Neutral,valence,arousal,input,"
    "frame\n1,1,5,5,0.9,0.7,0.6,0.4,0.5,0,a.jpg,0\n1,1,5,5,0.9,0.7,0.6,0.4,0.5,0,t.mp4,1\n",
    "libreface": "frame_idx,au_7,au_12_intensity,facial_expression\n0,1,2.5,Happiness\n1,0,0,Neutral\n",
}


def check_face_table(folder, layout, changes):
    root = folder()
    for name in ("a.jpg", "t/1.png", "t/2.png"):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(root / name)
    write(root, {"t.csv": edited(FACE_TABLES[layout].encode(), changes)})
    write(root, {"r.jsonl": '{"id": "r/1", "image": "t/1.png", "split": "train", "source": "r"}\n'})
    for node in ({"images": "{name}"}, {"images": "t", "records": "r.jsonl"}, {"images": "{name}", "frames": "order"}):
        check(root, layout, levels=["units", "expression", "affect"], **node)


@given(changes=edits)
@short
def test_openface(folder, changes):
    check_face_table(folder, "openface", changes)


@given(changes=edits)
@short
def test_py_feat(folder, changes):
    check_face_table(folder, "py_feat", changes)


@given(changes=edits)
@short
def test_libreface(folder, changes):
    check_face_table(folder, "libreface", changes)


def test_every_layout_has_a_property():
    text = Path(__file__).read_text(encoding="utf-8")
    assert [
        layout for layout in LAYOUTS if f"def test_{layout}" not in text and f"def test_a_{layout}" not in text
    ] == []
