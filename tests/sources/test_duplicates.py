"""Duplicates removed, and kept in one split.

- Of exact and near duplicates one stays: that of test before val before other splits before train, else the first in
  the file, whatever the order of the splits; only images that duplicate a remaining one are removed.
- All records of a removed image are removed, those of a remaining one stay; images of another file stay.
- Afterwards `check_records` finds neither duplicates nor leaks of images.
- Groups are joined over duplicates, also in a chain, and new splits never divide joined groups; without duplicates the
  draw is the same as without the comparison.
- Different labels of duplicates are named; images that cannot be read stay and are counted.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter

import pytest
from PIL import Image

from lavis_emovit.cli.main import main
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, image_root_of, read_records, write_records
from lavis_emovit.sources import checks
from lavis_emovit.sources.checks import CheckedFile, ImageFacts, check_records
from lavis_emovit.sources.cleaning import clean_records
from lavis_emovit.sources.duplicates import find_removals, join_groups, open_images
from lavis_emovit.sources.splits import split_by_group


def _record(name, split="train", emotion="awe", image=None, **fields):
    image = image or f"{name}.png"
    return EmotionRecord(
        id=f"s/{name}", image=image, split=split, source="s", emotion=emotion, label_set="mikels8", **fields
    )


@pytest.fixture
def root(tmp_path):
    """Different images a to e; `a2` has a's bytes, `b2` is a smaller b and `c2` a compressed c."""
    for number, name in enumerate("abcde"):
        rng = random.Random(number)
        tiles = [(rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in range(36)]
        image = Image.new("RGB", (6, 6))
        image.putdata(tiles)
        image.resize((192, 192), Image.Resampling.BICUBIC).save(tmp_path / f"{name}.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "a2.png")
    Image.open(tmp_path / "b.png").resize((96, 96)).save(tmp_path / "b2.png")
    Image.open(tmp_path / "c.png").save(tmp_path / "c2.jpg", quality=60)
    return tmp_path


def _removed(records, root, *others, near_bits=2):
    """(removed ids, reason -> images, conflicts, unread images)."""
    files = [CheckedFile("one", records, root), *(CheckedFile(name, found, root) for name, found in others)]
    facts = open_images(files, 1, lambda done, total: None)
    removals = find_removals(files, facts, near_bits)
    num_unread = clean_records(files, facts, ("duplicates", "leaks"), near_bits).num_unread
    ids = {name for removal in removals for name in removal.use.ids}
    kept = [record for record in records if record.id not in ids]
    report = check_records([CheckedFile("one", kept, root), *files[1:]], near_bits=near_bits)
    assert report.exact == report.near == report.leaks == []
    reasons = Counter(removal.reason for removal in removals)
    return ids, reasons, [r.conflict for r in removals if r.conflict], num_unread


def test_one_of_every_duplicate_stays(root):
    records = [
        _record("a2", emotion="fear"), _record("a", emotion="awe"), _record("b"), _record("b2", "test"),
        _record("c", "val"), _record("c2", "more", image="c2.jpg"), _record("d"), _record("e", "test"),
    ]  # fmt: skip
    ids, reasons, conflicts, _ = _removed(records, root)
    # The first of a and a2 in the file; b2 is in the test split, c in val.
    assert ids == {"s/a", "s/b", "s/c2"}
    assert reasons == {
        "exact duplicate of an image in the same split": 1,
        "near duplicate of an image in another split": 2,
    }
    assert conflicts == ["s/a2 (train) is fear; s/a (train) is awe"]
    assert _removed(records, root, near_bits=None)[0] == {"s/a"}
    by_split = [r.model_copy(update={"split": "more" if r.id == "s/a" else r.split}) for r in records]
    assert _removed(by_split, root)[0] == {"s/a2", "s/b", "s/c2"}
    assert _removed(records[2:], root, ("two", [_record("a"), _record("x", image="d.png")]))[0] == {
        "s/b", "s/c2", "s/d",
    }  # fmt: skip


def test_records_of_one_image_stay_together(root):
    people = [_record("a"), _record("a#1", image="a.png"), _record("a2"), _record("a2#1", image="a2.png")]
    assert _removed(people, root)[0] == {"s/a2", "s/a2#1"}
    # One file in two splits is a leak.
    ids, reasons, _, _ = _removed([_record("a"), _record("a#1", "test", image="a.png")], root)
    assert ids == {"s/a"} and reasons == {"exact duplicate of an image in another split": 1}


def test_only_images_like_a_remaining_one_are_removed(root, monkeypatch):
    """b is like a and like c, which are not alike: if a stays, so does c; if b stays, both are removed."""
    hashes = {"a.png": 0b0000, "b.png": 0b0011, "c.png": 0b1111}
    monkeypatch.setattr(
        checks, "check_file", lambda path: ImageFacts(path, sha256=path.encode(), phash=hashes[path[-5:]])
    )
    assert _removed([_record("a"), _record("b"), _record("c")], root)[0] == {"s/b"}
    assert _removed([_record("a"), _record("b", "test"), _record("c")], root)[0] == {"s/a", "s/c"}
    file = CheckedFile("one", [_record("a"), _record("b"), _record("c")], root)
    joined, _ = join_groups(file, 2, 1, lambda done, total: None)
    assert set(joined.values()) == {"record s/a"}


def test_unread_images_stay_and_are_counted(root):
    (root / "e.png").write_bytes(b"<html>")
    (root / "a2.png").unlink()
    ids, _, _, num_unread = _removed([_record(name) for name in ("a", "a2", "e")], root)
    assert ids == set() and num_unread == 2
    with pytest.raises(DataError, match=r"none of the images is in .*; pass the folder of the image paths"):
        _removed([_record("gone")], root)


def test_the_command_writes_what_stays_and_accounts_for_the_rest(root, tmp_path, capsys):
    path, out = tmp_path / "r.jsonl", tmp_path / "far" / "clean.jsonl"
    write_records(
        path, [_record("a"), _record("a2", "test", emotion="fear"), _record("b"), _record("b2"), _record("d")]
    )
    write_records(tmp_path / "other.jsonl", [_record("x", image="d.png")])
    assert main(["data", "dedupe", str(path), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert f"3 of 5 records in {out}" in text
    assert "removed: 1, exact duplicate of an image in another split" in text
    assert "different labels, the first of which stay: 1\n  - s/a2 (test) is fear; s/a (train) is awe" in text
    assert [record.id for record in read_records(out)] == ["s/a2", "s/b", "s/d"]
    assert image_root_of(out) == tmp_path
    summary = json.loads(out.with_suffix(".summary.json").read_text())
    assert summary["records"] == 3 and sum(summary["removed"].values()) == 2
    assert {"id": "s/a", "kept": "s/a2", "reason": "exact duplicate of an image in another split"} in summary[
        "removed_records"
    ]
    assert main(["data", "verify", str(out), "--strict"]) == 0

    more = ["--overwrite", "--near", "-1", "--against", str(tmp_path / "other.jsonl")]
    assert main(["data", "dedupe", str(path), "--out", str(out), *more]) == 0
    assert [record.id for record in read_records(out)] == ["s/a2", "s/b", "s/b2"]
    for arguments, expected in (
        (["--out", str(path), "--overwrite"], "is an input file"),
        (["--out", str(out)], "already exists"),
        (["--out", str(tmp_path / "n.jsonl"), "--against", str(path)], "would lose all of its records to itself"),
    ):
        capsys.readouterr()
        assert main(["data", "dedupe", str(path), *arguments]) == 2
        assert expected in capsys.readouterr().err


def test_new_splits_keep_duplicates_together(root, tmp_path, capsys):
    for number in range(20):
        name = "abcde"[number % 5]
        Image.open(root / f"{name}.png").save(root / f"n{number}.jpg", quality=60 + number)
    records = [_record(f"n{number}", image=f"n{number}.jpg") for number in range(20)]
    path, out = tmp_path / "r.jsonl", tmp_path / "s.jsonl"
    write_records(path, records)
    split = ["data", "split", str(path), "--out", str(out), "--fractions", "train=0.6,test=0.4", "--overwrite"]
    assert main([*split, "--near", "2"]) == 0
    assert "15 records or groups joined to another one" in capsys.readouterr().out
    files = [CheckedFile("one", list(read_records(out)), root)]
    assert check_records(files).leaks == []
    assert Counter(record.split for record in files[0].records) == {"train": 12, "test": 8}
    assert main(split) == 0
    assert check_records([CheckedFile("one", list(read_records(out)), root)]).leaks != []
    assert main([*split, "--near", "-1"]) == 0  # all files differ in their bytes
    exact = list(read_records(out))
    assert exact == list(split_by_group(records, {"train": 0.6, "test": 0.4}, 0, stratify=True))
    # A person with duplicates of another person's images: both are in one split.
    people = [r.model_copy(update={"group": f"p{number // 2}"}) for number, r in enumerate(records)]
    joined, _ = join_groups(CheckedFile("one", people, root), 2, 1, lambda done, total: None)
    assert set(joined.values()) == {"group p0"}
    # A person written in two forms of Unicode joins the duplicates of both.
    written = {0: "Jos\u00e9", 1: "Jose\u0301"}
    two = [record.model_copy(update={"group": written.get(place)}) for place, record in enumerate(records[:5])]
    joined, _ = join_groups(CheckedFile("one", two, root), 2, 1, lambda done, total: None)
    assert joined["group Jos\u00e9"] == joined["group Jose\u0301"] and len(set(joined.values())) == 4
    (root / "n3.jpg").unlink()
    capsys.readouterr()
    assert main([*split, "--near", "2"]) == 0
    assert "note: 1 images cannot be read, so they were not compared" in capsys.readouterr().out
