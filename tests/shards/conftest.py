"""A built set of shards, and copies of it to damage."""

from __future__ import annotations

import shutil

import pytest

from lavis_emovit.shards.writer import write_shards


@pytest.fixture(scope="session")
def built(tmp_path_factory, make_records):
    """(records, image root, index) of 23 samples in shards of 10."""
    root = tmp_path_factory.mktemp("images")
    records = make_records(root, 23)
    return records, root, write_shards(records, root, tmp_path_factory.mktemp("shards") / "train", samples_per_shard=10)


@pytest.fixture
def shards_copy(built, tmp_path):
    """Path of a copy of the built shards."""
    return shutil.copytree(built[2].folder, tmp_path / "copy")
