"""`emovit export`: data and rewards for other trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

app = typer.Typer(help="Write data and rewards for other trainers.", no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """Write data and rewards for other trainers."""


@app.command()
def data(
    place: Annotated[str, Argument(help="Records file, shards, or the folder of a prepared dataset.")],
    out: Annotated[Path, Option(help="Folder to create.")],
    format: Annotated[str, Option(help="llava, ms-swift, llamafactory, trl, easyr1, verl or faba.")],
    images: Annotated[Path | None, Option(help="Folder of the image paths, if not the records'.")] = None,
    kinds: Annotated[str | None, Option(help="Kinds of instructions, separated by commas; by default all.")] = None,
    join: Annotated[bool, Option("--join", help="One conversation per image instead of one per question.")] = False,
    as_shown: Annotated[bool, Option("--as-shown", help="Write images that the trainer would distort as PNG.")] = False,
    box: Annotated[
        str, Option(metavar="[whole|crop]", help="What to write of an image whose record has a box.")
    ] = "whole",
    margin: Annotated[
        float, Option(min=0.0, max=10.0, help="Around the box in a crop, as a share of its width and height.")
    ] = 0.0,
    skip_bad: Annotated[bool, Option("--skip-bad", help="Skip unusable images instead of stopping.")] = False,
    strict: Annotated[bool, Option("--strict", help="Refuse people and images that are in several splits.")] = False,
) -> None:
    """Write questions, answers and images in the format of another trainer, one file per split."""
    from lavis_emovit.boxes import BoxSettings
    from lavis_emovit.exchange.export import dataset_name, export_data
    from lavis_emovit.exchange.formats import FORMATS
    from lavis_emovit.progress import progress
    from lavis_emovit.settings import valid_settings

    chosen = [kind.strip() for kind in kinds.split(",")] if kinds is not None else []
    with progress("exporting") as line:
        summary = export_data(
            place,
            out,
            format,
            images=images,
            kinds=chosen,
            join=join,
            as_shown=as_shown,
            show=valid_settings(BoxSettings, {"show": box, "margin": margin}, "--box", "the command line"),
            skip_bad=skip_bad,
            strict=strict,
            progress=line.update,
        )
    for split, counts in summary["splits"].items():
        found = ", ".join(f"{kind} {count}" for kind, count in counts["kinds"].items())
        typer.echo(
            f"{split}: {counts['conversations']} conversations about {counts['images']} images in "
            f"{out / counts['file']} ({found})"
        )
    for reason, count in summary["skipped"].items():
        examples = summary["skipped_examples"][reason]
        typer.echo(f"  skipped: {count} {reason} ({', '.join(examples[:3])}{', ...' if count > 3 else ''})")
    if summary["shown_otherwise"]:
        found = ", ".join(f"{kind} {count}" for kind, count in summary["shown_otherwise"].items())
        what = "are PNG now, as they are shown here" if as_shown else "show other pixels there; --as-shown prevents it"
        typer.echo(f"  note: images that {what}: {found}")
    if summary["shared_whole"] is not None:
        typer.echo(f"  warning: {summary['shared_whole']}; --box crop writes the part in the box")
    for text in summary["in_several_splits"]:
        typer.echo(f"  note: {text}")
    split = "train" if "train" in summary["splits"] else next(iter(summary["splits"]))
    file = out / summary["splits"][split]["file"]
    typer.echo(f"  use: {FORMATS[format].usage.format(out=out, file=file, split=split, name=dataset_name(out))}")


@app.command()
def rewards(
    preset: Annotated[str, Argument(help="Name of a preset of rewards, or a YAML file with your own.")],
    out: Annotated[Path, Option(help="Python file to write.")],
    format: Annotated[str, Option(help="verl, easyr1 or ms-swift.")],
    options: Annotated[
        list[str] | None, Option(help="Override, such as rewards.label_exact.weight=0.7; may be repeated.")
    ] = None,
    leave_out: Annotated[str | None, Option(help="Rewards to leave out, separated by commas.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a preset of rewards as a plug-in file for another trainer."""
    from lavis_emovit.exchange.rewards import export_rewards

    left_out = [name.strip() for name in leave_out.split(",")] if leave_out is not None else []
    usage = export_rewards(preset, format, out, options=options or [], leave_out=left_out, overwrite=overwrite)
    typer.echo(f"{out}: written\n  use: {usage}")
