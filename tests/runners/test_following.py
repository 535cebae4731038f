"""Properties: a followed run has the numbers of its log, also as the log grows, is cut within a line and is replaced by
a resumed run; its length is known from `max_steps` or after one epoch; the command prints them and ends; several runs
get mean and standard deviation; what is no run is named."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import pytest

from lavis_emovit.cli.main import main
from lavis_emovit.errors import UserError
from lavis_emovit.runners.following import RECENT_STEPS, FollowedRun
from lavis_emovit.runners.logs import _json_safe


def step(number: int, loss: float, epoch: int = 1) -> dict:
    return {
        "event": "step",
        "step": number,
        "epoch": epoch,
        "loss": loss,
        "lr": 1e-3,
        "step_s": 0.5,
        "samples_per_s": 32,
    }


def evaluation(value: float, number: int = 4) -> dict:
    metrics = {"accuracy": value, "agg_metrics": value}
    return {"event": "eval", "split": "val", "stage": "during", "step": number, "epoch": 1, "metrics": metrics}


def write(folder: Path, rows: list[dict], end: str = "", *, max_epoch: int = 3, max_steps: int | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(json.dumps({"run": {"max_epoch": max_epoch, "max_steps": max_steps}}))
    (folder / "log.jsonl").write_text("".join(json.dumps(_json_safe(row)) + "\n" for row in rows) + end)
    return folder


def test_numbers_follow_the_log_as_it_grows(tmp_path: Path) -> None:
    losses = [4.0 - 0.1 * number for number in range(30)]
    rows = [step(number + 1, loss) for number, loss in enumerate(losses)]
    run = FollowedRun(write(tmp_path, rows[:25], end=json.dumps(rows[25])[:30]))
    run.update()
    assert run.last_step["step"] == 25 and run.total_steps is None and run.left_s is None
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write(json.dumps(rows[25])[30:] + "\n" + json.dumps(step(27, 1.0, epoch=2)) + "\n")
    run.update()
    assert run.last_step["step"] == 27
    assert run.loss == pytest.approx(statistics.fmean([*losses[:26], 1.0][-RECENT_STEPS:]))
    # 26 steps an epoch, three epochs, half a second each.
    assert run.total_steps == 78 and run.left_s == pytest.approx(51 * 0.5)
    curve = run.curve()
    assert len(curve) <= 24 and curve[0] == "█" and curve[-1] == "▁"


def test_a_resumed_run_replaces_what_was_read(tmp_path: Path) -> None:
    run = FollowedRun(write(tmp_path, [step(1, 4.0), step(2, 3.0), step(3, 2.0)]))
    run.update()
    (tmp_path / "log.jsonl").unlink()
    write(tmp_path, [step(1, 4.0), step(2, 9.0)])
    run.update()
    assert run.last_step["loss"] == 9.0 and run.loss == 6.5


def test_the_command_prints_lines_and_the_spread_of_seeds(tmp_path: Path, capsys) -> None:
    for seed, value in enumerate((0.80, 0.90)):
        folder = write(tmp_path / f"seed{seed}", [step(1, 2.0), step(2, 1.0), evaluation(value, 2)], max_steps=2)
        (folder / "metrics.json").write_text("{}")
    assert main(["watch", str(tmp_path / "seed0"), str(tmp_path / "seed1")]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == (
        "seed0: step 2/2, epoch 1, loss 1.5000, lr 1.00e-03, images/s 32.0, finished; "
        "val accuracy 0.800 (during, step 2)"
    )
    assert second.startswith("seed1") and last == (
        f"mean ± standard deviation of 2 runs: loss 1.500 ± 0.000, val 0.850 ± {statistics.stdev([0.8, 0.9]):.3f}"
    )


def test_a_run_that_is_named_twice_counts_once(tmp_path: Path, monkeypatch, capsys) -> None:
    write(tmp_path / "run", [step(1, 2.0)])
    monkeypatch.chdir(tmp_path)
    assert main(["watch", "run", "run/", str(tmp_path / "run"), "--once"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("run: step 1")


def test_the_number_of_an_evaluation_has_the_name_of_its_kind(tmp_path: Path) -> None:
    """Other numbers that happen to be equal come first in a row."""
    equal = {"num_errors": 0, "ccc": 0.0, "accuracy": 0.0, "mean_ccc": 0.0, "agg_metrics": 0.0}
    rows = [{**evaluation(0.0), "split": split, "metrics": equal} for split in ("val", "affect")]
    other = {**evaluation(0.0), "split": "own", "metrics": {"num_errors": 0, "f1": 0.5, "agg_metrics": 0.5}}
    folder = write(tmp_path, [step(1, 2.0), *rows, other])
    settings = {"valid_benchmarks": {"affect": {"dataset": "x", "kind": "valence_arousal"}}, "test_benchmarks": None}
    (folder / "config.yaml").write_text(json.dumps({"run": settings}))
    run = FollowedRun(folder)
    run.update()
    assert [run.headline(split) for split in ("val", "affect", "own")] == [
        ("accuracy", 0.0), ("mean_ccc", 0.0), ("result", 0.5),
    ]  # fmt: skip


def test_a_run_that_has_not_begun_and_what_is_no_run(tmp_path: Path, capsys) -> None:
    folder = write(tmp_path / "run", [])
    (folder / "log.jsonl").unlink()
    assert main(["watch", str(folder), "--once"]) == 0
    assert "run: step no step yet" in capsys.readouterr().out
    assert main(["watch", str(tmp_path), "--once"]) == 2
    assert "not the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1], "Input should be an object"),
        ({"event": "step"}, "step: Field required"),
        ({"event": "step", "step": 1}, "a row 'step' without 'epoch'"),
        ({**step(1, 2.0), "lr": "high"}, "lr: Input should be a valid number"),
        ({**evaluation(0.5), "metrics": [1]}, r"metrics: Input should be an object"),
        ({**evaluation(0.5), "split": ["val"]}, r"split: Input should be a valid string"),
        ({"event": "answers", "step": 1, "record_id": "a", "question": "", "answers": [{}]}, "answers.0.text: Field"),
        ({**step(1, 2.0), "lr": 10**400}, "lr: 1000"),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path: Path, row, expected, capsys) -> None:
    folder = write(tmp_path, [row])
    with pytest.raises(UserError, match=rf"log\.jsonl, line 1 after byte 0: not a row of a log \({expected}"):
        FollowedRun(folder).update()
    assert main(["watch", str(folder), "--once"]) == 2 and "Traceback" not in capsys.readouterr().err


def test_rows_of_unknown_events_are_not_shown(tmp_path: Path) -> None:
    run = FollowedRun(write(tmp_path, [step(1, 2.0), {"event": ["x"]}, {"note": 1}]))
    run.update()
    assert run.last_step["step"] == 1


def test_the_table_shows_the_last_sampled_answer(tmp_path: Path) -> None:
    from rich.console import Console

    from lavis_emovit.cli.watch import _table

    one = {"reward": 1.0, "rewards": {"form": 1.0}, "advantage": 0.5}
    answers = [{**one, "text": "a calm\n sea"}, {**one, "text": "no"}]
    group = {"event": "answers", "step": 1, "record_id": "a", "question": "Why?", "answers": answers}
    run = FollowedRun(write(tmp_path / "run", [step(1, 2.0), group]))
    run.update()
    console = Console(width=200, record=True)
    console.print(_table([run]))
    shown = console.export_text()
    assert "run, step 1: a calm sea" in shown and "reward" not in shown


def test_the_table_shows_names_as_they_are(tmp_path: Path) -> None:
    from rich.console import Console

    from lavis_emovit.cli.watch import _table

    run = FollowedRun(write(tmp_path / "[red]run", [step(1, 2.0), evaluation(0.5)]))
    run.update()
    console = Console(width=200, record=True)
    console.print(_table([run]))
    assert "[red]run" in console.export_text()


@pytest.mark.parametrize("losses", [[math.nan], [math.inf, -math.inf], [1e308, 1e308, 1e308]])
def test_a_diverged_run_among_seeds_is_shown(tmp_path: Path, losses, capsys) -> None:
    diverged = write(tmp_path / "a", [step(number, loss) for number, loss in enumerate(losses, start=1)])
    (tmp_path / "a" / "metrics.json").write_text("{}")
    good = write(tmp_path / "b", [step(1, 2.0)])
    assert main(["watch", str(diverged), str(good), "--once"]) == 0
    assert "of 2 runs: loss " in capsys.readouterr().out
    run = FollowedRun(diverged)
    run.update()
    assert len(run.curve()) == sum(map(math.isfinite, losses))


@pytest.mark.parametrize(
    "settings", ["run: 3", "run: {max_steps: many}", "run: {max_epoch: [1]}", "d: 2024-02-30", "run: {max_steps: -5}",
                 "run: {valid_benchmarks: [val]}", "run: {valid_benchmarks: {val: 3}}", "[]"]
)  # fmt: skip
def test_damaged_settings_are_as_none(tmp_path: Path, settings, capsys) -> None:
    folder = write(tmp_path, [step(1, 2.0), step(2, 1.0, epoch=2), {**evaluation(0.5), "step": 2}])
    (folder / "config.yaml").write_text(settings)
    assert main(["watch", str(folder), "--once"]) == 0
    assert "step 2, epoch 2" in capsys.readouterr().out
