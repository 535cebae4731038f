"""What all tests of suites share."""

from __future__ import annotations

import pytest
import yaml
from fake_model import FakeModel

from lavis_emovit.evaluation.suite import suite as suite_module
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.shards import shard_file
from lavis_emovit.shards.writer import write_shards


@pytest.fixture(autouse=True)
def no_garbage_collection(monkeypatch):
    """It takes long in a process with many modules, and these models are small."""
    monkeypatch.setattr(suite_module.gc, "collect", lambda: 0)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory, make_records):
    """Shards of 40, 8 and 30 pictures as a person would have built them, in the storage folder `fixture`."""
    data = tmp_path_factory.mktemp("data")
    for number, (split, count) in enumerate((("train", 40), ("val", 8), ("test", 30))):
        pictures = tmp_path_factory.mktemp(split)
        records = make_records(pictures, count, split=split)
        records = [record.model_copy(update={"id": f"{split}/{record.id}", "group": str(n % 5)})
                   for n, record in enumerate(records)]  # fmt: skip
        if split == "test":
            (pictures / records[7].image).write_bytes(b"this is no picture")
            records[3] = records[3].model_copy(update={"emotion": None, "label_set": None})
        with pytest.MonkeyPatch.context() as patch:
            # A build refuses damaged pictures; here one has slipped through.
            patch.setattr(shard_file, "check_image", lambda data: "jpg")
            write_shards(records, pictures, data / "fixture" / split, samples_per_shard=12, seed=number)
    return data


@pytest.fixture
def suite(tmp_path, monkeypatch, data_root):
    """Makes settings of a suite over those shards; `output_dir` is below the test's own folder."""
    monkeypatch.setenv("EMOVIT_DATA", str(data_root))
    monkeypatch.chdir(tmp_path)
    config = {"build_info": {"images": {"storage": "fixture"}}}

    def make(output_dir="out", *, benchmark=None, models=None, options=(), **values):
        content = {
            "name": "test",
            "output_dir": output_dir,
            "models": models or {"tiny": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu"}},
            "benchmarks": {"set": {"dataset": "emoset", "config": config, **(benchmark or {})}},
            "batch_size": 4,
            "num_threads": 1,
            "report": False,
            "probe": False,
            **values,
        }
        path = tmp_path / "suite.yaml"
        path.write_text(yaml.safe_dump({"suite": content}))
        return load_suite(path, options)

    return make


@pytest.fixture
def fake(monkeypatch):
    """Replaces the models of this plugin by a fake one."""

    def place(**options):
        model = FakeModel(**options)
        monkeypatch.setattr(suite_module, "open_model", lambda *_: model)
        return model

    return place
