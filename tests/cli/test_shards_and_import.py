"""`emovit shards` and `emovit data import`.

- Import, build, verify and stats lead from a published dataset to sound shards, with one command each.
- Printed counts agree with the data.
- `--fold` tests one published fold, with the splits of a recipe; a wrong fold is an error with those that exist.
- Damage and wrong arguments raise the errors that the command prints.
"""

from __future__ import annotations

import json
import os
import shlex

import pytest
import typer
from omegaconf import OmegaConf
from typer.testing import CliRunner

from lavis_emovit.cli.data_import import import_dataset
from lavis_emovit.cli.shards import app as shards_app
from lavis_emovit.datasets.settings import PrepareSettings
from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.records import read_records, to_conversations, write_records
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.sources.catalogue import find_entry
from lavis_emovit.sources.layouts import open_dataset

import_app = typer.Typer()
import_app.command()(import_dataset)


def _run(app, *arguments):
    result = CliRunner().invoke(app, [str(item) for item in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def table(tmp_path, make_records):
    """A folder with a table of 16 images, two per person."""
    root = tmp_path / "faces"
    rows = ["file,feeling,person"]
    rows += [f"{r.image},{r.emotion},{n // 2}" for n, r in enumerate(make_records(root, 16))]
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def _records_of(root):
    return root.parent / "records" / "faces.jsonl"


def _import(root, *more):
    columns = ["--column", "image=file", "--column", "emotion=feeling", "--column", "group=person"]
    return _run(
        import_app, "table", root / "labels.csv", *columns, "--label-set", "mikels8", "--out", _records_of(root), *more
    )


def test_from_a_table_to_sound_shards(table, tmp_path):
    output = _import(table, "--split-seed", 1, "--fractions", "train=0.5,val=0.25,test=0.25", "--name", "faces")
    assert "16 records in" in output and "test 4, train 8, val 4" in output
    records = list(read_records(_records_of(table)))
    assert all(record.instructions[0].kind == "categorical" for record in records)
    output = _run(shards_app, "build", _records_of(table), "--out", tmp_path / "out", "--samples-per-shard", 3)
    assert "train: 8 samples in 3 shards" in output
    assert ShardIndex.load(tmp_path / "out" / "test").num_samples == 4
    output = _run(shards_app, "verify", tmp_path / "out")
    assert output.count(", sound\n") == 3
    output = _run(shards_app, "stats", tmp_path / "out" / "train")
    assert "8 in 3 shards" in output and "mikels8" in output and "categorical" in output


def test_one_split_is_written_directly_into_the_folder(table, tmp_path):
    _import(table, "--no-categorical")
    _run(shards_app, "build", _records_of(table), "--out", tmp_path / "out", "--split", "train")
    index = ShardIndex.load(tmp_path / "out")
    assert (index.num_samples, index.num_pairs) == (16, 0)
    with pytest.raises(DataError, match=r"no record is in split 'trian' \(did you mean 'train'"):
        _run(shards_app, "build", _records_of(table), "--out", tmp_path / "x", "--split", "trian")
    with pytest.raises(DataError, match="already contains finished shards"):
        _run(shards_app, "build", _records_of(table), "--out", tmp_path / "out", "--split", "train")


def test_bad_images_stop_the_build_or_are_skipped(table, tmp_path):
    _import(table)
    records = list(read_records(_records_of(table)))
    (table / records[3].image).write_bytes(b"<html>")
    build = ["build", _records_of(table), "--out", tmp_path / "out", "--split", "train"]
    with pytest.raises(DataError, match="1 of 16 images cannot be used"):
        _run(shards_app, *build)
    assert "1 images skipped" in _run(shards_app, *build, "--skip-bad")
    assert f"skipped     {records[3].id}" in _run(shards_app, "stats", tmp_path / "out")


def test_a_build_with_a_bad_image_goes_on_with_skip_bad(table, tmp_path):
    _import(table, "--split-seed", 1, "--fractions", "train=0.5,val=0.25,test=0.25")
    path = _records_of(table)
    records = list(read_records(path))
    bad = next(record for record in records if record.split == "val")
    sound = (table / bad.image).read_bytes()
    (table / bad.image).write_bytes(b"<html>")
    build = ["build", path, "--out", tmp_path / "out", "--samples-per-shard", 3]
    with pytest.raises(DataError, match=r"split 'val': .*1 of 4 images cannot be used"):
        _run(shards_app, *build)
    hashes = {name: ShardIndex.load(tmp_path / "out" / name).hash for name in ("train", "test")}
    output = _run(shards_app, *build, "--skip-bad")
    assert output.count("already finished") == 2 and "val: 3 samples" in output
    assert {name: ShardIndex.load(tmp_path / "out" / name).hash for name in hashes} == hashes
    # Other settings, other records or a newer image need another build.
    (tmp_path / "out" / "val" / "index.json").unlink()
    with pytest.raises(DataError, match="already contains finished shards"):
        _run(shards_app, *build, "--skip-bad", "--seed", 7)
    (table / bad.image).write_bytes(sound)
    (tmp_path / "out" / "val" / "index.json").unlink()
    train = next(record for record in records if record.split == "train")
    os.utime(table / train.image)
    with pytest.raises(DataError, match=r"split 'train': .*already contains finished shards"):
        _run(shards_app, *build)
    assert ShardIndex.load(tmp_path / "out" / "val").num_samples == 4


@pytest.mark.parametrize("parts", [[], ["--part", "1/1"]])
def test_splits_of_an_earlier_build_do_not_stay(table, tmp_path, parts):
    def resplit(seed, fractions):
        _import(table, "--split-seed", seed, "--fractions", fractions, "--name", "faces", "--overwrite")

    def build(*more):
        return _run(shards_app, "build", _records_of(table), "--out", tmp_path / "out", *parts, *more)

    def ids():
        readers = [ShardReader(ShardIndex.load(path.parent)) for path in (tmp_path / "out").rglob("index.json")]
        return sorted(reader.read(number).record.id for reader in readers for number in range(len(reader)))

    resplit(1, "train=0.5,val=0.5")
    build()
    resplit(2, "train=0.5,test=0.5")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"out/val.*: contains finished shards of records that are in other splits of"):
        build()
    assert len(ids()) == 16 and not (tmp_path / "out" / "test").exists()
    (tmp_path / "out" / "README.md").write_text("a card of the earlier splits")
    shown = build("--overwrite")
    assert f"removed {tmp_path / 'out' / 'val'}" in shown
    assert f"README.md describes the earlier shards: run `emovit shards card {tmp_path / 'out'} --overwrite`" in shown
    (tmp_path / "out" / "README.md").unlink()
    assert len(set(ids())) == len(ids()) == 16 and (tmp_path / "out" / "notes.txt").exists()
    # Splits of other records stay: a set may be built from one file for each split.
    others = [record for record in read_records(_records_of(table)) if record.split == "test"]
    moved = [record.model_copy(update={"split": "more", "id": f"new/{record.id}"}) for record in others]
    write_records(_records_of(table), moved)
    assert "removed" not in build("--overwrite") and len(ids()) == 16 + len(moved)


def test_damage_is_reported(table, tmp_path):
    _import(table)
    _run(shards_app, "build", _records_of(table), "--out", tmp_path / "out")
    path = tmp_path / "out" / "train" / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"shard-000000.tar: changed after the index was written"):
        _run(shards_app, "verify", tmp_path / "out")
    for command in ("verify", "stats"):
        with pytest.raises(DataError, match=r"no index.json in it or in its folders"):
            _run(shards_app, command, table)


def test_exported_conversations_are_imported_again(table, tmp_path):
    _import(table, "--name", "faces")
    records = list(read_records(_records_of(table)))
    (tmp_path / "train.json").write_text(json.dumps(to_conversations(records)))
    output = _run(
        import_app, "conversations", tmp_path / "train.json", "--name", "again", "--label-set", "mikels8",
        "--out", tmp_path / "again.jsonl",
    )  # fmt: skip
    assert "16 records" in output
    again = list(read_records(tmp_path / "again.jsonl"))
    assert [record.instructions for record in again] == [record.instructions for record in records]
    assert [record.emotion for record in again] == [record.emotion for record in records]
    for text, expected in (("{", "not JSON"), ("{}", "expected a list"), (None, "cannot be read")):
        (tmp_path / "bad.json").write_text(text) if text else (tmp_path / "bad.json").unlink()
        with pytest.raises(DataError, match=rf"bad.json: {expected}"):
            _run(import_app, "conversations", tmp_path / "bad.json")


@pytest.mark.parametrize("delimiter", ["|", "\t", ";"])
def test_the_advice_for_a_wrong_delimiter_can_be_followed(table, tmp_path, delimiter):
    path = table / "labels.csv"
    path.write_text(path.read_text().replace(",", delimiter))
    with pytest.raises(DataError, match="no column 'file'") as caught:
        _import(table, "--set", "delimiter=,")
    advice = str(caught.value).partition("With `")[2].partition("`")[0]
    assert "16 records" in _import(table, *shlex.split(advice))
    assert "16 records" in _import(table, "--set", f"delimiter={delimiter}", "--overwrite")


@pytest.mark.parametrize("quote", ["|", "'", "#", '"'])
def test_a_quote_can_be_set_as_one_character(table, quote):
    path = table / "labels.csv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *(f"{quote}{row.replace(',', f'{quote},', 1)}" for row in rows)]))
    assert "16 records" in _import(table, "--set", f"quote={quote}")


@pytest.fixture
def dfew(tmp_path):
    """DFEW with three clips in each fold, as published; clip n is tested in fold `(n - 1) % 5 + 1`."""
    root = tmp_path / "dfew"
    for fold in range(1, 6):
        table = root / "EmoLabel_DataSplit" / "test(single-labeled)" / f"set_{fold}.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("video_name,label\n" + "".join(f"{fold + 5 * row},1\n" for row in range(3)))
    for name in range(1, 16):
        frame = root / "Clip" / "jpg_256" / f"{name:05d}" / f"{name:05d}_00001.jpg"
        frame.parent.mkdir(parents=True)
        frame.write_bytes(b"not opened by an import")
    return root


def test_a_published_fold_is_tested(dfew, tmp_path):
    splits = {}
    for fold, options in ((1, ()), (4, ("--fold", 4))):
        out = tmp_path / f"{fold}.jsonl"
        _run(import_app, "dfew", dfew, "--out", out, *options)
        splits[fold] = {record.id: record.split for record in read_records(out)}
        assert [one for one, split in splits[fold].items() if split == "test"] == [
            f"dfew/{fold + 5 * row:05d}" for row in range(3)
        ]
    # As a recipe with the same test_fold splits them, with its hold-out of train.
    recipe = OmegaConf.load(find_entry("dfew").path)
    OmegaConf.update(recipe, "datasets.dfew.build_info.prepare.test_fold", 4)
    declared = PrepareSettings.model_validate(
        OmegaConf.to_container(recipe, resolve=True)["datasets"]["dfew"]["build_info"]["prepare"]
    )
    reader = open_dataset(dfew, declared, source="dfew", extract_to=tmp_path)
    assert {one.id: one.split for one in declared.resplit(list(reader.read()), dfew)} == splits[4]
    assert sorted(splits[4].values()) == ["test"] * 3 + ["train"] * 11 + ["val"]
    out = tmp_path / "wrong.jsonl"
    with pytest.raises(DataError, match=r"no record is in fold 0; the folds are 1, 2, 3, 4, 5 \("):
        _run(import_app, "dfew", dfew, "--out", out, "--fold", 0)
    with pytest.raises(
        ConfigError, match=r"'emoset' has no published folds; those that have them are c_expr_db, dfew, mafw$"
    ):
        _run(import_app, "emoset", dfew, "--out", out, "--fold", 1)
    for option in (("--split-seed", 1), ("--own-splits",)):
        with pytest.raises(ConfigError, match=f"{option[0]} .*: use only one"):
            _run(import_app, "dfew", dfew, "--out", out, "--fold", 1, *option)
    assert not out.exists()


def test_wrong_arguments_are_named(table):
    with pytest.raises(ConfigError, match=r"--column.imag: unknown key \(did you mean 'image'"):
        _run(import_app, "table", table / "labels.csv", "--column", "imag=file")
    with pytest.raises(ConfigError, match="'emotion' is not FIELD=COLUMN"):
        _run(import_app, "table", table / "labels.csv", "--column", "emotion")
    with pytest.raises(ConfigError, match="'train' is not SPLIT=SHARE"):
        _import(table, "--split-seed", 1, "--fractions", "train")
    with pytest.raises(ConfigError, match="sum to 1, those of"):
        _import(table, "--split-seed", 1, "--fractions", "train=0.5,test=0.1")
    with pytest.raises(DataError, match="no such folder"):
        _run(import_app, "emoset", table / "gone")
    assert not (table / "gone").exists()
