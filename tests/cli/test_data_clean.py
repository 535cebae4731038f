"""`emovit data clean`, and its undo.

- By default it removes what `verify --strict` refuses, and nothing else; --kinds chooses; the account has all.
- Contradictory labels remove all records concerned, duplicates keep one; records of the other files stay.
- The original file stays, and no image is deleted: with --quarantine the images that nothing else uses are moved.
- --undo brings back every record in its place and every image, also after an interruption, and twice; it refuses a
  result that has changed, and files in the way, before it moves anything.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from lavis_emovit.cli.main import main
from lavis_emovit.records import EmotionRecord, Instruction, image_root_of, read_records, write_records


def _record(name, split="train", emotion="awe", image=None, **fields):
    question = Instruction(kind="categorical", question="Q?", answer=f"Predict emotion: {emotion}", provenance="human")
    return EmotionRecord(
        id=f"s/{name}", image=image or f"{name}.png", split=split, source="s", emotion=emotion, label_set="mikels8",
        instructions=[question], **fields,
    )  # fmt: skip


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with one of every finding, and its records file `r.jsonl`."""
    root = tmp_path / "photos"
    root.mkdir()
    for number, name in enumerate("abcdefgh"):
        rng = random.Random(number)
        image = Image.new("RGB", (6, 6))
        image.putdata([(rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in range(36)])
        image.resize((128, 128), Image.Resampling.BICUBIC).save(root / f"{name}.png")
    (root / "broken.png").write_bytes(b"<html>")
    Image.effect_noise((9, 9), 99).save(root / "tiny.png")
    shutil.copy(root / "b.png", root / "b2.png")  # a duplicate in the same split
    Image.open(root / "c.png").resize((64, 64)).save(root / "c2.png")  # a leak into test
    shutil.copy(root / "d.png", root / "d2.png")  # another label
    records = [
        _record("a"), _record("broken"), _record("gone"), _record("tiny"), _record("b"), _record("b2"), _record("c"),
        _record("c2", "test"), _record("d"), _record("d2", emotion="fear"),
        _record("e", box=(0, 0, 50, 50)), _record("e#1", image="e.png", box=(0, 0, 500, 500)),
        _record("f", box=(0, 0, 9, 9)), _record("f#1", image="f.png", box=(0, 0, 9, 9), emotion="anger"), _record("g"),
    ]  # fmt: skip
    write_records(root / "r.jsonl", records)
    monkeypatch.chdir(tmp_path)
    return root


@pytest.fixture
def clean(emovit):
    """Function (arguments) -> (exit code, output, errors) of `emovit data clean`."""
    return partial(emovit, "data", "clean")


def _ids(path):
    return [record.id.removeprefix("s/") for record in read_records(path)]


def test_what_verify_refuses_is_removed(clean, data):
    code, text, _ = clean("photos/r.jsonl", "--out", "out/c.jsonl")
    assert code == 0 and "6 of 15 records in out/c.jsonl" in text
    assert _ids("out/c.jsonl") == ["a", "tiny", "b", "c2", "e", "g"]
    assert main(["data", "verify", "out/c.jsonl", "--strict"]) == 0
    assert image_root_of(Path("out/c.jsonl")) == data
    removed = {one["id"]: one for one in json.loads(Path("out/c.summary.json").read_text())["removed_records"]}
    assert removed["s/broken"]["reason"] == "the image cannot be used: a web page or XML text, not an image"
    assert removed["s/gone"]["reason"] == "the image cannot be used: missing"
    assert (removed["s/b2"]["kept"], removed["s/b2"]["reason"]) == (
        "s/b", "exact duplicate of an image in the same split",
    )  # fmt: skip
    assert (removed["s/c"]["kept"], removed["s/c"]["reason"]) == ("s/c2", "near duplicate of an image in another split")
    assert removed["s/d"]["reason"] == removed["s/d2"]["reason"] == "an equal image has another label"
    assert removed["s/f"]["reason"] == removed["s/f#1"]["reason"] == "a record of the image has another label"
    assert removed["s/e#1"]["reason"].startswith("its box (0, 0, 500, 500) reaches outside the image of 128 x 128")
    assert len(removed) == 9 and len(_ids("photos/r.jsonl")) == 15


@pytest.mark.parametrize(
    ("kinds", "removed"),
    [
        (["broken"], {"broken", "gone"}),
        (["small"], {"tiny"}),
        (["duplicates"], {"b2", "d2"}),
        (["leaks"], {"c"}),
        (["conflicts"], {"d", "d2", "f", "f#1"}),
        (["boxes"], {"e#1"}),
        (["small", "boxes"], {"tiny", "e#1"}),
    ],
)
def test_kinds_are_chosen(kinds, removed, clean, data):
    options = ["--kinds", ",".join(kinds)]
    before = _ids("photos/r.jsonl")
    assert "would stay" in clean("photos/r.jsonl", "--dry-run", *options)[1] and not Path("c.jsonl").exists()
    assert clean("photos/r.jsonl", "--out", "c.jsonl", *options)[0] == 0
    assert set(before) - set(_ids("c.jsonl")) == removed


def test_a_duplicate_of_a_leak_that_stays_is_still_found(clean, data):
    """Without `leaks`, both splits keep the image, and each of them once."""
    records = [_record("a"), _record("a2", image="a2.png"), _record("a3", "test", image="a3.png")]
    for name in ("a2", "a3"):
        shutil.copy(data / "a.png", data / f"{name}.png")
    write_records(data / "d.jsonl", records)
    clean("photos/d.jsonl", "--out", "c.jsonl", "--kinds", "duplicates")
    assert _ids("c.jsonl") == ["a", "a3"]


def test_images_of_other_files_stay(clean, data):
    write_records(
        data / "other.jsonl", [_record("x", "test", image="g.png"), _record("y", image="a.png", emotion="fear")]
    )
    clean("photos/r.jsonl", "--out", "c.jsonl", "--against", data / "other.jsonl", "--quarantine", "removed")
    assert not {"a", "g"} & set(_ids("c.jsonl")) and (data / "a.png").exists() and (data / "g.png").exists()


def test_moved_images_and_records_come_back(clean, data):
    images = {path.name: path.read_bytes() for path in data.iterdir()}
    code, text, _ = clean(
        "photos/r.jsonl", "--out", "c.jsonl", "--quarantine", "removed", "--kinds", "broken,conflicts,boxes,duplicates"
    )
    assert code == 0 and "moved: 5 images to removed" in text and "undo with: emovit data clean --undo" in text
    # e.png is still used by its other record, and gone.png does not exist.
    assert {path.name for path in Path("removed").iterdir()} == {"broken.png", "b2.png", "d.png", "d2.png", "f.png"}
    assert not (data / "d.png").exists()
    rows = [json.loads(line) for line in Path("c.removed.jsonl").read_text().splitlines()]
    assert Counter(row["kind"] for row in rows[1:]) == {"broken": 2, "conflicts": 4, "duplicates": 1, "boxes": 1}
    # As after an interruption: one image is back already.
    shutil.move("removed/d.png", data / "d.png")
    code, text, _ = clean("--undo", "c.removed.jsonl")
    assert code == 0 and "8 records put back into" in text and "4 images moved back" in text
    assert Path("c.jsonl").read_bytes() == images["r.jsonl"]
    assert {path.name: path.read_bytes() for path in data.iterdir()} == images
    code, text, _ = clean("--undo", "c.removed.jsonl")
    assert code == 0 and "0 records put back" in text and "0 images moved back" in text


def test_an_undo_that_would_lose_something_is_refused(clean, data):
    clean("photos/r.jsonl", "--out", "c.jsonl", "--quarantine", "removed")
    new = data / "broken.png"
    new.write_bytes(b"repaired")
    code, _, errors = clean("--undo", "c.removed.jsonl")
    assert code == 2 and "no image was moved" in errors and "broken.png exists" in errors
    assert new.read_bytes() == b"repaired" and not (data / "d.png").exists()
    new.unlink()
    shutil.rmtree("removed")
    code, _, errors = clean("--undo", "c.removed.jsonl")
    assert code == 2 and "neither in quarantine nor at their place" in errors
    write_records("c.jsonl", list(read_records("c.jsonl"))[:2])
    code, _, errors = clean("--undo", "c.removed.jsonl")
    assert code == 2 and "has changed since" in errors


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "RECORDS: missing"),
        (["photos/r.jsonl"], "--out: missing"),
        (["photos/r.jsonl", "--out", "photos/r.jsonl", "--overwrite"], "is an input file"),
        (["photos/r.jsonl", "--out", "c.jsonl", "--quarantine", "photos/out"], "the folder of the images"),
        (["photos/r.jsonl", "--out", "c.jsonl", "--against", "photos/r.jsonl"], "would lose all of its records"),
        (["photos/r.jsonl", "--out", "c.jsonl", "--images", "."], "none of the images is in ."),
        (["photos/r.jsonl", "--out", "c.jsonl", "--kinds", "brokn"], "no kind 'brokn' (did you mean 'broken'?)"),
        (["--undo", "gone.jsonl"], "gone.jsonl: no such file; pass the list"),
        (["--undo", "photos/r.jsonl"], "not a list that `emovit data clean` wrote"),
        (["photos/r.jsonl", "--undo", "x.jsonl"], "takes the list alone"),
    ],
)
def test_wrong_arguments(arguments, expected, clean, data):
    code, _, errors = clean(*arguments)
    assert code == 2 and expected in errors, errors
    assert not Path("c.jsonl").exists()


def test_a_list_is_not_lost(clean, data):
    clean("photos/r.jsonl", "--out", "c.jsonl")
    Path("c.jsonl").unlink()
    code, _, errors = clean("photos/r.jsonl", "--out", "c.jsonl")
    assert code == 2 and "c.removed.jsonl: already exists, and may be needed to undo" in errors


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x1c"])
def test_texts_may_contain_unusual_line_ends(clean, data, separator):
    records = [_record(name, caption=f"one{separator}two") for name in ("a", "broken", "b", "b2")]
    write_records(data / "r.jsonl", records)
    assert clean("photos/r.jsonl", "--out", "c.jsonl", "--quarantine", "removed")[0] == 0
    code, text, errors = clean("--undo", "c.removed.jsonl")
    assert code == 0 and "2 records put back" in text and "2 images moved back" in text, errors
    assert list(read_records("c.jsonl")) == records


@pytest.mark.parametrize("quarantine", ["removed", "removed/deep/er", "store/removed"])
@pytest.mark.parametrize("target", ["../store/{}.png", "./../store/{}.png", "inside/{}.png"])
def test_relative_links_are_moved_and_come_back(clean, data, quarantine, target):
    """As git-annex and linked splits have them: the images are elsewhere."""
    records = [_record("b")]
    for name in ("x", "y"):
        store = data / target.format(name)
        store.parent.mkdir(exist_ok=True)
        shutil.copy(data / "b.png", store)
        (data / f"{name}.png").symlink_to(target.format(name))
        records.append(_record(name))
    write_records(data / "r.jsonl", records)
    before = (data / "b.png").read_bytes()
    code, text, errors = clean("photos/r.jsonl", "--out", "c.jsonl", "--quarantine", quarantine)
    assert code == 0 and "moved: 2 images" in text, errors
    for name in ("x", "y"):
        assert not (data / f"{name}.png").is_symlink()
        assert (Path(quarantine) / f"{name}.png").read_bytes() == before
    code, text, errors = clean("--undo", "c.removed.jsonl")
    assert code == 0 and "2 images moved back" in text, errors
    for name in ("x", "y"):
        assert (data / f"{name}.png").is_symlink() and (data / f"{name}.png").read_bytes() == before
        assert not (Path(quarantine) / f"{name}.png").is_symlink()


def test_a_link_that_an_earlier_version_moved_comes_back(clean, data):
    """It moved a relative link as it was, so that it led nowhere."""
    Path("store").mkdir()
    shutil.copy(data / "b.png", "store/x.png")
    (data / "x.png").symlink_to("../store/x.png")
    write_records(data / "r.jsonl", [_record("b"), _record("x")])
    clean("photos/r.jsonl", "--out", "c.jsonl", "--quarantine", "removed/deep")
    Path("removed/deep/x.png").unlink()
    Path("removed/deep/x.png").symlink_to("../store/x.png")
    code, text, errors = clean("--undo", "c.removed.jsonl")
    assert code == 0 and "1 images moved back" in text, errors
    assert (data / "x.png").read_bytes() == (data / "b.png").read_bytes()


@pytest.mark.parametrize(
    "paths", [["x/bad.png", "y/bad.png"], ["x/./bad.png", "x/bad.png"], ["y//bad.png", "x/bad.png"]]
)
def test_an_image_of_two_paths_is_moved_once(clean, data, paths):
    (data / "x").mkdir()
    (data / "y").symlink_to("x")
    (data / "x" / "bad.png").write_bytes(b"no")
    write_records(data / "r.jsonl", [_record("a"), *(_record(str(n), image=path) for n, path in enumerate(paths))])
    for _ in range(2):
        code, text, errors = clean("photos/r.jsonl", "--out", "c.jsonl", "--quarantine", "removed", "--overwrite")
        assert code == 0 and "moved: 1 images to removed" in text, errors
        assert not (data / "x" / "bad.png").exists()
        code, text, errors = clean("--undo", "c.removed.jsonl")
        assert code == 0 and "2 records put back" in text and "1 images moved back" in text, errors
        assert (data / "x" / "bad.png").read_bytes() == b"no"


def _without(line, key):
    return json.dumps({name: value for name, value in json.loads(line).items() if name != key}).encode()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda lines: [lines[0], b"[1]"], "damaged: Input should be an object"),
        (lambda lines: [_without(lines[0], "out"), *lines[1:]], "damaged: out: Field required"),
        (lambda lines: [_without(lines[0], "num_records"), *lines[1:]], "damaged: num_records: Field required"),
        (lambda lines: [lines[0], _without(lines[1], "record")], "damaged: record: Field required"),
        (lambda lines: [lines[0], lines[1].replace(b'"s/broken"', b"5"), *lines[2:]], "c.removed.jsonl:2: key 'id'"),
        (
            lambda lines: [lines[0], lines[1].replace(b'"moved": "', b'"moved": "../'), *lines[2:]],
            "not the image of its",
        ),
        (lambda lines: [lines[0], *lines[2:]], "are not the 15 before"),
        (
            lambda lines: [lines[0], lines[1].replace(b'"place": 1', b'"place": 99'), *lines[2:]],
            "are not the 15 before",
        ),
        (lambda lines: [b"\xff\xfe"], "c.removed.jsonl:1: damaged: not UTF-8"),
        (lambda lines: [lines[0], b"\xff", *lines[2:]], "c.removed.jsonl:2: damaged: not UTF-8"),
    ],
)
def test_a_damaged_list_is_refused(clean, data, change, expected):
    clean("photos/r.jsonl", "--out", "c.jsonl", "--quarantine", "removed")
    images = sorted(Path("removed").iterdir())
    place = Path("c.removed.jsonl")
    place.write_bytes(b"\n".join(change(place.read_bytes().splitlines())))
    code, _, errors = clean("--undo", "c.removed.jsonl")
    assert code == 2 and expected in errors, errors
    assert sorted(Path("removed").iterdir()) == images
