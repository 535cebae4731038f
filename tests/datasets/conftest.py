"""Shards of small images, and processors for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lavis.common.registry import registry

from lavis_emovit.shards.writer import write_shards


@pytest.fixture(scope="session")
def index(tmp_path_factory, make_records):
    """Index of 29 samples in shards of 7, each with one to three instructions."""
    root = tmp_path_factory.mktemp("images")
    return write_shards(make_records(root, 29), root, tmp_path_factory.mktemp("shards") / "train", samples_per_shard=7)


@pytest.fixture(scope="session")
def processors():
    """(training image processor, evaluation image processor, text processor) at 16 pixels."""
    options = {"image_size": 16}
    return (
        registry.get_processor_class("emovit_image_train").from_config(options),
        registry.get_processor_class("emovit_image_eval").from_config(options),
        registry.get_processor_class("emovit_text").from_config(),
    )


@pytest.fixture
def published(tmp_path, make_records):
    """A small dataset in EmoSet's published layout."""
    root = tmp_path / "published"
    entries = {"train": [], "val": [], "test": []}
    for number, record in enumerate(make_records(root, 40)):
        annotation = f"annotation/{record.emotion}/{Path(record.image).stem}.json"
        (root / annotation).parent.mkdir(parents=True, exist_ok=True)
        (root / annotation).write_text(json.dumps({"emotion": record.emotion, "brightness": 0.5}))
        split = ("train", "train", "train", "val", "test")[number % 5]
        entries[split].append([record.emotion, record.image, annotation])
    for split, items in entries.items():
        (root / f"{split}.json").write_text(json.dumps(items))
    return root
