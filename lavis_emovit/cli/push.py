"""`emovit push`: a tuned model on a hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from lavis_emovit.cli.options import BaseOption, StepOption

app = typer.Typer(help="Publish a tuned model on a hub.", add_completion=False)


@app.command()
def push(
    model: Annotated[str, Argument(help="Folder of a run, a checkpoint, an exported folder, or an archive.")],
    repo: Annotated[str, Argument(help="Repository of the hub, NAME or ORGANISATION/NAME.")],
    step: StepOption = None,
    base: BaseOption = None,
    public: Annotated[bool, Option("--public", help="Open a new repository to everybody.")] = False,
    license_id: Annotated[
        str | None, Option("--license", help="Licence of the trained weights, such as cc-by-nc-4.0, for the card.")
    ] = None,
    revision: Annotated[str | None, Option(help="Branch, created if there is none.")] = None,
    message: Annotated[str, Option(help="Message of the commit.")] = "Upload a tuned model",
    dry_run: Annotated[bool, Option("--dry-run", help="Show files, card and paths, and upload nothing.")] = False,
) -> None:
    """Publish a tuned model on a hub. A new repository is private unless --public is given.

    A run is published as its trained weights, settings, questions and card; an exported folder with all its weights.
    HF_ENDPOINT and HF_TOKEN choose the hub and the account.
    """
    from lavis_emovit.checkpoints.tuned_files import CARD_FILE, find_tuned
    from lavis_emovit.tuned.sharing import HubTarget, private_places, repository_files, upload

    tuned = find_tuned(model, step, base)
    with tempfile.TemporaryDirectory() as root:
        folder = repository_files(tuned, Path(root), repo, license_id)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            typer.echo(f"{path.stat().st_size / 1e6:10.2f} MB  {path.relative_to(folder)}")
        for place in private_places(folder):
            typer.echo(f"published too, a place of this machine: {place}", err=True)
        if dry_run:
            typer.echo(f"\n{(folder / CARD_FILE).read_text(encoding='utf-8')}")
            typer.echo(f"dry run: nothing was uploaded to {repo}")
            return
        typer.echo(upload(folder, HubTarget(repo, public, revision, message)))
