"""`emovit watch`: runs while they train."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from lavis_emovit.errors import UserError
from lavis_emovit.paths import each_once, expand_home

if TYPE_CHECKING:
    from rich.table import Table

    from lavis_emovit.runners.following import FollowedRun

app = typer.Typer(help="Follow runs while they train.", add_completion=False)

_REFRESH_S = 2.0
_ANSWER_LETTERS = 160


@app.command()
def watch(
    runs: Annotated[list[Path], Argument(help="Output folders of runs, such as several seeds.")],
    once: Annotated[bool, Option("--once", help="Show the state now and end.")] = False,
    every: Annotated[
        float, Option(min=1.0, help="Seconds between lines, if the output is no terminal, and between reports.")
    ] = 60.0,
    report: Annotated[Path | None, Option(help="HTML page for the report, written again and again.")] = None,
) -> None:
    """Follow runs while they train.

    Shows step, loss, learning rate, speed, memory, time left, the last validation and, of several runs, mean and
    spread. It ends when all are finished; ending it has no effect on the runs. A browser reloads the page of --report
    by itself.
    """
    from rich.console import Console
    from rich.live import Live

    from lavis_emovit.runners.following import FollowedRun

    followed = [FollowedRun(folder) for folder in each_once(expand_home(run) for run in runs)]
    for one in followed:
        one.update()
    page = _Page(report, every) if report is not None else None
    console = Console()
    shown = None if once or not console.is_terminal else Live(_table(followed), console=console, auto_refresh=False)
    with shown or nullcontext():
        while True:
            is_last = once or all(one.is_finished for one in followed)
            for one in followed:
                one.update()
            if shown is not None:
                shown.update(_table(followed), refresh=True)
            else:
                _print_lines(followed)
            if page is not None:
                page.write(followed, is_last)
            if is_last:
                return
            time.sleep(every if shown is None else _REFRESH_S)


def _print_lines(runs: list[FollowedRun]) -> None:
    for run in runs:
        typer.echo(_line(run))
    if len(runs) > 1:
        typer.echo(_spread_line(runs))
    sys.stdout.flush()


class _Page:
    """The report of runs, written at most every so many seconds, and once at the end."""

    def __init__(self, path: Path, every_s: float):
        if path.suffix.lower() != ".html":
            raise UserError(f"--report {path}: the name of the page must end in .html")
        self._path, self._every_s = path, every_s
        self._next_s = 0.0  # of time.monotonic()

    def write(self, runs: list[FollowedRun], is_last: bool) -> None:
        from lavis_emovit.evaluation.report.page import write_comparison

        # The log of a run that loads its model is empty.
        started = [run.folder for run in runs if run.last_step or run.last_evals]
        if not started or (time.monotonic() < self._next_s and not is_last):
            return
        write_comparison(started, self._path, reload_s=None if is_last else self._every_s)
        if not self._next_s or is_last:
            typer.echo(f"report: {self._path}", err=True)
        self._next_s = time.monotonic() + self._every_s


def _fields(run: FollowedRun) -> dict[str, str]:
    """Column -> text, for the table and the line of a run."""
    row, total = run.last_step, run.total_steps
    if not row:
        return {"step": "no step yet", **_state(run)}
    fields = {
        "step": f"{row['step']}/{total}" if total else str(row["step"]),
        "epoch": str(row["epoch"]),
        "loss": "" if run.loss is None else f"{run.loss:.4f}",
        "lr": f"{row['lr']:.2e}",
        "images/s": _number(run.mean_of("samples_per_s")),
        "GiB": _number(row.get("memory_gib")),
    }
    return {**fields, **_state(run)}


def _state(run: FollowedRun) -> dict[str, str]:
    left = run.left_s
    state = "finished" if run.is_finished else "" if left is None else f"{_clock(left)} left"
    if not run.is_finished and run.silent_s > 120:
        state = f"silent for {_clock(run.silent_s)}"
    results = []
    for split, row in run.last_evals.items():
        found = run.headline(split)
        if found is not None:
            results.append(f"{split} {found[0]} {found[1]:.3f} ({row['stage']}, step {row['step']})")
    return {"state": state, "results": "; ".join(results)}


def _line(run: FollowedRun) -> str:
    fields = _fields(run)
    results = fields.pop("results", "")
    named = [text if name == "state" else f"{name} {text}" for name, text in fields.items() if text]
    return f"{run.folder.name}: {', '.join(named)}{'; ' if results else ''}{results}"


def _spread_line(runs: list[FollowedRun]) -> str:
    from lavis_emovit.runners.following import spread

    losses = [run.loss for run in runs if run.loss is not None]
    parts = [f"loss {spread(losses)}"] if losses else []
    for split in dict.fromkeys(split for run in runs for split in run.last_evals):
        found = [run.headline(split) for run in runs if split in run.last_evals]
        values = [one[1] for one in found if one is not None]
        if values:
            parts.append(f"{split} {spread(values)}")
    return f"mean ± standard deviation of {len(runs)} runs: {', '.join(parts)}"


def _table(runs: list[FollowedRun]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = [{"run": run.folder.name, **_fields(run), "loss over time": run.curve()} for run in runs]
    names = list(dict.fromkeys(name for row in rows for name, text in row.items() if text))
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row.get(name, "")) for name in names))
    captions = [_spread_line(runs)] if len(runs) > 1 else []
    for run in runs:
        for answer in run.last_answers.get("answers", [])[:1]:
            text = " ".join(answer["text"].split())
            captions.append(f"{run.folder.name}, step {run.last_answers.get('step')}: {text[:_ANSWER_LETTERS]}")
    if captions:
        table.caption = Text("\n".join(captions))
    return table


def _number(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, (int, float)) else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
