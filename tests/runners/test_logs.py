"""Properties: every row of the log is JSON that others can read; a log is cut back to the step that a run goes on from;
what a crash left at its end does no harm."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lavis_emovit.runners.logs import RunLog, TextNotes, read_log


def write_steps(path: Path, first: int, last: int, tensorboard: Path | None = None, *, at: int = -1) -> None:
    with RunLog(path, tensorboard, step=at) as log:
        for step in range(first, last + 1):
            log.write({"event": "step", "step": step, "loss": float(step), "epoch": 1})


def test_rows_are_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with RunLog(path, None, step=-1) as log:
        log.write({"event": "step", "step": 1, "loss": math.nan, "more": {"x": [math.inf, 1.5]}, "text": "süß"})
    row = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert row == {"event": "step", "step": 1, "loss": "nan", "more": {"x": ["inf", 1.5]}, "text": "süß"}


def test_cut_back_to_the_step_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write_steps(path, 1, 9)
    with path.open("a") as file:
        file.write('{"event": "eval", "stage": "after", "step": 4}\n{"event": "eval", "stage": "during", "step": 4}\n')
        file.write('{"event": "step", "st')
    write_steps(path, 5, 6, at=4)
    rows = read_log(path)
    assert [row["step"] for row in rows if row["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert [row["stage"] for row in rows if row["event"] == "eval"] == ["during"]


def test_a_start_from_the_beginning_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write_steps(path, 0, 3)
    write_steps(path, 0, 0)
    assert [row["step"] for row in read_log(path)] == [0]


def test_tensorboard_has_each_step_once(tmp_path: Path) -> None:
    path, folder = tmp_path / "log.jsonl", tmp_path / "tensorboard"
    write_steps(path, 1, 6, folder)
    write_steps(path, 4, 8, folder, at=3)
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(n, float(n)) for n in range(1, 9)]


@pytest.mark.parametrize(
    "line",
    ['{"event": "step", "step": "many"}', '{"event": "eval", "step": null}', '{"step": [1]}', "[]", "7", "[" * 100_000],
)
def test_edited_rows_are_skipped(line: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    good = [{"event": "step", "step": step, "num_truncated_answers": 1} for step in (1, 2)]
    path.write_text("\n".join([json.dumps(good[0]), line, json.dumps(good[1])]) + "\n")
    assert read_log(path) == good
    TextNotes().log_totals(path)
    with RunLog(path, None, step=1) as log:
        log.write({"event": "step", "step": 2})
    assert [row["step"] for row in read_log(path)] == [1, 2]
    path.write_text(json.dumps({"event": "step", "step": 1, "num_truncated_answers": "many"}) + "\n")
    TextNotes().log_totals(path)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_names_in_a_log_may_contain_unusual_line_ends(tmp_path, separator):
    path = tmp_path / "log.jsonl"
    with RunLog(path, None, step=-1) as log:
        log.write({"event": "eval", "step": 1, "split": f"a{separator}b"})
        log.write({"event": "eval", "step": 2, "split": "c"})
    assert [row["split"] for row in read_log(path)] == [f"a{separator}b", "c"]
    with RunLog(path, None, step=1):
        pass
    assert [row["split"] for row in read_log(path)] == [f"a{separator}b"]
