"""A small run of the quick start's recipe, and its options; all workers share it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from lavis_emovit.train import run_recipe

RECIPE = "projects/emovit/quickstart.yaml"
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


def tuned_run(tmp_path_factory: pytest.TempPathFactory, name: str) -> SimpleNamespace:
    """`folder` of a copy of the run, `data`, and the drawn `images`; the first caller of the session makes it."""
    place = tmp_path_factory.getbasetemp()
    root = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "tuned_run"
    root.mkdir(exist_ok=True)
    with FileLock(root / "lock"):
        if not (root / "run" / "metrics.json").is_file():
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("EMOVIT_DATA", str(root / "data"))
                patch.chdir(root)
                run_recipe(RECIPE, [*OPTIONS, "run.output_dir=run"])
    folder = Path(shutil.copytree(root / "run", tmp_path_factory.mktemp(name) / "run"))
    images = sorted((root / "data" / "small_sketch" / "drawn" / "image").rglob("*.jpg"))
    return SimpleNamespace(folder=folder, data=root / "data", images=images)
