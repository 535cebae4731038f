"""The report of a run: one HTML file that needs nothing else, neither scripts nor fonts nor a network.

Figures are computed again from the predictions, so a report can be written for any run folder, at any time, finished or
not. `report_views.py` gathers what the page shows, templates/ holds the page.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import jinja2

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.report_views import run_view
from lavis_emovit.evaluation.run_contents import RunContents, read_run
from lavis_emovit.files import atomic_writer


def write_report(run_dir: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write the report of one run.

    Args:
        run_dir: output folder of a run, finished or not.
        out: the HTML file; `report.html` in the folder where left out.

    Returns:
        the path of the file, which appears whole or not at all.

    Raises:
        DataError: the folder is not a run's, or a prediction in it cannot be used.
    """
    run = read_run(run_dir)
    return _write([run], Path(out) if out is not None else run.path / "report.html")


def write_comparison(run_dirs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Write several runs into one report, with a table of all of them at the head.

    Raises:
        DataError: as `write_report`, and for no folder at all.
    """
    if not run_dirs:
        raise DataError("no run folder to report on")
    return _write([read_run(run_dir) for run_dir in run_dirs], Path(out))


def _write(runs: list[RunContents], out: Path) -> Path:
    html = render(runs)
    if out.is_dir():
        raise DataError(f"{out}: a folder; give the name of the HTML file to write")
    with atomic_writer(out) as file:
        file.write(html)
    return out


def render(runs: Sequence[RunContents]) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lavis_emovit.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "points": _points, "number": _number}
    views = [run_view(run, f"r{number}") for number, run in enumerate(runs, start=1)]
    return environment.get_template("report.html.jinja").render(runs=views)


# Numbers as people read them

_THIN_SPACE = "\u202f"


def _percent(value: float | None, decimals: int = 1) -> str:
    return "none" if value is None else f"{100 * value:.{decimals}f}{_THIN_SPACE}%"


def _points(value: float) -> str:
    """A difference of two shares in percentage points, always with its sign."""
    return f"{100 * value:+.1f}".replace("-", "\u2212")


def _number(value: float | None, decimals: int = 3) -> str:
    return "none" if value is None else f"{value:.{decimals}f}"
