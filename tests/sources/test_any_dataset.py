"""Datasets that are not in the catalogue: folders, tables of all formats, Hugging Face objects, conversations.

- A folder of images by class is read with the classes in it, or with a label set; odd folders are reported.
- CSV with any usual delimiter, byte order mark and encoding, JSON lines, a JSON list and Parquet give the same records.
- A `datasets` object keeps its images' bytes, class names and splits; a saved one is read from its folder.
- EmoVIT's instruction files with duplicate ids become records with unique ids.
- Every kind of bad input is refused by file and row, or noted, never ignored: see the parameters.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.images import readable_suffixes
from lavis_emovit.shards.images import check_image
from lavis_emovit.sources.base import Notes
from lavis_emovit.sources.checks import check_file
from lavis_emovit.sources.readers.conversations import ConversationReader, ConversationSettings
from lavis_emovit.sources.readers.folder import FolderReader, FolderSettings
from lavis_emovit.sources.readers.huggingface import HuggingFaceReader, read_huggingface
from lavis_emovit.sources.readers.table import TableReader
from lavis_emovit.sources.table_settings import TableSettings


@pytest.fixture
def root(tmp_path):
    """Images by class: happy (2), sad (1), and an empty folder for fear."""
    for name in ("happy/1.jpg", "happy/2.PNG", "sad/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), (len(name) * 9, 0, 0)).save(tmp_path / name)
    (tmp_path / "fear").mkdir()
    return tmp_path


def _folder(root, notes=None, **settings):
    return list(FolderReader(root, FolderSettings(**settings), source="mine", notes=notes).read())


def test_a_folder_by_class(root):
    first, second, third = _folder(root)
    assert (first.id, first.emotion, first.label_set) == ("mine/happy/1", "happy", "labels:happy, sad")
    assert (second.image, third.emotion) == ("happy/2.PNG", "sad")
    notes = Notes()
    records = _folder(root, notes, label_set="ekman6")
    assert [record.emotion for record in records] == ["happiness", "happiness", "sadness"]
    assert "no image of 'fear': its folder is empty or missing" in notes.serious()
    assert len(notes.serious()) == 4
    names = {"sad": None, "happy": "Very happy"}
    chosen = _folder(root, label_names=names, label_set="labels:very happy, other")
    assert [record.id for record in chosen] == ["mine/happy/1", "mine/happy/2"]


def test_images_of_rare_types_are_read_or_counted(root):
    """Pillow decodes AVIF, and the images of iPhones with the package pillow-heif."""
    Image.new("RGB", (20, 20), (9, 9, 9)).save(root / "sad" / "2.avif")
    (root / "sad" / "3.HEIC").write_bytes(b"not decoded by the reader")
    (root / "sad" / "4.jxl").write_bytes(b"not decoded by the reader")
    Image.new("RGB", (20, 20), (9, 9, 9)).save(root / "sad" / "5.jfif", "JPEG")
    notes = Notes()
    images = [record.image for record in _folder(root, notes)]
    readable = [name for name in ("sad/2.avif", "sad/5.jfif") if Path(name).suffix in readable_suffixes()]
    assert images == ["happy/1.jpg", "happy/2.PNG", "sad/1.jpg", *readable]
    assert notes.num_rows == 7 == len(images) + notes.skipped.total()
    assert any("images of type .jxl" in line for line in notes.serious())
    if ".heic" not in readable_suffixes():
        assert any("1 skipped: images of type .heic" in line for line in notes.serious())
    if ".avif" in readable_suffixes():
        assert check_image((root / "sad" / "2.avif").read_bytes()) == "avif"
        assert check_file(str(root / "sad" / "2.avif")).fault is None


def test_folders_that_cannot_be_read(root):
    with pytest.raises(DataError, match=r"happy/1.jpg: unknown emotion 'happy' for label set 'mikels8'") as caught:
        _folder(root, label_set="mikels8")
    # One line for the folder, not one for each of its images.
    assert "2.PNG" not in str(caught.value) and "1 fault" in str(caught.value)
    with pytest.raises(DataError, match=r"no image fits \{split\}/\{label\}/\{name\}.* an existing image is happy/1"):
        _folder(root, pattern="{split}/{label}/{name}")
    with pytest.raises(DataError, match="gone: no such folder"):
        _folder(root / "gone")
    with pytest.raises(DataError, match="there are none at all"):
        _folder(root / "fear")
    with pytest.raises(DataError, match=r"only 1 class .sad."):
        _folder(root, pattern="{label}/{name}", label_names={"happy": None})
    (root / "fear").rename(root / "Sad ")
    Image.new("RGB", (20, 20)).save(root / "Sad /1.jpg")
    with pytest.raises(DataError, match=r"cannot be labels: .*'Sad' and 'sad' are the same label.*`label_names`"):
        _folder(root)
    (root / "Sad ").rename(root / "calm, sad")
    with pytest.raises(DataError, match="cannot be labels: label 'calm, sad' contains a comma"):
        _folder(root)
    (root / "calm, sad").rename(root / "fear")
    (root / "fear/1.jpg").unlink()
    # A link to a folder above does not duplicate the images.
    (root / "happy" / "loop").symlink_to(root)
    assert len(_folder(root)) == 3
    Image.new("RGB", (5, 5)).save(root / "stray.png")
    Image.new("RGB", (5, 5)).save(root / "happy" / "1.png")
    notes = Notes()
    records = _folder(root, notes, pattern="{label}/{name}")
    assert notes.serious() == ["1 skipped: images that don't fit {label}/{name}, for example stray.png"]
    assert [record.id for record in records] == ["mine/happy/1", "mine/happy/1.png", "mine/happy/2", "mine/sad/1"]


ROWS = [
    {"file": "happy/1.jpg", "mood": "Happy", "text": 'Æ, "quoted"\nline', "v": 1, "n": "a"},
    {"file": "happy/2.PNG", "mood": "joy", "text": "", "v": 5, "n": "b"},
    {"file": "sad/1.jpg", "mood": "sad", "text": "plain", "v": 3.0, "n": "c"},
]
COLUMNS = {"image": "file", "emotion": "mood", "caption": "text", "valence": "v", "id": "n"}


def _csv(delimiter, encoding, quoting=True):
    def cell(value):
        text = str(value).replace('"', '""')
        return f'"{text}"' if quoting else text

    lines = [delimiter.join(ROWS[0]), *(delimiter.join(cell(value) for value in row.values()) for row in ROWS)]
    return "\r\n".join(lines).encode(encoding)


def _write(root, kind):
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), root / "t.parquet")
        return {"file": "t.parquet"}
    contents = {
        "comma": _csv(",", "utf-8"), "semicolon": _csv(";", "utf-8"), "tab": _csv("\t", "utf-8"),
        "bom": _csv(",", "utf-8-sig"), "utf-16": _csv(",", "utf-16"), "cp1252": _csv(";", "cp1252"),
        "jsonl": "\n".join(json.dumps(row) for row in ROWS).encode(), "json": json.dumps(ROWS).encode(),
    }  # fmt: skip
    name = f"t.{kind if kind.startswith('json') else 'csv'}"
    (root / name).write_bytes(contents[kind])
    return {"file": name, **({"encoding": "cp1252"} if kind == "cp1252" else {})}


@pytest.mark.parametrize("kind", ["comma", "semicolon", "tab", "bom", "utf-16", "cp1252", "jsonl", "json", "parquet"])
def test_tables_of_all_formats(root, kind):
    settings = TableSettings(**_write(root, kind), columns=COLUMNS, label_set="ekman6", scales={"valence": (1, 5)})
    records = list(TableReader(root, settings, source="mine").read())
    assert [(r.id, r.emotion, r.valence) for r in records] == [
        ("mine/a", "happiness", -1.0), ("mine/b", "happiness", 1.0), ("mine/c", "sadness", 0.0),
    ]  # fmt: skip
    captions = [r.caption.replace("\r\n", "\n") if r.caption else None for r in records]
    assert captions == ['Æ, "quoted"\nline', None, "plain"]


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        (b"file;mood\nx", {"delimiter": ","}, r"no column 'file'.*With `--set 'delimiter=\";\"'` it has them"),
        (b"file,mod\nx,y", {}, r"no column 'mood' \(did you mean 'mod'\?\)"),
        (b"", {}, "t.csv: the file is empty; expected a table with file, mood"),
        (b"file,mood\nhappy/1.jpg,Fr\xf6hlich", {}, "not utf-8-sig text .byte 0xf6.*Set `encoding`, for example"),
        (b"file,mood\nhappy/1.jpg,hapy", {}, "line 2: unknown emotion 'hapy' .*did you mean 'happiness'"),
        (b"file,mood\nhappy/1.jpg,sad\nhappy/1.jpg,fear", {}, "line 3: id 'mine/1' is already used in line 2"),
        (b"file,mood\n../../etc/passwd,sad", {}, "line 2: the image ../../etc/passwd is missing"),
        (b"file,mood\n/etc/hostname,sad", {}, "line 2: record: key 'image': must be a path below the image root"),
        (b'file,mood\n"happy/1.jpg,sad\nhappy/2.PNG,sad', {}, "row that starts in line 2 is not CSV"),
        (b"file,mood\n\nhappy/1.jpg,sad,more", {}, "line 3: expected 2 cells, as in the first row, got 3"),
        (b"file,mood,v\nhappy/1.jpg,sad,nan", {"valence": "v"}, "column 'v': 'nan' is not a number"),
        (b"file,mood,v\nhappy/1.jpg,sad,9", {"valence": "v", "scale": 5}, "'v': 9 is outside the scale 1 to 5"),
        (b"file,mood,b\nhappy/1.jpg,sad,1 2 3", {"box": ("b",)}, "column 'b': expected four numbers"),
        (b"file,mood,b\nhappy/1.jpg,sad,4 2 3 1", {"box": ("b",)}, "key 'box': must be .left, top, right, bottom."),
        (b"file,mood\nhappy/1.jpg,sad", {"kind": "parquet"}, "not a Parquet file"),
        (b'{"file": "happy/1.jpg", "mod": 1}', {"kind": "jsonl"}, r"line 1: no key 'mood' \(did you mean 'mod'"),
        (b'{"file": ', {"kind": "jsonl"}, "line 1: not JSON"),
        (b'["x"]', {"kind": "json"}, "item 0: expected an object, got str"),
        (b'{"x": 1}', {"kind": "json"}, "expected a list of objects, got dict"),
        (b"file,mood\n" + b"x" * 200_000 + b",sad", {}, "line 2: the image x.* is missing"),
        (b"x", {"name": "t.dat"}, "unknown suffix"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_with_the_place(root, content, settings, expected):
    columns = {"image": "file", "emotion": "mood"}
    columns |= {key: settings[key] for key in ("valence", "box") if key in settings}
    scales = {"valence": (1, settings["scale"])} if "scale" in settings else {}
    kind, name = settings.get("kind"), settings.get("name", "t.csv")
    (root / name).write_bytes(content)
    table = TableSettings(
        file=name, format=kind, columns=columns, label_set="ekman6", scales=scales, delimiter=settings.get("delimiter")
    )
    with pytest.raises(DataError, match=expected) as caught:
        list(TableReader(root, table, source="mine").read())
    assert str(root / name) in str(caught.value)


def test_missing_images_can_be_skipped_and_are_counted(root):
    (root / "t.csv").write_text("file,mood\nhappy/1.jpg,sad\ngone.jpg,sad\n,sad\n")
    table = TableSettings(
        file="t.csv", columns={"image": "file", "emotion": "mood"}, label_set="ekman6", missing="leave_out"
    )
    notes = Notes()
    assert len(list(TableReader(root, table, source="mine", notes=notes).read())) == 1
    assert notes.serious() == ["1 skipped: the image is missing (gone.jpg)"]
    assert len(notes.report()) == 2


def _dataset(root):
    label = datasets.ClassLabel(names=["Happy", "sad"])
    features = datasets.Features({"image": datasets.Image(), "label": label, "who": datasets.Value("string")})
    rows = {
        "image": [str(root / name) for name in ("happy/1.jpg", "happy/2.PNG", "sad/1.jpg")],
        "label": [0, 0, 1],
        "who": ["p", None, "q"],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def test_a_huggingface_object(root, tmp_path):
    settings = TableSettings(columns={"emotion": "label", "group": "who"})
    records = list(read_huggingface(_dataset(root), settings, source="hub", extract_to=tmp_path / "out"))
    assert [(r.emotion, r.group, r.split) for r in records] == [
        ("happy", "p", "train"), ("happy", None, "train"), ("sad", "q", "train"),
    ]  # fmt: skip
    assert records[0].label_set == "labels:Happy, sad"
    assert (tmp_path / "out" / records[0].image).read_bytes() == (root / "happy/1.jpg").read_bytes()
    assert records[1].image.endswith(".png")

    saved = datasets.DatasetDict(train=_dataset(root).select([0, 2]), validation=_dataset(root).select([1]))
    saved.save_to_disk(tmp_path / "saved")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "saved").rglob("*")}
    settings = TableSettings(columns={"emotion": "label"}, label_set="ekman6")
    again = list(read_huggingface(tmp_path / "saved", settings, source="hub", extract_to=tmp_path / "out2"))
    assert [(r.id, r.split, r.emotion) for r in again] == [
        ("hub/train_0000000", "train", "happiness"),
        ("hub/train_0000001", "train", "sadness"),
        ("hub/validation_0000000", "val", "happiness"),
    ]
    # Reading writes nothing into the folder, no cache either.
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "saved").rglob("*")} == before

    # The same images from the hub's Parquet format.
    _dataset(root).to_parquet(tmp_path / "t.parquet")
    table = TableSettings(file="t.parquet", columns={"emotion": "label"}, label_set="ekman6",
                          label_names={"0": "happy", "1": "sad"})  # fmt: skip
    inside = list(TableReader(tmp_path, table, source="hub", extract_to=tmp_path / "out3").read())
    assert [record.emotion for record in inside] == ["happiness", "happiness", "sadness"]
    assert len({record.image for record in inside}) == 3
    assert (tmp_path / "out3" / inside[0].image).read_bytes() == (root / "happy/1.jpg").read_bytes()


def test_the_parquet_files_of_the_hub(root, tmp_path):
    folder, whole = tmp_path / "hub" / "data", _dataset(root)
    folder.mkdir(parents=True)
    names = ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001")
    for number, name in enumerate(names):
        whole.select([number]).to_parquet(folder / f"{name}.parquet")
    settings = TableSettings(columns={"emotion": "label"}, image_folder="..")
    records = list(read_huggingface(folder.parent, settings, source="hub", extract_to=tmp_path / "out"))
    assert [(r.id, r.split, r.emotion) for r in records] == [
        ("hub/train_0000000", "train", "happy"),
        ("hub/train_0000001", "train", "happy"),
        ("hub/validation_0000000", "val", "sad"),
    ]
    assert (tmp_path / "out" / records[0].image).read_bytes() == (root / "happy/1.jpg").read_bytes()
    assert sorted(path.name for path in folder.parent.rglob("*")) == ["data", *(f"{name}.parquet" for name in names)]

    # A snapshot in the cache of the hub has links to files without a suffix.
    (tmp_path / "snapshot").mkdir()
    (folder / f"{names[0]}.parquet").rename(tmp_path / "blob")
    for place in (tmp_path / "snapshot", folder):
        (place / f"{names[0]}.parquet").symlink_to(tmp_path / "blob")
    linked = list(read_huggingface(tmp_path / "snapshot", settings, source="hub", extract_to=tmp_path / "out"))
    assert linked == records[:1]

    whole.remove_columns("who").to_parquet(folder / f"{names[1]}.parquet")
    with pytest.raises(DataError, match=f"{names[1]}.parquet: has other columns"):
        list(read_huggingface(folder.parent, settings, source="hub", extract_to=tmp_path / "out"))
    other = folder.parent / "small"
    other.mkdir()
    whole.to_parquet(other / "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"Parquet files of several datasets .*data, .*small"):
        list(read_huggingface(folder.parent, settings, source="hub", extract_to=tmp_path / "out"))
    (other / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet: not a Parquet file"):
        list(read_huggingface(other, settings, source="hub", extract_to=tmp_path / "out"))


def test_wrong_huggingface_objects_are_refused(root, tmp_path):
    settings = TableSettings(columns={"emotion": "lable"})
    for wrong, expected in (
        (3, "expected a datasets.Dataset or DatasetDict, got int"),
        (_dataset(root), r"no column 'lable' \(did you mean 'label'\?\)"),
        (tmp_path / "gone", "no such folder"),
        (root, "not a dataset that `save_to_disk` wrote"),
    ):
        with pytest.raises(DataError, match=expected):
            list(read_huggingface(wrong, settings, source="hub", extract_to=tmp_path))


def _conversations(root, **settings):
    return list(ConversationReader(root, ConversationSettings(**settings), source="emovit").read())


def test_emovits_own_instruction_files(root):
    def item(image, answer, number="00001"):
        turns = [{"from": "human", "value": "<image>\nWhich?"}, {"from": "gpt", "value": answer}]
        return {"id": number, "image": image, "conversations": turns}

    items = [item("1.jpg", "Predict emotion: happy"), item("1.jpg", "A smile."), item("2.PNG", "Predict emotion: joy")]
    (root / "train.json").write_text(json.dumps(items))
    first, second = _conversations(root, images="happy", label_set="ekman6")
    assert (first.id, first.image, first.emotion) == ("emovit/1", "happy/1.jpg", "happiness")
    assert [i.kind for i in first.instructions] == ["categorical", "conversation"]
    assert (second.id, second.emotion) == ("emovit/2", "happiness")
    with pytest.raises(DataError, match=r"image '1.jpg': the image 1.jpg is missing"):
        _conversations(root)
    with pytest.raises(DataError, match=r"unknown emotion 'happy' for label set 'mikels8'"):
        _conversations(root, images="happy", label_set="mikels8")


def _classes(names):
    return datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})


def _of_codes(root, features, **columns):
    images = [str(root / name) for name in ("happy/1.jpg", "happy/2.PNG", "sad/1.jpg")]
    return datasets.Dataset.from_dict({"image": images, **columns}, features=datasets.Features(features))


def test_every_part_has_its_own_class_names(root, tmp_path):
    train = _of_codes(root, _classes(["anger", "fear"]), label=[0, 0, 1])
    test = _of_codes(root, _classes(["fear", "joy", "anger"]), label=[0, 1, 2])
    parts = datasets.DatasetDict(train=train, test=test)
    settings = TableSettings(columns={"emotion": "label"})
    records = list(read_huggingface(parts, settings, source="hub", extract_to=tmp_path / "out"))
    assert [record.emotion for record in records] == ["anger", "anger", "fear", "fear", "joy", "anger"]
    assert {record.label_set for record in records} == {"labels:anger, fear, joy"}


def test_class_codes_of_other_columns_have_names(root, tmp_path):
    emotion = datasets.ClassLabel(names=["anger", "fear"])
    part = datasets.ClassLabel(names=["train", "test"])
    features = {"image": datasets.Image(), "labels": datasets.List(emotion), "set": part, "who": part}
    saved = _of_codes(root, features, labels=[[0], [0, 1], []], set=[0, 1, 1], who=[0, 1, 1])
    columns = {"labels": "labels", "split": "set", "group": "who"}
    settings = TableSettings(columns=columns, label_set="labels:anger, fear")
    records = list(read_huggingface(saved, settings, source="hub", extract_to=tmp_path / "out"))
    assert [(r.labels, r.split) for r in records] == [(["anger"], "train"), (["anger", "fear"], "test"), ([], "test")]
    # A group needs no name, unless its codes differ between the parts.
    assert [record.group for record in records] == ["0", "1", "1"]
    other = datasets.ClassLabel(names=["test", "train"])
    both = {"a": saved, "b": _of_codes(root, {**features, "who": other}, labels=[[], [], []], set=[0] * 3, who=[0] * 3)}
    records = list(read_huggingface(datasets.DatasetDict(both), settings, source="hub", extract_to=tmp_path / "out"))
    assert [record.group for record in records] == ["train", "test", "test", "test", "test", "test"]


@pytest.mark.parametrize("form", [{"columns": ["label"]}, {"type": "torch"}, {"type": "numpy", "columns": ["label"]}])
def test_the_format_of_a_saved_dataset_does_not_matter(root, tmp_path, form):
    dataset = _of_codes(root, _classes(["anger", "fear"]), label=[0, 1, 0])
    dataset.set_format(**form)
    dataset.save_to_disk(tmp_path / "saved")
    settings = TableSettings(columns={"emotion": "label"})
    records = list(read_huggingface(tmp_path / "saved", settings, source="hub", extract_to=tmp_path / "out"))
    assert [record.emotion for record in records] == ["anger", "fear", "anger"]
    assert (tmp_path / "out" / records[0].image).read_bytes() == (root / "happy/1.jpg").read_bytes()


def test_a_saved_split_without_rows_is_noted(root, tmp_path):
    full = _of_codes(root, _classes(["anger", "fear"]), label=[0, 1, 0])
    empty = full.select([])
    settings = TableSettings(columns={"emotion": "label"})
    for parts, expected in (({"train": full, "validation": empty}, 3), ({"a": empty, "b": full, "c": empty}, 3)):
        folder, notes = tmp_path / "-".join(parts), Notes()
        datasets.DatasetDict(parts).save_to_disk(folder)
        out = tmp_path / "out"
        assert len(list(read_huggingface(folder, settings, source="hub", extract_to=out, notes=notes))) == expected
        assert notes.lines == [f"splits without rows: {', '.join(name for name in parts if not len(parts[name]))}"]
    empty.save_to_disk(tmp_path / "nothing")
    with pytest.raises(DataError, match="nothing: has no rows"):
        list(read_huggingface(tmp_path / "nothing", settings, source="hub", extract_to=tmp_path / "out"))


def _hub(folder, parts):
    """Parquet files of the hub: path -> names of the classes, and codes."""
    for path, (names, codes) in parts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        images = [{"bytes": _png(number), "path": None} for number in range(len(codes))]
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        datasets.Dataset.from_dict({"image": images, "label": codes}, features=features).to_parquet(folder / path)


def _png(red):
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(content, "PNG")
    return content.getvalue()


def _from_hub(folder):
    settings = TableSettings(columns={"emotion": "label"})
    return list(read_huggingface(folder, settings, source="hub", extract_to=folder / "out"))


def test_class_names_that_differ_between_files_are_no_wrong_labels(tmp_path):
    parts = ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet")
    for number, other in enumerate((["sad", "happy"], ["happy", "sad", "calm"], ["joy", "sad"])):
        folder = tmp_path / str(number)
        _hub(folder, {parts[0]: (["happy", "sad"], [0, 1]), parts[1]: (other, [0])})
        with pytest.raises(DataError, match=rf"00001-of-00002.*'label' has other class names \({', '.join(other)}\)"):
            _from_hub(folder)


def test_the_readme_of_a_hub_dataset_decides_its_splits(tmp_path):
    files = {"a/part.parquet": (["happy", "sad"], [0, 1]), "b/part.parquet": (["happy", "sad"], [1])}
    _hub(tmp_path, files)

    def readme(*configs):
        card = {"configs": [{"config_name": name, "data_files": listed} for name, listed in configs]}
        (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n# Faces\n")

    by_split = [{"split": "train", "path": "a/*.parquet"}, {"split": "test", "path": ["b/part.parquet"]}]
    readme(("default", by_split))
    assert [(r.split, r.emotion) for r in _from_hub(tmp_path)] == [
        ("train", "happy"), ("train", "sad"), ("test", "sad"),
    ]  # fmt: skip
    readme(("default", "*/part.parquet"))
    assert [r.split for r in _from_hub(tmp_path)] == ["train"] * 3
    for configs, problem in [
        ((("en", by_split[:1]), ("fr", by_split[1:])), r"README.md: lists several datasets \(en, fr\)"),
        ((("default", by_split[:1]),), r"Parquet files of several datasets"),
        ((("default", "c.parquet"),), r"README.md: lists files that are not here"),
    ]:
        readme(*configs)
        with pytest.raises(DataError, match=problem):
            _from_hub(tmp_path)
    (tmp_path / "README.md").write_text("---\nconfigs: [1]\n---\n")
    with pytest.raises(DataError, match=r"README.md: the list of its files cannot be read"):
        _from_hub(tmp_path)


@pytest.mark.parametrize("place", ["{table}/{name}", "{images}/{name}", "{absolute}/{name}"])
def test_a_path_in_the_place_of_an_image_is_read(root, tmp_path, place):
    for folder in ("tables", "photos"):
        (root / folder).mkdir()
    name = "one.jpg"
    target = {"{table}": root / "tables", "{images}": root / "photos", "{absolute}": root / "photos"}[place[:-7]]
    Image.new("RGB", (20, 20), (9, 8, 7)).save(target / name)
    path = str(target / name) if "absolute" in place else name
    rows = [{"image": {"bytes": None, "path": path}, "mood": "sad"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "tables" / "t.parquet")
    files = ({"path": "tables/t.parquet", "images": "photos"},)
    settings = TableSettings(files=files, columns={"emotion": "mood"}, label_set="ekman6")
    (record,) = TableReader(root, settings, source="mine", extract_to=tmp_path / "out").read()
    assert (tmp_path / "out" / record.image).read_bytes() == (target / name).read_bytes()
    (target / name).unlink()
    with pytest.raises(DataError, match=r"row 0: the image .*one.jpg is missing below .*tables or .*photos"):
        list(TableReader(root, settings, source="mine", extract_to=tmp_path / "out").read())


@pytest.mark.parametrize("path", ["{secret}", "../secret.jpg", "photos/../../secret.jpg"])
@pytest.mark.parametrize("reader", ["table", "conversations", "hub"])
def test_a_path_in_the_place_of_an_image_stays_below_the_folders(root, tmp_path, path, reader):
    folder = root / "inside"
    (folder / "photos").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(root / "secret.jpg")
    name = path.format(secret=root / "secret.jpg")
    turns = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "Joy."}]
    row = {"image": {"bytes": None, "path": name}, "mood": "sad", "messages": turns}
    if reader != "conversations":
        del row["messages"]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), folder / "train.parquet")
    options = {"source": "x", "extract_to": tmp_path / "out"}
    columns = {"columns": {"emotion": "mood"}, "label_set": "ekman6"}
    made = {
        "table": lambda: TableReader(folder, TableSettings(file="train.parquet", **columns), **options),
        "hub": lambda: HuggingFaceReader(folder, TableSettings(**columns), **options),
        "conversations": lambda: ConversationReader(folder, ConversationSettings(file="train.parquet"), **options),
    }[reader]()
    with pytest.raises(DataError, match=r"secret\.jpg is not below .*inside.*; move it there, or set `image_folder`"):
        list(made.read())
    assert not list((tmp_path / "out").rglob("*.jpg"))


@pytest.mark.parametrize("splits", [("train", "validation"), ("train", "test", "dev"), ("Training", "Testing")])
def test_splits_are_not_labels(tmp_path, splits):
    for split in splits:
        for label in ("anger", "fear"):
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("RGB", (20, 20)).save(tmp_path / split / label / "1.png")
    with pytest.raises(DataError, match=f"{', '.join(sorted(splits))} look like splits.*pattern="):
        _folder(tmp_path)
    records = _folder(tmp_path, pattern="{split}/{label}/{name}")
    assert {record.label_set for record in records} == {"labels:anger, fear"}
    assert [record.split for record in records] == [split for split in sorted(splits) for _ in range(2)]


def test_images_of_conversations_stay_below_the_root(root):
    turns = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "A smile."}]
    (root / "train.json").write_text(json.dumps([{"image": "1.jpg", "conversations": turns}]))
    for folder in ("../elsewhere", "happy/../../happy", "C:/x"):
        with pytest.raises(DataError, match=r"image '1.jpg': record: key 'image': must be a path below the image root"):
            _conversations(root, images=folder, check_images=False)
    (record,) = _conversations(root, images="happy/")
    assert (record.image, record.id) == ("happy/1.jpg", "emovit/1")


@pytest.mark.parametrize("locked", ["sad", "deep/sad", "sad/inside"])
def test_a_class_that_cannot_be_read_is_refused(tmp_path, lock_folder, locked):
    for name in ("happy/1.jpg", "fear/1.jpg", "sad/1.jpg", "deep/sad/1.jpg", "sad/inside/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"not decoded by the reader")
    for name in (".trash", "lost+found", "__MACOSX"):
        (tmp_path / name).mkdir()
        lock_folder(tmp_path / name)
    assert len(_folder(tmp_path, pattern="{path*}/{label}/{name}")) == 2
    lock_folder(tmp_path / locked)
    with pytest.raises(DataError, match=f"{locked}: the folder cannot be read .* Give yourself permission"):
        _folder(tmp_path, pattern="{label}/{name}")


@pytest.mark.parametrize("link", ["sad", "happy/more", "deep/sad"])
def test_a_link_to_a_missing_class_is_refused(tmp_path, link):
    for name in ("happy/1.jpg", "fear/1.jpg", "deep/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"not decoded by the reader")
    (tmp_path / link).symlink_to(tmp_path / "unmounted" / "sad")
    with pytest.raises(DataError, match=f"{link}: a link to a file or folder that does not exist"):
        _folder(tmp_path)
