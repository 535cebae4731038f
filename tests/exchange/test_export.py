"""Data for other trainers.

Properties:
- a row of each format is what that trainer reads: one question, or with `--join` all questions about an image;
- an import of an exported folder, or of one file of it, gives the exported records with the same image bytes, for each
  format, joined or not, from records and from shards;
- splits have files and images of their own; images have plain names, unique also without case;
- Parquet stores an image once for all its questions, and is read by the features that `datasets` writes;
- the summary counts rows, questions of each kind and images, and what is skipped by reason; people and images in
  several splits are reported, or refused;
- wrong settings are reported together; missing and broken images, damaged shards, an existing folder, repeated ids,
  splits with one file name, and an export of nothing are refused, and leave nothing behind;
- parts of images in boxes are exported, and several people in one whole image are counted;
- files of others in these formats become records, and contradictions in exported files are refused.
"""

from __future__ import annotations

import io
import json
import shutil

import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from lavis_emovit.boxes import BoxSettings
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.exchange.export import export_data
from lavis_emovit.exchange.files import ImageNames
from lavis_emovit.exchange.formats import FORMATS
from lavis_emovit.records import EmotionRecord, read_records, write_records
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.sources.readers.conversations import ConversationReader, ConversationSettings

JOINED = [name for name in FORMATS if FORMATS[name].has_turns]
CASES = [(name, False) for name in FORMATS] + [(name, True) for name in JOINED]


def read_back(root, file, to, **settings):
    """(record, bytes of its image) of an exported file, or of a folder as `.`, by record id."""
    reader = ConversationReader(root, ConversationSettings(file=file, **settings), source="again", extract_to=to)
    return {record.id: (record, (reader.image_root / record.image).read_bytes()) for record in reader.read()}


def assert_same(found, folder, records=None):
    records = list(read_records(folder / "records.jsonl")) if records is None else records
    assert sorted(found) == sorted(record.id for record in records)
    for record in records:
        again, data = found[record.id]
        assert again.model_copy(update={"image": record.image}) == record
        assert data == (folder / record.image).read_bytes()


@pytest.mark.parametrize(("name", "join"), CASES)
def test_an_export_is_imported_again(folder, tmp_path, name, join):
    out = tmp_path / "out"
    summary = export_data(str(folder / "records.jsonl"), out, name, join=join)
    assert summary["skipped"] == {} and json.loads((out / "summary.json").read_text()) == summary
    assert_same(read_back(out, ".", tmp_path / "to"), folder)
    records = [record for record in read_records(folder / "records.jsonl") if record.split == "val"]
    assert_same(read_back(out, summary["splits"]["val"]["file"], tmp_path / "val"), folder, records)


@pytest.mark.parametrize("name", ["llava", "trl"])
def test_shards_and_records_give_the_same_files(folder, tmp_path, name):
    records = list(read_records(folder / "records.jsonl"))
    shards = tmp_path / "prepared"
    for split in ("train", "val", "test"):
        write_shards([record for record in records if record.split == split], folder, shards / split)
    # As the preparation of a dataset leaves it.
    shutil.copy(folder / "records.jsonl", shards)
    export_data(str(shards), tmp_path / "out", name)
    assert_same(read_back(tmp_path / "out", ".", tmp_path / "to"), folder)
    for number, place in enumerate((shards / "val", shards / "val" / "index.json")):
        summary = export_data(str(place), tmp_path / f"one{number}", name)
        assert list(summary["splits"]) == ["val"] and list(summary["input"]) == [str(shards / "val")]
    with pytest.raises(DataError, match="has shards, which contain their images; omit --images"):
        export_data(str(shards), tmp_path / "two", name, images=folder)
    (shard,) = (shards / "val").glob("*.tar")
    # One of the six images is a PNG.
    shard.write_bytes(shard.read_bytes().replace(b"\xff\xd8", b"\xff\xd9"))
    with pytest.raises(DataError, match=r"5 records cannot be exported:\n.*its bytes changed(?s:.*)--skip-bad"):
        export_data(str(shards / "val"), tmp_path / "three", name)


def rows_of(path):
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    return json.loads(path.read_text()) if path.suffix == ".json" else list(map(json.loads, path.open()))


@pytest.mark.parametrize(("name", "join"), CASES)
def test_rows_are_what_the_trainer_reads(folder, tmp_path, name, join):
    export_data(str(folder), tmp_path / "out", name, join=join)
    rows = rows_of(tmp_path / "out" / f"val{FORMATS[name].suffix}")
    # Three records of the label with 1, 2 and 3 questions; of the two about one image, the second.
    row = next(row for row in rows if row["id"].startswith("tiny/contentment_00008"))
    record = next(record for record in read_records(folder / "records.jsonl") if record.id == "tiny/contentment_00008")
    image = f"images/val/{record.image}"
    first = ("Which?", "Predict emotion: contentment")
    turns = [first, ("What is 8?", "A number."), ("Why?", "Because "), (" What\n is it? ", "\tA hill. ")]
    turns = turns if join else [first]
    mark = {"llava": "<image>\n", "trl": ""}.get(name, "<image>")
    messages = []
    for number, (question, answer) in enumerate(turns):
        messages.append({"role": "user", "content": question if number else mark + question})
        messages.append({"role": "assistant", "content": answer})
    embedded = [{"bytes": (folder / record.image).read_bytes(), "path": image}]
    expected = {
        "llava": {
            "image": image,
            "conversations": [
                {"from": {"user": "human", "assistant": "gpt"}[turn["role"]], "value": turn["content"]}
                for turn in messages
            ],
        },
        "faba": {
            "source": "tiny",
            "image": image,
            "landmark": f"landmarks/val/{record.image.rpartition('.')[0]}.npy",
            "conversations": [
                {"from": "human", "value": "Which?\n<image>"},
                {"from": "gpt", "value": "Predict emotion: contentment"},
            ],
        },
        "ms-swift": {"messages": messages, "images": [image]},
        "llamafactory": {"messages": messages, "images": [image]},
        "trl": {"images": embedded}
        | ({"messages": messages} if join else {"prompt": messages[:1], "completion": messages[1:]}),
        "easyr1": {"problem": "<image>Which?", "answer": "Predict emotion: contentment", "images": embedded},
        "verl": {
            "data_source": "tiny",
            "prompt": messages[:1],
            "reward_model": {"style": "rule", "ground_truth": "Predict emotion: contentment"},
            "extra_info": {"emovit_record": row["emovit_record"]},
            "images": embedded,
        },
    }[name]
    kinds = ["categorical", "conversation", "reasoning", "description"]
    carried = {"kind": kinds if join else "categorical", "provenance": ["human"] * 4 if join else "human"}
    carried |= {"split": "val", "emotion": "contentment", "emovit_record": row["emovit_record"]}
    number = record.id if join else f"{record.id}/categorical/0"
    assert row == {"id": number, **expected, **carried}
    if not join:
        assert len(rows) == sum(len(record.instructions) for record in read_records(folder / "records.jsonl")
                                if record.split == "val")  # fmt: skip
    # Loaders of JSON lines take columns and types from the first rows.
    assert len({tuple((key, type(value)) for key, value in row.items()) for row in rows}) == 1


def test_llamafactory_gets_a_list_of_its_datasets(folder, tmp_path):
    export_data(str(folder), tmp_path / "my set", "llamafactory")
    info = json.loads((tmp_path / "my set" / "dataset_info.json").read_text())
    assert sorted(info) == ["my_set_test", "my_set_train", "my_set_val"]
    assert info["my_set_val"] == {
        "file_name": "val.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    }


@pytest.mark.parametrize("name", ["trl", "easyr1", "verl"])
def test_parquet_is_read_by_datasets(folder, tmp_path, name):
    datasets = pytest.importorskip("datasets")
    export_data(str(folder), tmp_path / "out", name)
    files = {split: str(tmp_path / "out" / f"{split}.parquet") for split in ("train", "val", "test")}
    parts = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    records = list(read_records(folder / "records.jsonl"))
    for split, part in parts.items():
        assert len(part) == sum(len(record.instructions) for record in records if record.split == split)
        assert part.features["images"] == datasets.List(datasets.Image())
        assert part[0]["images"][0].size in ((20, 20), (24, 24))


def test_parquet_stores_an_image_once(make_records, tmp_path):
    (record, *_) = make_records(tmp_path, 3, size_px=600)
    (tmp_path / record.image).write_bytes((tmp_path / record.image).read_bytes() + bytes(range(256)) * 400)
    instructions = [record.instructions[0].model_copy(update={"answer": f"It is {n}."}) for n in range(50)]
    write_records(tmp_path / "records.jsonl", [record.model_copy(update={"instructions": instructions})])
    export_data(str(tmp_path), tmp_path / "out", "trl")
    assert len(rows_of(tmp_path / "out" / "train.parquet")) == 50
    column = parquet.ParquetFile(tmp_path / "out" / "train.parquet").metadata.row_group(0).column(5)
    assert column.path_in_schema == "images.list.element.bytes"
    assert column.total_uncompressed_size < 1.1 * (tmp_path / record.image).stat().st_size


def test_splits_have_images_of_their_own(folder, tmp_path):
    summary = export_data(str(folder), tmp_path / "out", "ms-swift")
    records = list(read_records(folder / "records.jsonl"))
    for split, counts in summary["splits"].items():
        written = [path for path in (tmp_path / "out" / "images" / split).rglob("*") if path.is_file()]
        named = {name for row in rows_of(tmp_path / "out" / counts["file"]) for name in row["images"]}
        assert {path.relative_to(tmp_path / "out").as_posix() for path in written} == named
        # Records 6 and 7 are two people in one image.
        assert len(written) == counts["images"] == (5 if split == "val" else 6)
        assert {row["split"] for row in rows_of(tmp_path / "out" / counts["file"])} == {split}
        chosen = [one for record in records if record.split == split for one in record.instructions]
        assert counts["questions"] == counts["conversations"] == len(chosen) == sum(counts["kinds"].values())
        assert counts["records"] == 6 and counts["kinds"]["categorical"] == 6
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "images", "summary.json", "test.jsonl", "train.jsonl", "val.jsonl",
    ]  # fmt: skip


def test_image_names_are_plain(folder, tmp_path):
    export_data(str(folder), tmp_path / "out", "llava")
    train = tmp_path / "out" / "images" / "train"
    names = sorted(path.relative_to(train).as_posix() for path in train.rglob("*") if path.is_file())
    assert [name for name in names if "-" not in name] == [
        "_con/x.jpg",
        "a_b/_.jpg",
        "a_b/__.jpg",
        "deep/er/X.JPG",
        "plain",
    ]
    (renamed,) = [name for name in names if "-" in name]
    assert renamed.startswith("deep/er/x-") and renamed.endswith(".jpg")


def test_image_names_are_unique_without_their_suffix():
    names = ImageNames()
    assert names.name("a/twin.png", b"1" * 32) == "a/twin.png"
    assert names.name("a/twin.jpg", b"2" * 32) == "a/twin-3232323232323232.jpg"
    assert names.name("a/Twin.jpg", b"1" * 32) == "a/twin.png" and len(names) == 2


parts = st.text(alphabet="aA._- é/?\n:", min_size=1, max_size=6)


@given(st.lists(st.tuples(parts, st.sampled_from("xyz")), max_size=8), st.integers(0, 1))
def test_image_names_never_collide(found, long):
    names = ImageNames()
    contents: dict[str, str] = {}
    for path, digest in found:
        name = names.name("a" * 200 * long + path, (digest * 32).encode())
        assert all(part.isascii() and 0 < len(part) <= 120 and part not in (".", "..") for part in name.split("/"))
        assert not set(name) & set(' ?\n:"\\') and names.name("a" * 200 * long + path, (digest * 32).encode()) == name
        assert contents.setdefault(name.lower(), digest) == digest


def change(folder, tmp_path, **of_number):
    """A copy of the folder in which records have other values."""
    root = shutil.copytree(folder, tmp_path / "changed")
    records = list(read_records(root / "records.jsonl"))
    for number, values in of_number.items():
        place = int(number[1:])
        records[place] = EmotionRecord(**records[place].model_dump() | values)
    write_records(root / "records.jsonl", records)
    return root


def test_what_is_skipped_is_counted_by_reason(folder, tmp_path):
    def one(kind, question):
        return {"kind": kind, "question": question, "answer": "Yes.", "provenance": "human"}

    root = change(
        folder,
        tmp_path,
        _0={"instructions": []},
        _1={"instructions": [one("reasoning", "Is <image> here?"), one("reasoning", "Is it?")]},
        _2={"instructions": [one("reasoning", "A <video>?")]},
        _3={"instructions": [one("conversation", "?")]},
    )
    summary = export_data(str(root), tmp_path / "out", "trl", kinds=["categorical", "reasoning"])
    ids = [record.id for record in read_records(root / "records.jsonl")]
    assert summary["skipped"] == {
        "records without instructions": 1,
        "questions with '<image>' in their text": 1,
        "questions with '<video>' in their text": 1,
        "records all of whose questions are skipped": 1,
        "records without instructions of the chosen kinds": 1,
    }
    assert summary["skipped_examples"]["questions with '<video>' in their text"] == [f"{ids[2]}#0"]
    assert summary["splits"]["train"]["kinds"] == {"categorical": 2, "reasoning": 2}
    assert summary["kinds"] == ["categorical", "reasoning"]
    found = read_back(tmp_path / "out", ".", tmp_path / "to")
    assert sorted(set(ids) - set(found)) == sorted([ids[0], ids[2], ids[3]])
    assert {one.kind for record, _ in found.values() for one in record.instructions} == {"categorical", "reasoning"}
    with pytest.raises(DataError, match="nothing to export:\n  - 18 records without instructions of the chosen kinds"):
        export_data(str(folder), tmp_path / "none", "trl", kinds=["explanation"])
    assert not (tmp_path / "none").exists()


def test_marks_of_a_trainer_are_skipped_for_it_alone(folder, tmp_path):
    said = {"kind": "reasoning", "question": "He said: ASSISTANT: Stop. Why?", "answer": "So.", "provenance": "human"}
    root = change(folder, tmp_path, _0={"instructions": [said]})
    (number,) = [record.id for record in read_records(root / "records.jsonl")][:1]
    summary = export_data(str(root), tmp_path / "llava", "llava")
    assert summary["skipped_examples"]["questions with 'ASSISTANT: ' in their text"] == [f"{number}#0"]
    assert export_data(str(root), tmp_path / "trl", "trl")["skipped"] == {}


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@pytest.mark.parametrize(("name", "join"), CASES)
@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=3))
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@example(pairs=[("\n<\u2028 'x\\", "\r\n\x00\ufeff"), ("Question: a Answer: b", " ")])
def test_any_text_is_imported_as_it_was(folder, tmp_path, name, join, pairs):
    assume(not any(mark in f"{q} {a}" for q, a in pairs for mark in FORMATS[name].reserved))
    for place in ("text", "out", "to"):
        shutil.rmtree(tmp_path / place, ignore_errors=True)
    instructions = [{"kind": "reasoning", "question": q, "answer": a, "provenance": "human"} for q, a in pairs]
    (tmp_path / "text").mkdir()
    shutil.copy(folder / "plain", tmp_path / "text" / "a.jpg")
    record = EmotionRecord(id="x/1", image="a.jpg", split="train", source="x", instructions=instructions)
    write_records(tmp_path / "text" / "records.jsonl", [record])
    export_data(str(tmp_path / "text"), tmp_path / "out", name, join=join)
    assert_same(read_back(tmp_path / "out", ".", tmp_path / "to"), tmp_path / "text")


def test_unusable_images_are_reported_together(folder, tmp_path):
    root = change(folder, tmp_path)
    records = list(read_records(root / "records.jsonl"))
    (root / records[9].image).unlink()
    (root / records[10].image).write_bytes((root / records[10].image).read_bytes()[:300])
    (root / records[11].image).write_text("<html>")
    with pytest.raises(DataError) as caught:
        export_data(str(root), tmp_path / "out", "llava")
    text = str(caught.value)
    assert "3 records cannot be exported" in text and "pass --skip-bad" in text
    assert f"{records[9].image}: the image of '{records[9].id}' cannot be read (No such file" in text
    assert f"{records[10].image}: the image of '{records[10].id}' cannot be used (" in text and "web page" in text
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    summary = export_data(str(root), tmp_path / "out", "llava", skip_bad=True)
    assert summary["skipped"] == {"records whose image cannot be used": 3}
    assert_same(read_back(tmp_path / "out", ".", tmp_path / "to"), root, records[:9] + records[12:])


@pytest.mark.parametrize("name", FORMATS)
def test_parts_of_images_are_exported(tmp_path, name):
    image = Image.new("RGB", (40, 30), "red")
    image.paste("blue", (20, 0, 40, 30))
    image.save(tmp_path / "pair.png")
    one = {"kind": "reasoning", "question": "Why?", "answer": "So.", "provenance": "human"}
    common = {"image": "pair.png", "split": "train", "source": "x", "instructions": [one]}
    boxes = {"x/left": (2.0, 3.0, 12.0, 13.0), "x/right": (20.0, 0.0, 44.0, 30.0), "x/scene": None}
    write_records(tmp_path / "records.jsonl", [EmotionRecord(id=key, box=box, **common) for key, box in boxes.items()])
    whole = export_data(str(tmp_path / "records.jsonl"), tmp_path / "whole", name)
    assert whole["shared_whole"].startswith("2 records are about one of several people or faces in 1 images")
    summary = export_data(str(tmp_path / "records.jsonl"), tmp_path / "out", name, show=BoxSettings(show="crop"))
    assert summary["shared_whole"] is None and summary["splits"]["train"]["images"] == 3
    assert summary["box"] == {"show": "crop", "margin": 0.0}
    colours = {}
    for key, (record, data) in read_back(tmp_path / "out", ".", tmp_path / "to").items():
        colours[key] = Image.open(io.BytesIO(data)).convert("RGB").getcolors()
        context = {} if key == "x/scene" else {"context_image": "pair.png", "context_box": "2, 3, 12, 13"}
        assert record.box is None and (key == "x/right" or record.extra == context)
    whole_colours = [(600, (0, 0, 255)), (600, (255, 0, 0))]
    assert colours.pop("x/scene") in (whole_colours, whole_colours[::-1])
    assert colours == {"x/left": [(100, (255, 0, 0))], "x/right": [(600, (0, 0, 255))]}


def test_people_and_images_in_several_splits_are_reported(folder, tmp_path):
    train = next(read_records(folder / "records.jsonl")).image
    root = change(folder, tmp_path, _13={"group": "person 0"}, _14={"image": train})
    summary = export_data(str(root), tmp_path / "out", "llava")
    expected = ["1 people or sessions are in several splits (person 0)", "1 images are in several splits"]
    assert summary["in_several_splits"] == expected
    with pytest.raises(DataError, match=r"refused by --strict:\n  - 1 people.*\n  - 1 images(?s:.*)emovit data split"):
        export_data(str(root), tmp_path / "strict", "llava", strict=True)
    assert not (tmp_path / "strict").exists()
    assert export_data(str(folder), tmp_path / "fine", "llava", strict=True)["in_several_splits"] == []


@pytest.mark.parametrize(
    ("name", "otherwise"),
    [
        ("llava", {"16-bit": 1, "transparent": 1, "turned by EXIF": 1}),
        # Hugging Face's `datasets` follows EXIF.
        ("trl", {"16-bit": 1, "transparent": 1}),
    ],
)
def test_images_that_trainers_distort_are_counted(odd, tmp_path, name, otherwise):
    assert export_data(str(odd), tmp_path / "plain", name)["shown_otherwise"] == otherwise
    assert_same(read_back(tmp_path / "plain", ".", tmp_path / "to"), odd)
    assert export_data(str(odd), tmp_path / "shown", name, as_shown=True)["shown_otherwise"] == otherwise
    found = read_back(tmp_path / "shown", ".", tmp_path / "to2")
    kept = {path.stem for path in odd.glob("*.*g") if found[f"odd/{path.stem}"][1] == path.read_bytes()}
    assert kept == {"opaque", "cmyk", *(["turned"] if name == "trl" else [])}
    for stem in {"deep", "transparent", "turned"} - kept:
        record, data = found[f"odd/{stem}"]
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.mode, record.image[-4:]) == ("PNG", "RGB", ".png")
            # 0x40 of 16 bits in 8; white where nothing is; red above blue after the turn, up to JPEG's rounding.
            corners = [image.getpixel((x, y)) for x, y in ((3, 3), (24, 3), (24, 24))]
        white, red, blue, grey = (255, 255, 255), (255, 0, 0), (0, 0, 255), (0x40, 0x40, 0x40)
        expected = {"deep": [grey] * 3, "transparent": [white, red, blue], "turned": [red, red, blue]}[stem]
        assert all(abs(a - b) < 4 for one, two in zip(corners, expected) for a, b in zip(one, two)), stem


def test_wrong_settings_are_reported_together(folder, tmp_path):
    with pytest.raises(ConfigError) as caught:
        export_data(str(folder), tmp_path / "out", "lava", kinds=["reasonin", "x"])
    text = str(caught.value)
    assert "unknown format 'lava' (did you mean 'llava'?)" in text and "the formats are llava, ms-swift" in text
    assert "unknown kind 'reasonin' (did you mean 'reasoning'?)" in text and "unknown kind 'x'" in text
    with pytest.raises(ConfigError, match="--join: a row of easyr1 has one question"):
        export_data(str(folder), tmp_path / "out", "easyr1", join=True)


def test_an_export_replaces_nothing(folder, tmp_path):
    (tmp_path / "out").mkdir()
    export_data(str(folder), tmp_path / "out", "llava")
    before = sorted(tmp_path.rglob("*"))
    for out in (tmp_path / "out", tmp_path / "out" / "val.json"):
        with pytest.raises(DataError, match=f"{out}: already has content"):
            export_data(str(folder), out, "llava")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("one", "One"), "its file one.json would replace|its file One.json would replace"),
        (("summary",), "summary.json"),
    ],
)
def test_splits_need_files_of_their_own(make_records, tmp_path, splits, expected):
    records = make_records(tmp_path, 4)
    named = [record.model_copy(update={"split": splits[n % len(splits)]}) for n, record in enumerate(records)]
    write_records(tmp_path / "records.jsonl", named)
    with pytest.raises(DataError, match=expected):
        export_data(str(tmp_path), tmp_path / "out", "llava")


@pytest.mark.parametrize("name", ["llamafactory", "trl"])
def test_splits_of_any_name_keep_their_images(make_records, tmp_path, name):
    # Their folders of images would have one plain name, and their images one name.
    splits = ("a b", "a_b", "a,b")
    records = [
        record.model_copy(update={"split": splits[n], "image": "x.png"})
        for n, record in enumerate(make_records(tmp_path, 3))
    ]
    contents = []
    for n, record in enumerate(records):
        root = tmp_path / str(n)
        root.mkdir()
        Image.new("RGB", (9, 9), (n, n, n)).save(root / "x.png")
        contents.append((root / "x.png").read_bytes())
        write_shards([record], root, tmp_path / "shards" / str(n))
    summary = export_data(str(tmp_path / "shards"), tmp_path / "out", name)
    assert {split: counts["images"] for split, counts in summary["splits"].items()} == dict.fromkeys(splits, 1)
    found = read_back(tmp_path / "out", ".", tmp_path / "to")
    assert [found[record.id][1] for record in records] == contents
    if name == "llamafactory":
        assert len(json.loads((tmp_path / "out" / "dataset_info.json").read_text())) == 3


def test_two_datasets_are_not_mixed(make_records, tmp_path):
    records = make_records(tmp_path, 4)
    for name in ("old", "new"):
        write_shards(records, tmp_path, tmp_path / "shards" / name)
    with pytest.raises(DataError, match=r"two records have the id 'tiny/.*'; export one dataset at a time"):
        export_data(str(tmp_path / "shards"), tmp_path / "out", "llava")


@pytest.mark.parametrize("place", ["gone", "empty"])
def test_a_place_without_data_is_refused(tmp_path, place):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"{place}: no (such folder|index.json)"):
        export_data(str(tmp_path / place), tmp_path / "out", "llava")


# Imports of what others wrote, and of what was changed.


def write_parquet(path, rows):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path.parent, path.name


def test_parquet_of_others_becomes_records(folder, tmp_path):
    first, second = (folder / name for name in ("plain", "deep/er/x.jpg"))
    cells = [{"bytes": path.read_bytes(), "path": "image.png"} for path in (first, second, first)]
    texts = [("<image>Which?", "Predict emotion: awe"), ("Why <image>?", "So."), ("What?", "A hill.")]
    rows = [{"problem": q, "answer": a, "images": [c]} for (q, a), c in zip(texts, cells)]
    found = read_back(*write_parquet(tmp_path / "geo.parquet", rows), tmp_path / "to", label_set="mikels8")
    assert [data for _, data in found.values()] == [first.read_bytes(), second.read_bytes()]
    one, two = (record for record, _ in found.values())
    assert (one.source, one.emotion, one.split, two.emotion) == ("again", "awe", "train", None)
    assert [(i.kind, i.question, i.answer) for i in one.instructions] == [
        ("categorical", "Which?", "Predict emotion: awe"),
        ("conversation", "What?", "A hill."),
    ]
    assert [i.question for i in two.instructions] == ["Why ?"]
    # TRL's own sample data: prompts and completions, structured contents, one image without a name.
    content = [{"type": "image", "text": None}, {"type": "text", "text": "Which?"}]
    for prompt, completion in (([{"role": "user", "content": content}], [{"role": "assistant", "content": [
        {"type": "text", "text": "A hill."}]}]), ("Which?", "A hill.")):  # fmt: skip
        row = {"prompt": prompt, "completion": completion, "image": {"bytes": first.read_bytes(), "path": None}}
        ((record, data),) = read_back(*write_parquet(tmp_path / "t.parquet", [row]), tmp_path / "to2").values()
        assert data == first.read_bytes() and record.instructions[0].answer == "A hill."
        assert record.instructions[0].question == "Which?"


def test_paths_in_parquet_stay_paths(folder, tmp_path):
    rows = [{"messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "!"}],
             "images": ["plain"]}]  # fmt: skip
    shutil.copy(folder / "plain", tmp_path)
    ((record, _),) = read_back(*write_parquet(tmp_path / "t.parquet", rows), None).values()
    assert record.image == "plain"


@pytest.mark.parametrize(
    ("image", "expected"),
    [(b"no image", "row 0: the bytes are not an image"), (None, "row 0: the image is not in the table")],
)
def test_broken_images_in_parquet_are_refused(tmp_path, image, expected):
    rows = [{"problem": "?", "answer": "!", "images": [{"bytes": image, "path": None}]}]
    schema = pyarrow.schema({"problem": pyarrow.string(), "answer": pyarrow.string(), "images": pyarrow.list_(
        pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}))})  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=expected):
        read_back(tmp_path, "t.parquet", tmp_path / "to")
    with pytest.raises(DataError, match="contains the images; pass a folder"):
        read_back(tmp_path, "t.parquet", None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"emovit_record": "{"}, "item 1 .*'emovit_record': not JSON"),
        ({"emovit_record": 3}, "'emovit_record' must be the JSON text of a record with an id"),
        ({"emovit_record": '{"id": 1}'}, "'emovit_record' must be the JSON text of a record with an id"),
        ({"emovit_record": None}, None),
        ({"kind": ["categorical"] * 2}, "must have 1 entries, one for each question"),
        ({"provenance": []}, "must have 1 entries, one for each question"),
        ({"split": "val"}, "is in 'val' here and in 'train' before"),
    ],
)
def test_changed_exports_are_refused(folder, tmp_path, changes, expected):
    export_data(str(folder), tmp_path / "out", "ms-swift")
    rows = rows_of(tmp_path / "out" / "train.jsonl")
    rows[1] |= changes
    (tmp_path / "out" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    if expected is None:
        # Its image gives it another record.
        assert "again/images/train/a_b/__" in read_back(tmp_path / "out", "train.jsonl", None)
        return
    with pytest.raises(DataError, match=expected):
        read_back(tmp_path / "out", "train.jsonl", None)


def test_contradicting_exports_are_refused(folder, tmp_path):
    export_data(str(folder), tmp_path / "out", "ms-swift")
    path = tmp_path / "out" / "test.jsonl"
    rows = rows_of(path)
    twin = next(n for n in range(1, len(rows)) if rows[n]["emovit_record"] == rows[n - 1]["emovit_record"])
    rows[twin]["emovit_record"] = rows[twin]["emovit_record"].replace("mikels8", "ekman6")
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=f"item {twin} .*differs from that of an earlier item of the same record"):
        read_back(tmp_path / "out", "test.jsonl", None)
    with pytest.raises(DataError, match="labelled with mikels8, not with ekman6"):
        read_back(tmp_path / "out", "val.jsonl", None, label_set="ekman6")
    assert len(read_back(tmp_path / "out", "val.jsonl", None, label_set="mikels8")) == 6


@pytest.mark.parametrize("content", ["{}", '{"files": "a"}', '{"files": ["../a.json"]}', "[]", None])
def test_other_folders_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(DataError, match=r"summary.json: (damaged|cannot be read)"):
        read_back(tmp_path, ".", None)
