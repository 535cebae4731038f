"""A short run of the quick start's recipe, and a headless Chromium that reaches this machine only."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tuned_run import tuned_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """`folder` of the run and its drawn `images`; its data are found while the session lasts."""
    found = tuned_run(tmp_path_factory, "pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOVIT_DATA", str(found.data))
        yield found


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


@pytest.fixture(scope="session")
def painted() -> Callable[[Any], None]:
    """A function that waits until a page was painted: Chromium drops the keys that come before."""

    def wait(page: Any) -> None:
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")

    return wait


@pytest.fixture
def bad_image(tmp_path: Path) -> Path:
    """A text that is called an image."""
    path = tmp_path / "broken.png"
    path.write_text("no image")
    return path
