"""`emovit data`: draw the sample set; import, preview, count, check, clean and split datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from lavis_emovit.cli.data_checks import all_records, split, stats, verify
from lavis_emovit.cli.data_clean import clean, dedupe
from lavis_emovit.cli.data_import import import_dataset, list_datasets
from lavis_emovit.errors import DataError

app = typer.Typer(help="Create, check and preview datasets.", no_args_is_help=True, add_completion=False)
app.command("import")(import_dataset)
app.command("list")(list_datasets)
app.command("stats")(stats)
app.command("verify")(verify)
app.command("clean")(clean)
app.command("dedupe")(dedupe)
app.command("split")(split)


@app.command()
def draw(
    out: Annotated[Path, Option(help="Folder to create, in EmoSet's layout.")],
    images_per_class: Annotated[int, Option(help="Images per emotion, for 8 emotions.")] = 150,
    seed: Annotated[int, Option(help="The same seed gives the same images.")] = 0,
    size_px: Annotated[int, Option(help="Side of the square images.")] = 192,
    label_noise: Annotated[float, Option(help="Share of labels that are wrong on purpose.")] = 0.04,
) -> None:
    """Draw the sample set: small scenes whose content determines their emotion."""
    from lavis_emovit.progress import progress
    from lavis_emovit.sample_set.write import write_sketch

    with progress("drawing", 8 * images_per_class) as line:
        root = write_sketch(
            out,
            images_per_class=images_per_class,
            seed=seed,
            size_px=size_px,
            label_noise=label_noise,
            progress=line.update,
        )
    typer.echo(f"{8 * images_per_class} images in {root}")


@app.command("images")
def images_command(
    records: Annotated[Path, Argument(help="Records file.")],
    folder: Annotated[Path, Argument(help="Folder that its image paths start in.")],
) -> None:
    """Store where the images of a records file are, after they were moved; later commands then need no --images."""
    from lavis_emovit.records import find_image_root, read_records, remember_image_root

    find_image_root(records, folder)
    found = all_records(read_records(records), records)
    num_there = sum((folder / record.image).is_file() for record in found)
    if not num_there:
        raise DataError(f"{folder}: contains none of the {len(found)} images, such as {found[0].image}; nothing stored")
    remember_image_root(records, folder)
    typer.echo(f"{num_there} of {len(found)} records have their image in {folder}; stored in the summary of {records}")


@app.command()
def preview(
    root: Annotated[Path, Argument(help="Folder in EmoSet's layout, folder with records.jsonl, or records file.")],
    out: Annotated[Path, Option(help="The sheet: .html (with notes), .png or .jpg.")] = Path("preview.html"),
    images: Annotated[Path | None, Option(help="Folder of the image paths, if not the records'.")] = None,
    split: Annotated[str | None, Option(help="Only this split.")] = None,
    per_label: Annotated[int, Option(min=1, help="Images per label.")] = 10,
    tile_px: Annotated[int, Option(min=16, max=1024, help="Side of an image on the sheet.")] = 128,
    seed: Annotated[int, Option(help="Another seed shows other images.")] = 0,
    strict: Annotated[bool, Option("--strict", help="Exit with code 2 if an image cannot be read.")] = False,
) -> None:
    """Show images of a dataset with their labels on one page."""
    from lavis_emovit.sources.contact_sheet import find_records, pick_tiles, write_contact_sheet

    records, image_root = find_records(root, images)
    found = all_records(records, root)
    rows = pick_tiles(found, image_root, per_label, seed=seed, split=split)
    sources = ", ".join(sorted({record.source for record in found}))
    chosen = sum(split is None or record.split == split for record in found)
    subtitle = f"{chosen} records{f' of split {split}' if split else ''}, up to {per_label} of each row, seed {seed}"
    broken = write_contact_sheet(rows, out, tile_px, sources, subtitle)
    shown = sum(len(row.tiles) for row in rows.values())
    typer.echo(f"{shown} images of {len(rows)} labels in {out}")
    for line in broken:
        typer.echo(f"  {line}")
    if strict and broken:
        raise DataError(f"refused by --strict: {len(broken)} of {shown} images cannot be read")
