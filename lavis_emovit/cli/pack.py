"""`emovit pack`: a tuned model as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument

from lavis_emovit.cli.options import BaseOption, StepOption

app = typer.Typer(help="Write a tuned model as one file for another machine.", add_completion=False)


@app.command()
def pack(
    model: Annotated[str, Argument(help="Folder of a run, or one of its checkpoints.")],
    target: Annotated[Path, Argument(help="File to write, *.emovit.")],
    step: StepOption = None,
    base: BaseOption = None,
) -> None:
    """Write a tuned model as one file for another machine.

    It has the trained weights, settings, questions and a card. The weights that it was tuned from are not in the file;
    the other machine finds them as this one does, or where --base says.
    """
    from lavis_emovit.checkpoints.tuned_files import find_tuned, pack
    from lavis_emovit.tuned.card import model_card

    tuned = find_tuned(model, step, base)
    pack(tuned, target, model_card(tuned))
    typer.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
