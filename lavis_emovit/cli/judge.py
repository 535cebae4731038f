"""`emovit judge`: people choose between captions on a blinded sheet; their choices give a win rate."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Let people judge captions: write a blinded sheet, and score filled sheets.",
)


@app.command()
def sheet(
    suite_dir: Annotated[Path, Argument(help="Output folder of a suite with captions (suite.output_dir).")],
    first: Annotated[str, Option(help="The judged model.")],
    out: Annotated[Path, Option(help="Folder for sheet.html, choices.csv and key.json.")],
    second: Annotated[str, Option(help="Another model, or `human`: the best caption of the dataset.")] = "human",
    benchmark: Annotated[str | None, Option(help="The benchmark, if the suite has several.")] = None,
    limit: Annotated[int | None, Option(min=1, help="Highest number of images on the sheet.")] = None,
    seed: Annotated[int, Option(help="Another seed gives another order of images and captions.")] = 0,
    question: Annotated[str, Option(help="What people decide about the two captions.")] = "Which caption is funnier?",
) -> None:
    """Write images with two captions each, A and B; only key.json records who wrote which."""
    from lavis_emovit.plugin import activate

    activate()
    from lavis_emovit.evaluation.suite.caption_sheets import sheet_of_suite

    made = sheet_of_suite(
        suite_dir, out, first=first, second=second, benchmark=benchmark, seed=seed, limit=limit, question=question
    )
    typer.echo(f"{len(made.pairs)} images: {out / 'sheet.html'}; fill in {out / 'choices.csv'}")
    typer.echo(f"do not share before everybody has answered: {out / 'key.json'}")
    for reason in sorted(set(made.left_out.values())):
        typer.echo(f"skipped, {reason}: {sum(one == reason for one in made.left_out.values())}")


@app.command()
def score(
    key: Annotated[Path, Argument(help="key.json of the sheet.")],
    filled: Annotated[list[Path], Argument(metavar="FILLED...", help="Filled copies of choices.csv.")],
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    seed: Annotated[int, Option(min=0, help="Seed of the interval.")] = 0,
) -> None:
    """Print the win rate of filled sheets, with an interval over raters and their agreement."""
    from lavis_emovit.evaluation.sheets import score_sheets

    found = score_sheets(key, filled, seed)
    if json:
        typer.echo(json_module.dumps(found.model_dump(mode="json"), indent=1, ensure_ascii=False))
        return
    interval = "no interval from one rater"
    if found.interval is not None:
        interval = f"{100 * found.interval.low:.1f} to {100 * found.interval.high:.1f}"
    typer.echo(f"{found.first} against {found.second}: win rate {100 * found.win_rate:.1f} % ({interval})")
    typer.echo(
        f"{found.num_wins} wins, {found.num_losses} losses, {found.num_ties} ties (half a win each) by "
        f"{found.num_raters} raters on {found.num_pairs} images; {found.num_blank} left blank"
    )
    for rater, numbers in found.missing.items():
        shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
        typer.echo(f"rows missing from the sheet of '{rater}': {len(numbers)} (images {shown})")
    agreement = "not defined" if found.agreement is None else f"{found.agreement:.2f}"
    typer.echo(f"agreement of raters (Krippendorff's alpha): {agreement}")
    if found.share_of_a is not None:
        typer.echo(f"share of A among A and B: {100 * found.share_of_a:.1f} %")
