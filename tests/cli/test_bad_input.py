"""Common mistakes with records and shards, as the commands report them: exit code 2, file or option, remedy.

- All bad lines of a records file, all splits with bad images and all broken indexes are reported at once.
- A missing folder, a file in place of a folder, an empty records file and wrong shares are named.
- Parts that cannot be merged are reported with the command that repairs it.
"""

from __future__ import annotations

import json
import shutil

import pytest

from lavis_emovit.records import write_records


@pytest.fixture
def refused(emovit):
    """Function (arguments) -> the errors of a refused command, without a traceback."""

    def run(*arguments):
        code, _, errors = emovit(*arguments)
        assert code == 2 and "Traceback" not in errors
        return " ".join(errors.split())

    return run


@pytest.fixture
def records(tmp_path, make_records):
    """A records file with 12 records in three splits, images beside it."""
    found = [
        record.model_copy(update={"split": ("train", "val", "test")[number % 3]})
        for number, record in enumerate(make_records(tmp_path, 12))
    ]
    write_records(tmp_path / "records.jsonl", found)
    return tmp_path / "records.jsonl"


def test_all_bad_lines_are_reported_at_once(records, refused):
    lines = records.read_text().splitlines()
    bad = ["{", lines[0], '{"id": "x"}', *["[]"] * 30]
    records.write_text("\n".join([*lines[:5], *bad, *lines[5:]]))
    text = refused("data", "stats", records)
    assert "33 lines cannot be used" in text and "... and 13 more" in text
    for expected in (
        ":6: not one JSON object",
        ":7: id 'tiny/amusement_00000' is already used in line 1",
        ":8: key 'image'",
    ):
        assert f"{records}{expected}" in text
    records.write_text("\n".join([*lines, "{"]))
    assert f"error: {records}:13: not one JSON object" in refused("shards", "build", records, "--out", "nowhere")


@pytest.mark.parametrize(
    "command", [("stats", "{}"), ("verify", "{}"), ("split", "{}", "--out", "{}.new"), ("preview", "{}")]
)
def test_empty_records_are_refused(tmp_path, refused, command):
    (tmp_path / "empty.jsonl").write_text("\n")
    arguments = [part.format(tmp_path / "empty.jsonl") for part in command]
    assert f"{tmp_path / 'empty.jsonl'}: contains no records" in refused("data", *arguments)


def test_wrong_shares_are_reported_with_their_option(records, refused, tmp_path):
    for shares, expected in (
        ("train=2", "'train=2' is not SPLIT=SHARE with a share from 0 to 1"),
        ("train=0.5,train=0.5", "split 'train' has two shares"),
        ("train=0.5,test=0.4", "those of 'train=0.5,test=0.4' sum to 0.9"),
        ("train=nan,test=1", "'train=nan' is not SPLIT=SHARE"),
    ):
        text = refused("data", "split", records, "--out", tmp_path / "new.jsonl", "--fractions", shares)
        assert "--fractions" in text and expected in text
    text = refused("data", "import", "folder", tmp_path, "--split-seed", 1, "--fractions", "train=2")
    assert "--fractions" in text


def test_impossible_folders(records, refused, tmp_path):
    out = tmp_path / "out"
    text = refused("shards", "build", records, "--out", out, "--images", tmp_path / "nosuch")
    assert text == (
        f"error: --images {tmp_path / 'nosuch'}: no such folder; pass the folder that the records' image paths start in"
    )
    (tmp_path / "empty").mkdir()
    text = refused("shards", "build", records, "--out", out, "--images", tmp_path / "empty", "--split", "val")
    assert f"{tmp_path / 'empty'}: contains none of the 4 images (image/" in text and len(text) < 400
    assert refused("shards", "verify", tmp_path / "nosuch") == f"error: {tmp_path / 'nosuch'}: no such folder"
    for place in (records, records / "below"):
        text = refused("shards", "build", records, "--out", place)
        assert f"cannot be a folder for shards, because {records} is a file; use another `--out`" in text
    text = refused("data", "split", records, "--out", records / "new.jsonl")
    assert f"{records} is a file, not a folder" in text
    assert records.stat().st_size > 1000


def test_every_split_is_built_and_reported(records, emovit, tmp_path):
    from lavis_emovit.records import read_records

    found = {record.split: record for record in read_records(records)}
    for split in ("train", "test"):
        (tmp_path / found[split].image).write_bytes(b"<html>")
    code, output, errors = emovit("shards", "build", records, "--out", tmp_path / "out")
    assert code == 2
    for split in ("train", "test"):
        assert f"split '{split}': " in errors and found[split].id in errors
    assert errors.count("1 of 4 images cannot be used") == 2
    assert "val: 4 samples" in output and (tmp_path / "out/val/index.json").is_file()


def test_every_index_is_verified(records, emovit, tmp_path):
    assert emovit("shards", "build", records, "--out", tmp_path / "out")[0] == 0
    (tmp_path / "out/test/index.safetensors").unlink()
    (tmp_path / "out/train/index.json").unlink()
    (tmp_path / "out/val/index.json").write_text("{}")
    shutil.copytree(tmp_path / "out/val", tmp_path / "out/zz")
    code, output, errors = emovit("shards", "verify", tmp_path / "out")
    assert code == 2
    assert f"{tmp_path / 'out/test/index.safetensors'}: missing, but index.json needs it" in errors
    assert f"{tmp_path / 'out/train'}: has shards but no index.json, so their build is unfinished" in errors
    assert f"{tmp_path / 'out/val/index.json'}: damaged" in errors
    assert f"{tmp_path / 'out/zz/index.json'}: damaged" in errors
    assert output.count("its index cannot be used") == 3


def test_parts_that_cannot_be_merged(records, emovit, refused, tmp_path):
    out = tmp_path / "out"
    build = ("shards", "build", records, "--split", "train", "--samples-per-shard", 2, "--out", out)
    for part in ("1/3", "3/3"):
        assert emovit(*build, "--part", part)[0] == 0
    assert f"{out}: missing parts: 2/3. Build with `--part 2/3`" in refused("shards", "merge", out)
    (out / "part-0002-of-0003").mkdir()
    text = refused("shards", "merge", out)
    assert (
        f"{out / 'part-0002-of-0003'}: no index.json, so the build of this part is unfinished" in text
        and "resumes" in text
    )
    assert emovit(*build[:-1], tmp_path / "whole")[0] == 0
    text = refused("shards", "merge", tmp_path / "merged", out / "part-0001-of-0003", tmp_path / "whole")
    assert f"{tmp_path / 'whole'}: a complete set, not a part" in text
    text = refused("shards", "merge", tmp_path / "merged", *[out / "part-0001-of-0003"] * 2)
    assert "part 1/3, the same as" in text and "Pass one of them" in text
    assert emovit(*build, "--part", "2/3")[0] == 0
    (out / "part-0003-of-0003/shard-000002.tar").unlink(missing_ok=True)
    missing = next(path for path in out.glob("part-*/shard-*.tar"))
    missing.unlink()
    text = refused("shards", "merge", out)
    assert "the shard is missing. Restore it from a backup, or build this part again with `--overwrite`" in text
    assert json.loads((out / "part-0002-of-0003/index.json").read_text())["build"]["part"]["count"] == 3
