"""The index.

- Loading returns what was written, and the hash does not depend on the folder.
- Any change of either file is refused; so are a missing file, another version and something that is not an index.
- An index of version 1 is still read, with its original hash.
- Shards that are missing or of another size are all named.
- A sample's shard and the selection by kind and label agree with the records.
- Columns keep their values; values that don't fit are refused.
- A million samples open in under a second, take under 200 bytes each, and are mapped, not copied, by every process
  (`tools/bench/shards.py` measures ten million).
"""

from __future__ import annotations

import base64
import json
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.errors import DataError
from lavis_emovit.shards.columns import COLUMN_TYPES, checksum, map_columns, write_columns
from lavis_emovit.shards.index import ShardIndex, ShardInfo, _content_hash
from lavis_emovit.shards.reader import ShardReader


def test_it_comes_back_from_disk(built, shards_copy):
    index = built[2]
    for path in (shards_copy, shards_copy / "index.json", str(shards_copy)):
        loaded = ShardIndex.load(path)
        assert loaded.hash == index.hash
        assert loaded.shards == index.shards
        assert loaded.label_histogram == index.label_histogram
        for name, column in index.columns.items():
            np.testing.assert_array_equal(loaded.columns[name], column)


def _edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["shards"][1].update(sha256="0" * 64), "changed after it was written"),
        (lambda c: c["build"].update(seed=9), "changed after it was written"),
        (lambda c: c.update(version=99), r"format emovit-shards 99, .* reads emovit-shards 1 and 2"),
        (lambda c: c.pop("shards"), "damaged: shards: Field required"),
        (lambda c: c.pop("hash"), "damaged: hash: Field required"),
        (lambda c: c["shards"][0]["columns"].update(label="00000000"), "changed after it was written"),
    ],
)
def test_a_changed_head_is_refused(shards_copy, change, expected):
    _edit(shards_copy / "index.json", change)
    with pytest.raises(DataError, match=rf"index.json: .*{expected}"):
        ShardIndex.load(shards_copy)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["shards"][0].update(num_samples=9), "damaged: column"),
        (lambda c: c["shards"][0].update(name="../secret.tar"), "'../secret.tar' is not a plain file name"),
        (
            lambda c: c["shards"][1]["columns"].update(label="00000000"),
            "column 'label' does not match shard shard-000001",
        ),
    ],
)
def test_a_head_with_a_new_hash_must_fit(shards_copy, change, expected):
    def sign(content):
        change(content)
        del content["hash"]
        content["hash"] = _content_hash(content)

    _edit(shards_copy / "index.json", sign)
    with pytest.raises(DataError, match=expected):
        ShardIndex.load(shards_copy)


def test_every_flipped_byte_of_the_columns_is_noticed(shards_copy):
    path = shards_copy / "index.safetensors"
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in [3, 20, *range(start, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(DataError, match=r"damaged|does not match shard"):
            ShardIndex.load(shards_copy)
    for size in (0, 5, start, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="damaged"):
            ShardIndex.load(shards_copy)
    path.unlink()
    with pytest.raises(DataError, match=r"index.safetensors: missing, but index.json needs it"):
        ShardIndex.load(shards_copy)


def test_version_1_is_still_read(built, shards_copy):
    """Version 1 has the columns in index.json, each shard's in the smallest type that fits."""

    def encoded(column):
        low, high = (int(column.min()), int(column.max())) if len(column) else (0, 0)
        kinds = ("<i1", "<i2", "<i4", "<i8") if low < 0 else ("<u1", "<u2", "<u4", "<u8")
        kind = next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max)
        return f"{kind}:{base64.b64encode(column.astype(kind).tobytes()).decode()}"

    index = built[2]
    content = json.loads((shards_copy / "index.json").read_text())
    del content["hash"]
    content["version"] = 1
    for item, (_, columns) in zip(content["shards"], index.parts()):
        item["columns"] = {name: encoded(column) for name, column in columns.items()}
    content["hash"] = _content_hash(content)
    (shards_copy / "index.json").write_text(json.dumps(content))
    (shards_copy / "index.safetensors").unlink()
    old = ShardIndex.load(shards_copy)
    assert old.hash == content["hash"]
    for name, column in index.columns.items():
        np.testing.assert_array_equal(old.columns[name], column)
    assert ShardReader(old).read(22).record == ShardReader(index).read(22).record


def test_something_else_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no shard index.*emovit shards build"):
        ShardIndex.load(tmp_path)
    (tmp_path / "index.json").write_text("[]")
    with pytest.raises(DataError, match="damaged"):
        ShardIndex.load(tmp_path)
    (tmp_path / "index.json").write_text('{"format"')
    with pytest.raises(DataError, match="damaged"):
        ShardIndex.load(tmp_path)


def test_missing_and_truncated_shards_are_all_named(shards_copy):
    (shards_copy / "shard-000000.tar").unlink()
    with (shards_copy / "shard-000002.tar").open("r+b") as file:
        file.truncate(1024)
    with pytest.raises(DataError, match=r"shard-000000.tar is missing; shard-000002.tar has 1024 bytes"):
        ShardIndex.load(shards_copy).check_files()


def test_samples_find_their_shard(built):
    index = built[2]
    assert [index.shard_of(sample) for sample in (0, 9, 10, 19, 20, 22)] == [0, 0, 1, 1, 2, 2]
    assert index.key_of(12) == "shard-000001.tar, sample 2"
    for sample in (-1, 23):
        with pytest.raises(IndexError):
            index.shard_of(sample)


def test_selection_agrees_with_the_records(built):
    index = built[2]
    records = [ShardReader(index).read(sample).record for sample in range(23)]
    for kinds in (["conversation"], ["reasoning", "explanation"], ["description"], None):
        expected = [
            number
            for number, record in enumerate(records)
            if any(kinds is None or item.kind in kinds for item in record.instructions)
        ]
        assert list(index.samples_with(kinds=kinds)) == expected
    assert list(index.samples_with(labelled=True)) == list(range(23))


@given(st.sampled_from(sorted(COLUMN_TYPES)), st.data())
def test_columns_keep_their_values(tmp_path_factory, name, data):
    limits = np.iinfo(COLUMN_TYPES[name])
    values = data.draw(st.lists(st.integers(limits.min, limits.max), max_size=20))
    path = tmp_path_factory.mktemp("columns") / "index.safetensors"
    columns = {other: np.zeros(len(values), kind) for other, kind in COLUMN_TYPES.items()}
    write_columns(path, columns | {name: np.array(values, COLUMN_TYPES[name])})
    mapped = map_columns(path)
    assert mapped[name].tolist() == values
    assert checksum(mapped[name]) == checksum(np.array(values, COLUMN_TYPES[name]))
    assert not len(values) or not mapped[name].flags.writeable


def test_values_that_do_not_fit_are_refused(built):
    index = built[2]
    columns = dict(index.columns) | {"image_bytes": np.full(23, 2**32)}
    with pytest.raises(ValueError, match=r"column 'image_bytes' has values from 4294967296 to 4294967296"):
        ShardIndex("x", index.shards, columns, labels=(), kinds=(), label_sets=(), build={})


def _private_bytes():
    """Memory of this process that it shares with no other one."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) * 1024


def test_a_million_samples_open_at_once(tmp_path):
    per_shard, num_shards = 10_000, 100
    shards = [ShardInfo(f"shard-{n:06d}.tar", per_shard, per_shard, 10**9, "0" * 64, {}) for n in range(num_shards)]
    total = per_shard * num_shards
    columns = {name: np.resize(np.arange(100, dtype=kind), total) for name, kind in COLUMN_TYPES.items()}
    columns |= {"num_pairs": np.ones(total, np.uint32), "label": np.zeros(total, np.int32)}
    ShardIndex(tmp_path, shards, columns, labels=["awe"], kinds=["categorical"], label_sets=[], build={}).save()
    del columns
    start, before = time.process_time(), _private_bytes()
    loaded = ShardIndex.load(tmp_path)
    assert time.process_time() - start < 1
    assert sum(column.nbytes for column in loaded.columns.values()) < 200 * total
    assert loaded.shard_of(total - 1) == num_shards - 1
    # Another process receives the path, not the columns, and maps the same file.
    state = pickle.dumps(loaded)
    assert len(state) < 400 * num_shards
    again = pickle.loads(state)
    assert int(again.columns["image_bytes"][total - 1]) == 99
    assert _private_bytes() - before < 8e6
