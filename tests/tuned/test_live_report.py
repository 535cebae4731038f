"""Properties of `emovit watch --report`: the page of a run that trains is reloaded by the browser, that of finished
runs is not; rows that are being written do not matter; other suffixes are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lavis_emovit.cli.main import main
from lavis_emovit.cli.watch import _Page
from lavis_emovit.runners.following import FollowedRun

RELOADED = '<meta http-equiv="refresh" content="30">'


@pytest.fixture
def training(run: SimpleNamespace, tmp_path: Path) -> FollowedRun:
    """The run before its end."""
    folder = shutil.copytree(run.folder, tmp_path / "training")
    (folder / "metrics.json").unlink()
    followed = FollowedRun(folder)
    followed.update()
    return followed


def test_the_page_is_reloaded_until_the_end(training: FollowedRun, tmp_path: Path) -> None:
    out = tmp_path / "live.html"
    page = _Page(out, 30.0)
    page.write([training], False)
    assert RELOADED in out.read_text() and "training" in out.read_text()
    written = out.stat().st_mtime_ns
    page.write([training], False)  # too early
    assert out.stat().st_mtime_ns == written
    page.write([training], True)
    assert RELOADED not in out.read_text()


def test_a_row_that_is_being_written_does_not_matter(training: FollowedRun, tmp_path: Path) -> None:
    for rows in (training.folder / "predictions").glob("*.jsonl"):
        rows.write_text(rows.read_text()[:-20])
    _Page(tmp_path / "live.html", 30.0).write([training], False)
    assert RELOADED in (tmp_path / "live.html").read_text()


@pytest.mark.parametrize("begun", ["", '{"event": "ste'])
def test_a_run_without_a_row_is_waited_for(training: FollowedRun, tmp_path: Path, begun: str) -> None:
    started = tmp_path / "started"
    shutil.copytree(training.folder, started, ignore=shutil.ignore_patterns("predictions"))
    (started / "log.jsonl").write_text(begun)
    waiting = FollowedRun(started)
    waiting.update()
    page = _Page(tmp_path / "live.html", 30.0)
    page.write([waiting], False)
    assert not (tmp_path / "live.html").exists()
    page.write([waiting, training], False)
    assert "training" in (tmp_path / "live.html").read_text()


def test_the_command_writes_it(run: SimpleNamespace, training: FollowedRun, tmp_path: Path, capsys) -> None:
    assert main(["watch", str(run.folder), str(training.folder), "--once", "--report", "both.html"]) == 0
    assert "report: both.html" in capsys.readouterr().err
    text = (tmp_path / "both.html").read_text()
    assert "refresh" not in text and "training" in text
    assert main(["watch", str(run.folder), "--report", "live.pdf"]) == 2
    assert "must end in .html" in capsys.readouterr().err
