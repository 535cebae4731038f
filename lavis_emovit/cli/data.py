"""`emovit data`: draw the sample set, import a published dataset, look at one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lavis_emovit.cli.data_import import import_dataset

app = typer.Typer(help="Make and look at datasets.", no_args_is_help=True, add_completion=False)
app.command("import")(import_dataset)


@app.command()
def draw(
    out: Annotated[Path, typer.Option(help="Folder to make, in EmoSet's layout.")],
    images_per_class: Annotated[int, typer.Option(help="Images for each of the 8 emotions.")] = 150,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pictures.")] = 0,
    size_px: Annotated[int, typer.Option(help="Side of the square pictures.")] = 192,
    label_noise: Annotated[float, typer.Option(help="Share of labels that are wrong on purpose.")] = 0.04,
) -> None:
    """Draw the sample set: small scenes whose emotion follows from what is in them."""
    from rich.progress import Progress

    from lavis_emovit.sources.sketch.write import write_sketch

    with Progress(transient=True) as bar:
        task = bar.add_task("drawing")
        root = write_sketch(
            out,
            images_per_class=images_per_class,
            seed=seed,
            size_px=size_px,
            label_noise=label_noise,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    typer.echo(f"{8 * images_per_class} images in {root}")


@app.command()
def preview(
    root: Annotated[
        Path, typer.Argument(help="Folder in EmoSet's layout, folder with records.jsonl, or records file.")
    ],
    out: Annotated[Path, typer.Option(help="The sheet: .html (with notes), .png or .jpg.")] = Path("preview.html"),
    images: Annotated[Path | None, typer.Option(help="Where picture paths start, if not beside the records.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    per_label: Annotated[int, typer.Option(min=1, help="Pictures of each label.")] = 10,
    tile_px: Annotated[int, typer.Option(min=16, max=1024, help="Side of a picture on the sheet.")] = 128,
    seed: Annotated[int, typer.Option(help="Another seed shows other pictures.")] = 0,
) -> None:
    """Put pictures of a dataset with their labels on one page."""
    from lavis_emovit.sources.contact_sheet import find_records, pick_tiles, write_contact_sheet

    records, image_root = find_records(root, images)
    tiles = pick_tiles(records, image_root, per_label, seed=seed, split=split)
    write_contact_sheet(tiles, out, tile_px)
    typer.echo(f"{sum(len(row) for row in tiles.values())} pictures of {len(tiles)} labels in {out}")
