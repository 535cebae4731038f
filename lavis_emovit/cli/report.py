"""`emovit report`: write the report of runs, finished or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Output folders of runs (run.output_dir of a recipe).")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The HTML file, for several runs one page of all; left out: report.html in each folder."),
    ] = None,
) -> None:
    """Write what runs have learned as an HTML page that needs nothing else: figures, curves, pictures, settings."""
    from lavis_emovit.evaluation.report import write_comparison, write_report

    if out is not None and len(run_dirs) > 1:
        written = [write_comparison(run_dirs, out)]
    else:
        written = [write_report(run_dir, out) for run_dir in run_dirs]
    for path in written:
        typer.echo(f"report: {path}")
