"""A short run of the quick start's recipe, and a headless Chromium that reaches this machine only."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lavis_emovit.train import run_recipe

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "datasets.emoset_sketch.build_info.images.storage=page_sketch",
    "datasets.emoset_sketch.build_info.prepare.draw.images_per_class=10",
    "run.max_epoch=1",
    "run.num_threads=1",
    "run.device=cpu",
    "run.report=false",
    "run.output_dir=run",
)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """`folder` of the run and its drawn `images`; its data are found while the session lasts."""
    root = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOVIT_DATA", str(root / "data"))
        with pytest.MonkeyPatch.context() as inside:
            inside.chdir(root)
            run_recipe("projects/emovit/quickstart.yaml", list(OPTIONS))
        images = sorted((root / "data" / "page_sketch" / "drawn" / "image").rglob("*.jpg"))
        yield SimpleNamespace(folder=root / "run", images=images)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, which finds no name and no address but 127.0.0.1."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def bad_image(tmp_path: Path) -> Path:
    """A text that is called an image."""
    path = tmp_path / "broken.png"
    path.write_text("no image")
    return path
