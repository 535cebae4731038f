"""Files inside folders that users name, when they are a pipe, a folder, or JSON and YAML that is nested too deeply.

- Each is an error that names the file, or a note in the report; nothing waits for a pipe, and there is no traceback.
"""

from __future__ import annotations

import json
import os
import signal

import pytest

from lavis_emovit.chat.ledger import Ledger
from lavis_emovit.checkpoints.checkpoint import CheckpointError, verify_checkpoint
from lavis_emovit.cli.main import main
from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.predictions import PredictionRow, write_predictions
from lavis_emovit.evaluation.report.folder import read_folder
from lavis_emovit.pages.decisions import add_line
from lavis_emovit.teachers.answers import AnswerFile
from lavis_emovit.tuned.output import PredictionFile

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
DEEP = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"


@pytest.fixture(autouse=True)
def _no_waiting():
    """A test that waits for a pipe fails."""

    def fail(*_):
        raise AssertionError("waits for a pipe")

    earlier = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, earlier)


def run_folder(folder):
    row = PredictionRow(
        record_id="a",
        instance_id="a#0",
        question="Which?",
        label="awe",
        prediction="awe",
        scores={"awe": -0.1, "fear": -2.0},
    )
    (folder / "predictions").mkdir(parents=True)
    write_predictions(folder / "predictions" / "test-after.jsonl", [row])
    (folder / "log.jsonl").write_text(json.dumps({"event": "step", "step": 1, "loss": 1.0}) + "\n")
    (folder / "config.yaml").write_text("run: {seed: 1}\nmodel: {}\ndatasets: {d: {}}\n")
    return folder


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("name", ["log.jsonl", "metrics.json", "quarantine.jsonl", "predictions/test-after.jsonl"])
def test_a_report_names_what_is_no_file(make, name, tmp_path, capsys):
    run_folder(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    assert main(["report", str(tmp_path)]) == 2
    assert str(tmp_path / name) in capsys.readouterr().err


def test_a_report_skips_settings_and_metrics_that_cannot_be_read(tmp_path):
    run_folder(tmp_path)
    (tmp_path / "config.yaml").write_bytes(DEEP)
    (tmp_path / "metrics.json").write_bytes(DEEP)
    notes = " ".join(read_folder(tmp_path).notes)
    assert "config.yaml cannot be read" in notes and "metrics.json cannot be read" in notes


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.write_bytes(DEEP)])
def test_a_suite_whose_settings_are_no_file_is_not_taken_for_a_run(make, tmp_path):
    run_folder(tmp_path)
    make(tmp_path / "suite.yaml")
    with pytest.raises(UserError, match=r"suite\.yaml: damaged"):
        read_folder(tmp_path)


def test_watch_names_a_log_that_is_a_pipe(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("run: {}\n")
    os.mkfifo(tmp_path / "log.jsonl")
    assert main(["watch", str(tmp_path), "--once"]) == 2
    assert "log.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.write_bytes(DEEP)])
def test_a_manifest_that_cannot_be_read(make, tmp_path):
    make(tmp_path / "MANIFEST.json")
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: (cannot be read|damaged)"):
        verify_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "begin",
    [
        lambda path: PredictionFile(path.with_suffix(""), [], {}),
        AnswerFile,
        Ledger,
        lambda path: add_line(path, "{}"),
    ],
    ids=["predictions", "answers", "ledger", "decisions"],
)
def test_files_to_continue_that_are_pipes(begin, tmp_path):
    path = tmp_path / "p.jsonl.unfinished"
    os.mkfifo(path)
    with pytest.raises((UserError, OSError), match=r"p\.jsonl\.unfinished"):
        begin(path)
