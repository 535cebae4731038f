"""A run of the quick start's recipe on few drawings, for all tests here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from run_options import OPTIONS

from lavis_emovit.train import run_recipe


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`folder` of the run, `data` and the drawn `images`."""
    root = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOVIT_DATA", str(root / "data"))
        patch.chdir(root)
        run_recipe("projects/emovit/quickstart.yaml", [*OPTIONS, "run.output_dir=run"])
    images = root / "data" / "small_sketch" / "drawn" / "image"
    return SimpleNamespace(folder=root / "run", data=root / "data", images=images)


@pytest.fixture(autouse=True)
def place(run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data of the run, a cache and a working directory of the test's own."""
    monkeypatch.setenv("EMOVIT_DATA", str(run.data))
    monkeypatch.setenv("EMOVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
