"""Reports of runs and of suites: one HTML file that needs nothing else, neither scripts nor fonts nor a network.

Figures are computed again from the predictions, so a report can be written for any folder, at any time, finished or
not. `run_view.py` and `suite_view.py` gather what the page shows, templates/ holds the page; the same tables are
written as Markdown or LaTeX where the file's ending asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.report.grid import number, percent, points
from lavis_emovit.evaluation.report.run_contents import RunContents, read_run
from lavis_emovit.evaluation.report.run_view import RunView, run_view
from lavis_emovit.evaluation.report.suite_contents import SuiteContents, is_suite, read_suite
from lavis_emovit.evaluation.report.suite_view import suite_view
from lavis_emovit.evaluation.report.text import latex_report, markdown_report
from lavis_emovit.evaluation.report.together import side_by_side
from lavis_emovit.files import atomic_writer

Contents = RunContents | SuiteContents


def write_report(run_dir: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write the report of one run or suite.

    Args:
        run_dir: output folder of a run or a suite, finished or not.
        out: the file; its ending says what it is: `.html`, `.md` or `.tex`. `report.html` in the folder where left out.

    Returns:
        the path of the file, which appears whole or not at all.

    Raises:
        DataError: the folder is neither a run's nor a suite's, a prediction in it cannot be used, or the ending of the
            file is another one.
    """
    contents = _read(run_dir)
    return _write([contents], Path(out) if out is not None else contents.path / "report.html")


def write_suite_report(
    suite_dir: str | os.PathLike[str],
    summary: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the report of a suite whose figures have just been computed.

    Args:
        suite_dir: output folder of the suite.
        summary: what metrics.json holds; None computes it from the rows.
        out: as in `write_report`.

    Raises:
        DataError: as `write_report`.
    """
    suite = read_suite(suite_dir, summary)
    return _write([suite], Path(out) if out is not None else suite.path / "report.html")


def write_comparison(run_dirs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Write several runs or suites into one report, held against the first of them.

    Raises:
        DataError: as `write_report`, and for no folder at all.
    """
    if not run_dirs:
        raise DataError("no run folder to report on")
    contents = [_read(run_dir) for run_dir in run_dirs]
    _tell_apart(contents)
    return _write(contents, Path(out))


def render(contents: Sequence[Contents]) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lavis_emovit.evaluation.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "points": points, "number": number}
    views = [
        suite_view(one, f"s{place}") if isinstance(one, SuiteContents) else run_view(one, f"r{place}")
        for place, one in enumerate(contents, start=1)
    ]
    runs = [view for view in views if isinstance(view, RunView)]
    return environment.get_template("report.html.jinja").render(
        entries=views, has_runs=bool(runs), together=side_by_side(contents, runs)
    )


def _read(folder: str | os.PathLike[str]) -> Contents:
    return read_suite(folder) if is_suite(folder) else read_run(folder)


def _write(contents: list[Contents], out: Path) -> Path:
    makers: dict[str, Callable[[], str]] = {
        ".html": lambda: render(contents),
        ".htm": lambda: render(contents),
        ".md": lambda: markdown_report(contents, side_by_side(contents)),
        ".tex": lambda: latex_report(contents, side_by_side(contents)),
    }
    if out.is_dir():
        raise DataError(f"{out}: a folder; give the name of the HTML, Markdown or LaTeX file to write")
    make = makers.get(out.suffix.lower())
    if make is None:
        raise DataError(f"{out}: a report ends in .html, .md or .tex, which says what is written")
    text = make()
    with atomic_writer(out) as file:
        file.write(text)
    return out


def _tell_apart(contents: Sequence[Contents]) -> None:
    """Give folders of one name as much of their path as tells them apart."""
    names = [one.path.name for one in contents]
    for one in contents:
        if names.count(one.path.name) > 1:
            others = [other.path for other in contents if other is not one and other.path.name == one.path.name]
            parts = one.path.parts
            length = next((n for n in range(2, len(parts)) if all(o.parts[-n:] != parts[-n:] for o in others)), 2)
            one.label = "/".join(parts[-length:])
