"""Verification of a folder of shards.

- A sound folder has no problems; a file that does not belong to it is reported as a stray, not as a problem.
- Each damage is named with its shard, and a broken shard does not hide the state of the others.
"""

from __future__ import annotations

import json
import os
import shutil

import pytest

from lavis_emovit.errors import DataError
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.tar import scan_tar
from lavis_emovit.shards.verify import verify_shards
from lavis_emovit.shards.writer import write_shards


def test_sound_shards_have_no_problems(shards_copy):
    (shards_copy / "notes.txt").write_text("mine")
    report = verify_shards(shards_copy)
    assert report.ok
    assert (report.num_shards, report.num_samples, report.strays) == (3, 23, ["notes.txt"])
    report.raise_if_bad()


def _flip(path, place):
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 4]))


def _missing(folder):
    (folder / "shard-000001.tar").unlink()


def _cut_at_a_member(folder):
    members = scan_tar(folder / "shard-000001.tar")
    os.truncate(folder / "shard-000001.tar", members[-1].offset - 512)


def _empty(folder):
    (folder / "shard-000001.tar").write_bytes(b"")


def _flipped_image(folder):
    _flip(folder / "shard-000001.tar", scan_tar(folder / "shard-000001.tar")[4].offset + 3)


def _flipped_header(folder):
    _flip(folder / "shard-000001.tar", 3)


def _swapped(folder):
    shutil.move(folder / "shard-000001.tar", folder / "spare")
    shutil.move(folder / "shard-000000.tar", folder / "shard-000001.tar")
    shutil.move(folder / "spare", folder / "shard-000000.tar")


@pytest.mark.parametrize(
    "damage",
    [_missing, _cut_at_a_member, _empty, _flipped_image, _flipped_header, _swapped],
    ids=lambda f: f.__name__,
)
def test_each_damage_is_named(shards_copy, damage):
    damage(shards_copy)
    report = verify_shards(shards_copy)
    assert not report.ok
    assert any("shard-000001.tar" in problem for problem in report.problems)
    assert not any("shard-000002.tar" in problem for problem in report.problems)
    with pytest.raises(DataError, match=r"problem\(s\) in the shards:\n(.*\n)*.*shard-000001"):
        report.raise_if_bad()


def test_members_that_moved_are_noticed_even_with_the_right_hash(built, tmp_path, shards_copy):
    """An index with matching hashes but offsets of other bytes."""
    index = ShardIndex.load(shards_copy)
    columns = {name: column.copy() for name, column in index.columns.items()}
    columns["record_offset"][4] += 512
    forged = ShardIndex(
        shards_copy,
        index.shards,
        columns,
        labels=index.labels,
        kinds=index.kinds,
        label_sets=index.label_sets,
        build=index.build,
    )
    forged.save()
    report = verify_shards(shards_copy)
    assert report.problems == ["shard-000000.tar: its members are not at the indexed positions"]


def test_ids_that_repeat_across_shards_are_noticed(built, tmp_path):
    records, root, _ = built
    one, two = write_shards(records[:3], root, tmp_path / "one"), write_shards(records[:2], root, tmp_path / "two")
    shutil.copy(tmp_path / "two" / "shard-000000.tar", tmp_path / "one" / "shard-000001.tar")
    content = json.loads((tmp_path / "one" / "index.json").read_text())
    content["shards"].append({**json.loads((tmp_path / "two" / "index.json").read_text())["shards"][0]})
    content["shards"][1]["name"] = "shard-000001.tar"
    both = ShardIndex(
        tmp_path / "one",
        [*one.shards, two.shards[0].__class__(**{**two.shards[0].__dict__, "name": "shard-000001.tar"})],
        {name: [*one.columns[name], *two.columns[name]] for name in one.columns},
        labels=one.labels,
        kinds=one.kinds,
        label_sets=one.label_sets,
        build={},
    )
    both.save()
    problems = verify_shards(tmp_path / "one").problems
    assert len(problems) == 2
    assert all("already" in problem and "shard-000001.tar" in problem for problem in problems)
