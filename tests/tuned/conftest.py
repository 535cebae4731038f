"""A run of the quick start's recipe on few drawings, for all tests here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tuned_run import tuned_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`folder` of the run, `data` and the drawn `images`."""
    return tuned_run(tmp_path_factory, "tuned")


@pytest.fixture(autouse=True)
def place(run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data of the run, a cache and a working directory of the test's own."""
    monkeypatch.setenv("EMOVIT_DATA", str(run.data))
    monkeypatch.setenv("EMOVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
