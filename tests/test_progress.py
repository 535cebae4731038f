"""The progress display.

- On a terminal, a bar with label, count and note; only the first process of a distributed run shows it.
- Elsewhere, plain lines with the time left: after the first step, every so many steps and every so many seconds in the
  log, or every so many seconds on the standard error for commands. Steps of an earlier run and pauses do not count in
  the time left.
- A bar gives way to another one. The counters of a chat run are shown while they change.
"""

from __future__ import annotations

import time

import pytest

from lavis_emovit import progress as progress_module
from lavis_emovit.chat.progress import RunProgress, show_progress
from lavis_emovit.progress import progress


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")


@pytest.fixture
def clock(monkeypatch):
    """Time that a test sets."""
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_log_lines_without_a_terminal(caplog):
    with caplog.at_level("INFO"), progress("epoch 1/1", 25, done=3, every=10) as line:
        for _ in range(22):
            line.advance("loss 1.0")
    assert [record.getMessage().split()[2] for record in caplog.records] == ["4/25", "10/25", "20/25", "25/25"]
    assert all("loss 1.0" in record.getMessage() for record in caplog.records)


def test_slow_steps_are_reported_one_by_one(caplog, clock):
    with caplog.at_level("INFO"), progress("epoch 1/1", 9, every=10) as line:
        for step_s in (20, 20, 20, 20, 90, 20):
            clock[0] += step_s
            line.advance("loss 1.0  lr 1.00e-05")
    assert [record.getMessage() for record in caplog.records] == [
        "epoch 1/1 1/9  loss 1.0  lr 1.00e-05  2:40 left",
        "epoch 1/1 4/9  loss 1.0  lr 1.00e-05  1:40 left",
        "epoch 1/1 5/9  loss 1.0  lr 1.00e-05  2:16 left",
    ]


def test_commands_print_a_line_every_few_seconds(capsys, clock):
    with progress("building train", 40) as line:
        for done in range(1, 31):
            clock[0] += 1.0
            line.update(done, 30)
        clock[0] += 1.0
        line.update(30, 31)
    assert capsys.readouterr().err.splitlines() == [
        "building train 10/30  0:20 left",
        "building train 20/30  0:10 left",
        "building train 30/30  0:00 left",
        "building train 30/31",
    ]


def test_unknown_total(capsys):
    with progress("reading") as line:
        line.advance("a note")
        line.advance("a note")
    assert capsys.readouterr().err == "reading 2  a note\n"


def test_bar_on_a_terminal(terminal, capsys):
    with progress("epoch 1/1", 4, every=1) as line:
        for _ in range(4):
            line.advance("loss 1.0")
    shown = capsys.readouterr().err
    assert "epoch 1/1" in shown and "4/4" in shown and "loss 1.0" in shown and "\x1b" in shown


def test_only_the_first_process_shows_a_bar(terminal, capsys, caplog, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with caplog.at_level("INFO"), progress("epoch 1/1", 4, every=10) as line:
        line.advance()
    assert caplog.messages == ["epoch 1/1 1/4  0:00 left"], "a plain line in the log"
    assert "\x1b" not in capsys.readouterr().err, "no bar, which moves the cursor"


def test_bar_gives_way_to_another(terminal, capsys):
    with progress("epoch 1/1", 4, every=1) as line:
        line.advance()
        with line.paused(), progress("val after step 1", 2, every=1) as other:
            other.advance()
            other.advance()
        line.advance("loss 0.5")
    shown = capsys.readouterr().err
    assert "2/2" in shown and "val after step 1" in shown
    assert "2/4" in shown and "loss 0.5" in shown


def test_time_in_a_pause_does_not_count(caplog, clock):
    with caplog.at_level("INFO"), progress("epoch 1/1", 10, every=2) as line:
        clock[0] += 5
        line.advance()
        with line.paused():
            clock[0] += 3600
        clock[0] += 5
        line.advance()
    assert "0:40 left" in caplog.text, "two steps took ten seconds, so eight take forty"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_counters_of_a_chat_run(is_terminal, capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "PLAIN_INTERVAL_S", 0.02)
    monkeypatch.setattr(progress_module, "POLL_INTERVAL_S", 0.02)
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "150")
    run = RunProgress(total=10)
    with show_progress("captions", run):
        run.done, run.usd, run.in_flight, run.from_ledger = 4, 0.25, 3, 2
        run.rejected["cut"] += 1
        run.tokens.update({"input": 500, "output": 60})
        time.sleep(0.3)
        run.done = 5
    shown = capsys.readouterr().err
    note = "3 in flight · 2 already paid · 1 rejected (cut 1) · 500 + 60 tokens · $0.2500"
    assert "captions" in shown and "5/10" in shown and note in shown
    if not is_terminal:
        assert f"captions 5/10  {note}\n" in shown and shown.count(f"captions 4/10  {note}  0:0") >= 2
