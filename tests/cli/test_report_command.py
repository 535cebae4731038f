"""`emovit report`.

Properties: one run gets report.html in its folder, or the file of --out; several runs get one page with --out and one
each without; problems are user errors, and nothing is written.
"""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from lavis_emovit.cli.main import main
from lavis_emovit.cli.report import app
from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.predictions import PredictionRow, write_predictions


@pytest.fixture
def run_dirs(tmp_path):
    dirs = [tmp_path / "one", tmp_path / "two"]
    for run_dir in dirs:
        rows = [
            PredictionRow(instance_id=str(n), record_id=str(n), label=label, prediction="awe")
            for n, label in enumerate(("awe", "fear", "awe"))
        ]
        write_predictions(run_dir / "predictions" / "test-after.jsonl", rows)
    return dirs


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_one_run(run_dirs, tmp_path):
    result = invoke(run_dirs[0])
    assert result.exit_code == 0, result.output
    assert "66.7" in (run_dirs[0] / "report.html").read_text()
    assert invoke(run_dirs[0], "--out", tmp_path / "page.html").exit_code == 0
    assert (tmp_path / "page.html").read_bytes() == (run_dirs[0] / "report.html").read_bytes()


def test_several_runs_on_one_page_or_one_each(run_dirs, tmp_path):
    assert invoke(*run_dirs, "--out", tmp_path / "all.html").exit_code == 0
    assert "2 runs side by side" in (tmp_path / "all.html").read_text()
    assert not (run_dirs[0] / "report.html").exists()
    assert invoke(*run_dirs).exit_code == 0
    assert all((run_dir / "report.html").exists() for run_dir in run_dirs)


def test_a_run_that_is_named_twice_counts_once(run_dirs, tmp_path):
    again = run_dirs[0] / ".." / run_dirs[0].name
    assert invoke(*run_dirs, again, "--out", tmp_path / "all.html").exit_code == 0
    assert "2 runs side by side" in (tmp_path / "all.html").read_text()


def test_wrong_folder_is_a_user_error(tmp_path):
    result = invoke(tmp_path / "absent")
    assert isinstance(result.exception, UserError)
    assert "no such folder" in str(result.exception)


def test_no_folder_is_a_usage_error():
    assert invoke().exit_code == 2


def test_sub_command_prints_a_message_and_exits_with_2(run_dirs, tmp_path, capsys):
    assert main(["report", str(run_dirs[0])]) == 0
    assert str(run_dirs[0] / "report.html") in capsys.readouterr().out
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert "no such folder" in capsys.readouterr().err
