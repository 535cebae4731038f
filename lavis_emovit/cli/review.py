"""`emovit review`: people check labels on a page; how far they agree, and the records with what they decided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from lavis_emovit.cli.options import HostOption, PortOption
from lavis_emovit.errors import UserError

if TYPE_CHECKING:
    from lavis_emovit.pages.reviews import Decision, Review

app = typer.Typer(help="Let people check the labels of records or predictions.", add_completion=False)


@app.command()
def review(
    place: Annotated[Path, Argument(help="Records file, or predictions in JSON lines, see emovit predict --out.")],
    reviewer: Annotated[str | None, Option(help="Who decides: opens the page for this person.")] = None,
    agreement: Annotated[bool, Option("--agreement", help="Report how far the reviewers agree instead.")] = False,
    decisions: Annotated[Path, Option(help="File in which the decisions of all people are kept.")] = Path(
        "reviews.jsonl"
    ),
    disputed: Annotated[bool, Option("--disputed", help="Show only images on which others disagree.")] = False,
    adjudicator: Annotated[
        str | None, Option(help="With --agreement: the reviewer whose label counts where others disagree.")
    ] = None,
    out: Annotated[Path | None, Option(help="With --agreement: file for the records with the decided labels.")] = None,
    images: Annotated[Path | None, Option(help="Folder of the image paths, if not that of the records.")] = None,
    labels: Annotated[str | None, Option(help="Label set to choose from, if not that of the records.")] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = None,
) -> None:
    """Let people check the labels of records or predictions.

    Each person runs the command with their name and the same file of decisions, also at the same time.
    """
    from lavis_emovit.pages.decisions import person_named
    from lavis_emovit.pages.reviews import agreement as measure
    from lavis_emovit.pages.reviews import open_review, read_decisions

    if agreement == (reviewer is not None):
        raise UserError("use either --reviewer NAME, which opens the page, or --agreement")
    if (out or adjudicator) and not agreement:
        raise UserError("--out and --adjudicator belong to --agreement")
    opened = open_review(place, images, labels)
    made = read_decisions(decisions)
    if reviewer is None:
        _report(opened, made, decisions, adjudicator, out)
        return
    name = person_named(reviewer)
    items = opened.items
    if disputed:
        others = {image: {who: one for who, one in by.items() if who != name} for image, by in made.items()}
        names = set(measure(opened, others).disputed)
        items = tuple(item for item in items if item.name in names)
        if not items:
            raise UserError(f"{decisions}: other reviewers disagree on no image of {place}")
    from lavis_emovit.pages.review import review_page
    from lavis_emovit.pages.site import served, wait_for_stop

    with served(lambda: review_page(opened, items, name, decisions), host=host, port=port) as address:
        typer.echo(f"the page is at {address}; Ctrl+C ends it. Decisions are kept in {decisions}")
        wait_for_stop()


def _report(
    opened: Review, made: dict[str, dict[str, Decision]], decisions: Path, adjudicator: str | None, out: Path | None
) -> None:
    from lavis_emovit.pages.reviews import DROPPED, agreement, reviewed_records
    from lavis_emovit.records import remember_image_root, write_records

    found = agreement(opened, made)
    if not found.reviewers:
        raise UserError(f"{decisions}: has no decision about these images; let people review them first")
    if adjudicator is not None and adjudicator not in found.reviewers:
        raise UserError(f"{decisions}: has no label by '{adjudicator}', but by {', '.join(found.reviewers)}")
    for name, count in found.reviewers.items():
        typer.echo(f"{name}: labels for {count} of {len(opened.items)} images")
    alpha = "not defined" if found.alpha is None else f"{found.alpha:.3f}"
    typer.echo(f"agreement on {found.num_shared} shared images (Krippendorff's alpha): {alpha}")
    for name in found.disputed[:20]:
        typer.echo(f"  disputed: {name}: " + ", ".join(f"{who} {one.label}" for who, one in sorted(made[name].items())))
    if found.num_unknown:
        typer.echo(f"decisions about {found.num_unknown} images that are not among these count nowhere", err=True)
    if len(found.disputed) > 20:
        typer.echo(f"  ... and {len(found.disputed) - 20} more; --disputed shows them on the page")
    if out is None:
        return
    if out.exists():
        raise UserError(f"{out} exists; choose another file")
    records, counts = reviewed_records(opened, made, adjudicator)
    num_dropped = counts.pop(DROPPED, 0)
    if not records:
        raise UserError(f"{out}: no record is decided ({_listed(counts)})")
    write_records(out, records)
    remember_image_root(out, opened.root)
    left = counts["undecided"] + counts["disputed"]
    typer.echo(f"{out}: {len(records)} records ({_listed(counts)})")
    if num_dropped:
        typer.echo(f"{num_dropped} {DROPPED}; `emovit generate` writes new ones")
    if left:
        typer.echo(f"{left} records are left out: nobody decided them, or there is no majority")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {how}" for how, count in sorted(counts.items()))
