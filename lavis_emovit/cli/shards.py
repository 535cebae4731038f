"""`emovit shards`: build, verify and describe shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from lavis_emovit.records import EmotionRecord
    from lavis_emovit.shards.index import ShardIndex

app = typer.Typer(help="Build, verify and describe shards.", no_args_is_help=True, add_completion=False)


@app.command()
def build(
    records: Annotated[Path, typer.Argument(help="Records, one JSON object a line (`emovit data import` makes them).")],
    out: Annotated[Path, typer.Option(help="Folder for the shards.")],
    images: Annotated[Path | None, typer.Option(help="Where picture paths start, if not beside the records.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Only this split, right into OUT; else all, in OUT/<split>.")
    ] = None,
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Samples in each shard.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the order in which samples are laid down.")] = 0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave unusable pictures out instead of stopping.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace finished shards.")] = False,
) -> None:
    """Write records with their pictures as shuffled, indexed webdataset shards."""
    from functools import partial

    from rich.progress import Progress

    from lavis_emovit.records import read_records
    from lavis_emovit.shards.writer import write_shards

    for name, chosen, folder in _by_split(list(read_records(records)), records, split, out):
        with Progress(transient=True) as bar:
            task = bar.add_task(f"building {name}")
            index = write_shards(
                chosen,
                images if images is not None else records.parent,
                folder,
                samples_per_shard=samples_per_shard,
                seed=seed,
                skip_bad=skip_bad,
                overwrite=overwrite,
                progress=partial(_show, bar, task),
            )
        skipped = len(index.build["skipped"])
        left_out = f", {skipped} pictures left out (`emovit shards stats` lists them)" if skipped else ""
        typer.echo(f"{name}: {index.num_samples} samples in {len(index.shards)} shards in {folder}{left_out}")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder with index.json, or one above such folders.")],
    decode: Annotated[bool, typer.Option(help="Also decode every picture.")] = True,
) -> None:
    """Compare every byte, member and record of shards with their index."""
    from lavis_emovit.errors import DataError
    from lavis_emovit.shards.verify import verify_shards

    broken = []
    for place in _index_folders(folder):
        report = verify_shards(place, decode_images=decode)
        state = "sound" if report.ok else f"{len(report.problems)} problem(s)"
        typer.echo(f"{place}: {report.num_samples} samples in {report.num_shards} shards, {state}")
        for stray in report.strays:
            typer.echo(f"  {stray} does not belong to the shards")
        try:
            report.raise_if_bad()
        except DataError as error:
            broken.append(str(error))
    if broken:
        raise DataError("\n".join(broken))


@app.command()
def stats(folder: Annotated[Path, typer.Argument(help="Folder with index.json, or one above such folders.")]) -> None:
    """Count what shards hold, from their index alone."""
    from lavis_emovit.shards.index import ShardIndex

    for place in _index_folders(folder):
        typer.echo("\n".join(_describe(ShardIndex.load(place))))


def _show(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _by_split(
    records: list[EmotionRecord], path: Path, split: str | None, out: Path
) -> list[tuple[str, list[EmotionRecord], Path]]:
    """(name, records, folder) of every split to build."""
    from lavis_emovit.errors import DataError
    from lavis_emovit.settings import nearest_name

    names = sorted({record.split for record in records})
    if not names:
        raise DataError(f"{path}: there are no records in it")
    if split is not None and split not in names:
        raise DataError(f"{path}: no record is in split '{split}'{nearest_name(split, names)}")
    wanted = [split] if split is not None else names
    return [
        (name, [record for record in records if record.split == name], out if split is not None else out / name)
        for name in wanted
    ]


def _index_folders(folder: Path) -> list[Path]:
    """The folder itself where it has an index, else those below it that do."""
    from lavis_emovit.errors import DataError
    from lavis_emovit.shards.index import INDEX_NAME

    if (folder / INDEX_NAME).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{INDEX_NAME}"))
    if not found:
        raise DataError(
            f"{folder}: neither it nor a folder in it has an {INDEX_NAME}. Shards are complete only with it; build "
            f"them with `emovit shards build records.jsonl --out {folder}`."
        )
    return found


def _describe(index: ShardIndex) -> list[str]:
    import numpy as np

    size_mb = sum(shard.size_bytes for shard in index.shards) / 1e6
    lines = [f"{index.folder}", f"  samples     {index.num_samples} in {len(index.shards)} shards, {size_mb:.1f} MB"]
    lines.append(f"  hash        {index.hash}")
    lines.append(f"  label sets  {', '.join(index.label_sets) or 'none'}")
    for label, count in index.label_histogram.items():
        lines.append(f"    {label:<16}{count:>8}  {count / index.num_samples:6.1%}")
    unlabelled = index.num_samples - sum(index.label_histogram.values())
    if unlabelled:
        lines.append(f"    {'(no label)':<16}{unlabelled:>8}  {unlabelled / index.num_samples:6.1%}")
    lines.append(f"  pairs       {index.num_pairs}")
    kinds, lengths = index.columns["pair_kind"], index.columns["pair_chars"]
    for number, kind in enumerate(index.kinds):
        own = lengths[kinds == number]
        if len(own):
            low, middle, high = np.percentile(own, [5, 50, 95])
            lines.append(
                f"    {kind:<16}{len(own):>8}  characters: 5 % {low:.0f}, half {middle:.0f}, 95 % {high:.0f}, "
                f"longest {own.max()}"
            )
    for item in index.build.get("skipped", []):
        lines.append(f"  left out    {item['id']}: {item['reason']}")
    return lines
