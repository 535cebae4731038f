"""A run of the quick start's recipe on few drawings, for all tests here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lavis_emovit.train import run_recipe

OPTIONS = (
    "datasets.emoset_sketch.build_info.images.storage=small_sketch",
    "datasets.emoset_sketch.build_info.prepare.draw.images_per_class=30",
    "run.max_epoch=2",
    "run.num_threads=1",
    "run.num_report_answers=2",
    "run.device=cpu",
    "run.keep_last=9",
    "run.report=false",
)


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
