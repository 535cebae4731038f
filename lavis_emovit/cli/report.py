"""`emovit report`: write a report of runs and suites, finished or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

app = typer.Typer(add_completion=False)


@app.command()
def report(
    run_dirs: Annotated[
        list[Path],
        Argument(
            metavar="RUN_OR_SUITE...",
            help="Output folders of runs (run.output_dir of a recipe) and of suites (suite.output_dir).",
        ),
    ],
    out: Annotated[
        list[Path] | None,
        Option(
            help="Output file: .html for the report, .md or .tex for its tables. Several folders go into one file, "
            "compared with the first of them. May be repeated; by default report.html in each folder."
        ),
    ] = None,
) -> None:
    """Write the results of runs and suites as a self-contained page, or its tables as text."""
    from lavis_emovit.evaluation.report.page import write_comparison, write_report
    from lavis_emovit.paths import each_once
    from lavis_emovit.plugin import bootstrap, entry_points

    if bootstrap.install():
        entry_points.load_all(ours=False)  # metrics of other packages; LAVIS is loaded only if one of them imports it
    run_dirs = each_once(run_dirs)
    if out:
        written = [write_comparison(run_dirs, path) for path in out]
    else:
        written = [write_report(run_dir) for run_dir in run_dirs]
    for path in written:
        typer.echo(f"report: {path}")
