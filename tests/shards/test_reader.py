"""Reading samples by number.

- Every sample is read as it was written, in any order, in threads, forks and pickled copies.
- A missing, truncated, swapped or altered shard is named, at the start or at the sample; nothing is skipped.
- Few handles stay open, and none after closing.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lavis_emovit.errors import DataError
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader


def _content(reader, sample):
    item = reader.read(sample)
    return item.record.to_json(), item.image_bytes


def test_samples_are_read_in_any_order(built):
    records, root, index = built
    reader = ShardReader(index, max_open=2)
    by_id = {record.id: record for record in records}
    found = {}
    for sample in [22, *range(23), 0, 11]:
        item = reader.read(sample)
        assert item.record == by_id[item.record.id]
        assert item.image_bytes == (root / item.record.image).read_bytes()
        found[sample] = item.record.id
    assert len(set(found.values())) == len(reader) == 23
    assert len(reader._handles) <= 2


def test_threads_forks_and_pickles_read_the_same(built):
    reader = ShardReader(built[2], max_open=1)
    expected = [_content(reader, sample) for sample in range(23)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda sample: _content(reader, sample), range(23))) == expected
    copy = pickle.loads(pickle.dumps(reader))
    assert [_content(copy, sample) for sample in range(23)] == expected
    with multiprocessing.get_context("fork").Pool(2, _remember, (reader,)) as pool:
        assert pool.map(_read_remembered, range(23)) == expected
    assert _content(reader, 3) == expected[3]


_remembered: list[ShardReader] = []


def _remember(reader):
    _remembered.append(reader)


def _read_remembered(sample):
    return _content(_remembered[0], sample)


def test_a_missing_or_truncated_shard_is_named_at_the_start(shards_copy):
    index = ShardIndex.load(shards_copy)
    os.truncate(shards_copy / "shard-000001.tar", 5 * 1024)
    with pytest.raises(DataError, match=r"shard-000001.tar has 5120 bytes"):
        ShardReader(index)
    (shards_copy / "shard-000001.tar").unlink()
    with pytest.raises(DataError, match=r"shard-000001.tar is missing"):
        ShardReader(index)


def test_a_shard_that_breaks_later_is_named(shards_copy):
    index = ShardIndex.load(shards_copy)
    reader = ShardReader(index)
    os.truncate(shards_copy / "shard-000001.tar", 5 * 1024)
    (shards_copy / "shard-000002.tar").unlink()
    assert reader.read(0).record.source == "tiny"
    with pytest.raises(DataError, match=r"shard-000001.tar: 5120 bytes, expected"):
        reader.read(10)
    with pytest.raises(DataError, match=r"shard-000002.tar: the shard cannot be opened"):
        reader.read(22)


def test_a_shard_truncated_while_open_is_named(shards_copy):
    index = ShardIndex.load(shards_copy)
    reader = ShardReader(index)
    reader.read(10)
    os.truncate(shards_copy / "shard-000001.tar", 1024)
    with pytest.raises(DataError, match=r"shard-000001.tar, sample 9: the shard is truncated"):
        reader.read(19)


def test_every_flipped_byte_of_a_sample_is_noticed(shards_copy):
    index = ShardIndex.load(shards_copy)
    for column, offset in (("image_offset", 5), ("record_offset", 9)):
        place = int(index.columns[column][3]) + offset
        with (shards_copy / "shard-000000.tar").open("r+b") as file:
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.raises(DataError, match=r"shard-000000.tar, sample 3: its bytes changed"):
            ShardReader(index).read(3)
        with (shards_copy / "shard-000000.tar").open("r+b") as file:
            file.seek(place)
            file.write(byte)
    assert ShardReader(index).read(3)


def test_a_swapped_shard_is_noticed(shards_copy):
    index = ShardIndex.load(shards_copy)
    first, second = shards_copy / "shard-000000.tar", shards_copy / "shard-000001.tar"
    size = second.stat().st_size
    shutil.copyfile(first, second)
    os.truncate(second, size) if size < second.stat().st_size else second.open("ab").write(
        b"\0" * (size - second.stat().st_size)
    )
    with pytest.raises(DataError, match=r"shard-000001.tar, sample \d+: (its bytes changed|the shard is truncated)"):
        for sample in range(10, 20):
            ShardReader(index).read(sample)
    with pytest.raises(DataError, match=r"shard-000001.tar: changed after .* sha256"):
        ShardReader(index, verify_hashes=True).read(10)


def _num_open():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_closing_frees_the_handles(built):
    reader = ShardReader(built[2])
    before = _num_open()
    for sample in (0, 10, 20):
        reader.read(sample)
    assert _num_open() == before + 3
    reader.close()
    assert _num_open() == before
    assert reader.read(0)
