"""`emovit suite`: the benchmarks of a suite for other evaluation programs. `python -m lavis.evaluate` runs a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

app = typer.Typer(
    help="Write the benchmarks of a suite for lmms-eval or VLMEvalKit.", no_args_is_help=True, add_completion=False
)


@app.callback()
def _group() -> None:
    """Write the benchmarks of a suite for lmms-eval or VLMEvalKit."""


@app.command()
def export(
    recipe: Annotated[str, Argument(help="Recipe of a suite, as --cfg-path takes it.")],
    to: Annotated[str, Option(help="lmms-eval or vlmevalkit.")],
    out: Annotated[Path, Option(help="Folder to create.")],
    options: Annotated[list[str] | None, Option(help="Override, such as suite.missing=skip; may be repeated.")] = None,
) -> None:
    """Write the benchmarks of a suite, with images and right answers, for another evaluation program."""
    from lavis_emovit.errors import ConfigError
    from lavis_emovit.evaluation.hosts.export import export_suite
    from lavis_emovit.evaluation.suite.recipe import load_suite
    from lavis_emovit.plugin.registration import register
    from lavis_emovit.progress import progress

    suite = load_suite(recipe, options or [], check_names=True)
    if suite is None:
        raise ConfigError(["it has no node `suite`; pass the recipe of a suite"], recipe)
    register()
    with progress("exporting") as line:
        summary = export_suite(suite, to, out, line.update)
    for name, reason in summary["absent"].items():
        typer.echo(f"{name}: skipped, {reason}")
    for name, found in summary["benchmarks"].items():
        lost = f" ({found['without_truth']} samples without a truth left out)" if found["without_truth"] else ""
        if to == "vlmevalkit":
            typer.echo(f"{name}: {found['questions']} questions{lost} in {out / found['file']}, MD5 {found['md5']}")
        else:
            typer.echo(f"{name}: {found['questions']} questions{lost}, task {found['task']}")
    if to == "vlmevalkit":
        names = " ".join(Path(found["file"]).stem for found in summary["benchmarks"].values())
        typer.echo(f"  use: copy the tables to $LMUData, then python run.py --data {names} --model MODEL")
    else:
        names = ",".join(found["task"] for found in summary["benchmarks"].values())
        typer.echo(f"  use: lmms-eval --include_path {out} --tasks {names} --model MODEL")
