"""`emovit judge`: people choose between captions on a blinded sheet; their choices give a win rate."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from lavis_emovit.cli.options import HostOption, PortOption

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Let people judge captions: write a blinded sheet, and score filled sheets.",
)


@app.command()
def sheet(
    suite_dir: Annotated[Path, Argument(help="Output folder of a suite with captions (suite.output_dir).")],
    first: Annotated[str, Option(help="The judged model.")],
    out: Annotated[Path, Option(help="Folder for sheet.html, sheet.json, choices.csv and key.json.")],
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
    typer.echo(f"or on a page: emovit judge page {out} --rater NAME")
    typer.echo(f"do not share before everybody has answered: {out / 'key.json'}")
    for reason in sorted(set(made.left_out.values())):
        typer.echo(f"skipped, {reason}: {sum(one == reason for one in made.left_out.values())}")


@app.command()
def page(
    folder: Annotated[Path, Argument(help="Folder that `emovit judge sheet` wrote; the page does not read key.json.")],
    rater: Annotated[str, Option(help="Who judges.")],
    choices: Annotated[
        Path | None, Option(help="File for the choices of all people; by default page_choices.csv in the folder.")
    ] = None,
    disputed: Annotated[bool, Option("--disputed", help="Show only images on which others disagree.")] = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = None,
) -> None:
    """Show the images of a sheet one by one, to choose a caption by a key or a button.

    Each person runs the command with their name and the same file of choices, also at the same time.
    """
    from lavis_emovit.errors import UserError
    from lavis_emovit.evaluation.adjudication import disputed_numbers
    from lavis_emovit.pages.decisions import person_named
    from lavis_emovit.pages.judge import judge_page
    from lavis_emovit.pages.judgements import Choices, read_sheet
    from lavis_emovit.pages.site import served, wait_for_stop

    name, opened = person_named(rater), read_sheet(folder)
    kept = Choices(choices or folder / "page_choices.csv", opened.sheet)
    entries = opened.entries
    found = kept.read()
    if disputed:
        numbers = disputed_numbers({place: one for place, one in found.items() if one and place[0] != name})
        entries = tuple(entry for entry in entries if entry.number in numbers)
        if not entries:
            raise UserError(f"{kept.path}: other raters disagree on no image of the sheet")
    with served(lambda: judge_page(opened.question, entries, name, kept), host=host, port=port) as address:
        typer.echo(f"the page is at {address}; Ctrl+C ends it. Choices are kept in {kept.path}")
        wait_for_stop()


@app.command()
def score(
    key: Annotated[Path, Argument(help="key.json of the sheet.")],
    filled: Annotated[list[Path], Argument(metavar="FILLED...", help="Filled copies of choices.csv.")],
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    seed: Annotated[int, Option(min=0, help="Seed of the interval.")] = 0,
    adjudicator: Annotated[
        str | None,
        Option(help="The rater whose choice decides an image, where there is one; adds a rate over images."),
    ] = None,
) -> None:
    """Print the win rate of filled sheets, with an interval over raters and their agreement."""
    from lavis_emovit.evaluation.sheets import score_sheets

    found = score_sheets(key, filled, seed, adjudicator)
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
    if (decided := found.decided) is not None:
        rate = "none"
        if decided.win_rate is not None and decided.interval is not None:
            low, high = 100 * decided.interval.low, 100 * decided.interval.high
            rate = f"{100 * decided.win_rate:.1f} % ({low:.1f} to {high:.1f})"
        typer.echo(
            f"decided images: win rate {rate} on {decided.num_decided}, {decided.num_adjudicated} of them by "
            f"{adjudicator}; {decided.num_disputed} left out because they are disputed"
        )
    if found.share_of_a is not None:
        typer.echo(f"share of A among A and B: {100 * found.share_of_a:.1f} %")
