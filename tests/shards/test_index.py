"""The index.

- It comes back from disk as it was written, and its hash does not depend on where it lies.
- Any change of the file is refused; so are a missing one, another version and something that is no index.
- Shards that are missing or of another size are all named.
- A sample's shard and its selection by kind and label agree with the records.
- Columns keep their values at every width, and ten million samples open in seconds.
"""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.errors import DataError
from lavis_emovit.shards.index import SAMPLE_COLUMNS, ShardIndex, ShardInfo, _decode, _encode
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
        (lambda c: c.update(version=99), "format emovit-shards 99"),
        (lambda c: c.pop("shards"), "not a shard index .KeyError"),
        (lambda c: c["shards"][0]["columns"].update(label="<u1:AA=="), "not a shard index .ValueError"),
        (lambda c: c["shards"][0]["columns"].update(label="no base64"), "not a shard index"),
        (lambda c: c["shards"][0].update(num_samples=9), "not a shard index .ValueError"),
    ],
)
def test_a_changed_index_is_refused(shards_copy, change, expected):
    _edit(shards_copy / "index.json", change)
    with pytest.raises(DataError, match=rf"index.json: .*{expected}"):
        ShardIndex.load(shards_copy)


def test_something_else_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no shard index there.*emovit shards build"):
        ShardIndex.load(tmp_path)
    (tmp_path / "index.json").write_text("[]")
    with pytest.raises(DataError, match="not a shard index"):
        ShardIndex.load(tmp_path)
    (tmp_path / "index.json").write_text('{"format"')
    with pytest.raises(DataError, match="not a shard index"):
        ShardIndex.load(tmp_path)


def test_missing_and_cut_shards_are_all_named(shards_copy):
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


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_columns_keep_their_values(values):
    column = np.array(values, dtype=np.int64)
    np.testing.assert_array_equal(_decode(_encode(column)), column)
    assert _encode(column) == _encode(_decode(_encode(column)))


@pytest.mark.slow
def test_ten_million_samples_open_in_seconds(tmp_path):
    per_shard, num_shards = 10_000, 1000
    shards = [ShardInfo(f"shard-{n:06d}.tar", per_shard, per_shard, 10**9, "0" * 64, {}) for n in range(num_shards)]
    total = per_shard * num_shards
    columns = {name: np.arange(total, dtype=np.int64) % 30_000 for name in SAMPLE_COLUMNS}
    columns |= {"num_pairs": np.ones(total, np.int64), "label": np.zeros(total, np.int64)}
    columns |= {"pair_kind": np.zeros(total, np.int64), "pair_chars": np.full(total, 200)}
    index = ShardIndex(tmp_path, shards, columns, labels=["awe"], kinds=["categorical"], label_sets=[], build={})
    index.save()
    start = time.process_time()
    loaded = ShardIndex.load(tmp_path)
    assert time.process_time() - start < 15
    assert sum(column.nbytes for column in loaded.columns.values()) < 200 * total
    assert loaded.shard_of(total - 1) == num_shards - 1
