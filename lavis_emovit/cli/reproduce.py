"""`emovit reproduce`: what is known about published numbers, and the commands that measure them here."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument, Option

app = typer.Typer(add_completion=False)


@app.command()
def reproduce(
    name: Annotated[str | None, Argument(help="An experiment of the list; all of them if it is left out.")] = None,
    only_list: Annotated[bool, Option("--list", help="Only the names, with what was run here.")] = False,
) -> None:
    """Show published numbers, what is known about them, and the commands that measure them here."""
    from lavis_emovit.evaluation.dossier import describe, load_dossier, overview

    dossier = load_dossier()
    if name is None and only_list:
        for key, title, numbers, status in overview(dossier):
            typer.echo(f"{key}: {title}\n  {numbers}; {status}")
        typer.echo("emovit reproduce NAME shows the commands, and what would not match")
        return
    for key in dossier.experiments if name is None else [name]:
        typer.echo(describe(key, dossier.find(key)))
