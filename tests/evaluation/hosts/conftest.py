"""A suite on drawn images of EmoSet's labels, in shards, without any other data."""

from __future__ import annotations

import pytest
import yaml

from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.sample_set.write import write_sketch


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Folder of the data: a small sample set in EmoSet's layout."""
    return write_sketch(tmp_path_factory.mktemp("drawn") / "set", images_per_class=10, seed=3, size_px=96)


@pytest.fixture
def recipe(tmp_path, monkeypatch, drawn):
    """Writes the recipe of a suite over the drawn images; returns its path."""
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def make(benchmarks=None, models=None, **values):
        config = {"build_info": {"prepare": {"root": str(drawn)}}}
        content = {
            "name": "hosts",
            "output_dir": "out",
            "models": models or {"tiny": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu"}},
            "benchmarks": {
                name: {"dataset": "emoset", "config": config, **one}
                for name, one in (benchmarks or {"set": {}}).items()
            },
            "methods": ["generation"],
            "num_threads": 1,
            "report": False,
            "probe": False,
            **values,
        }
        path = tmp_path / "suite.yaml"
        path.write_text(yaml.safe_dump({"suite": content}))
        return path

    return make


@pytest.fixture
def suite(recipe):
    """As `recipe`, but returns the settings."""
    return lambda *args, **values: load_suite(recipe(*args, **values), check_names=True)
