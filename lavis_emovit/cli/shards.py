"""`emovit shards`: build, merge, index, verify and describe shards, and write their dataset card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from lavis_emovit.errors import DataError
from lavis_emovit.files import find_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lavis_emovit.clips.clip import FrameSettings
    from lavis_emovit.records import EmotionRecord
    from lavis_emovit.shards.index import ShardIndex

app = typer.Typer(help="Build, merge, index, verify and describe shards.", no_args_is_help=True, add_completion=False)

# Smaller sets are not worth starting processes for.
PARALLEL_FROM_SAMPLES = 5000
PADDING_BATCH_SIZE = 16
RECOGNIZED_FROM_SAMPLES = 1000

Processes = Annotated[int | None, Option(min=1, help="Number of processes; by default all cores for large sets.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace finished shards.")]
SkipBad = Annotated[bool, Option("--skip-bad", help="Skip unusable images instead of stopping.")]
Place = Annotated[str, Argument(help="Folder or URL with index.json, or a folder above such folders.")]


@app.command()
def build(
    records: Annotated[Path, Argument(help="Records file (`emovit data import` creates one).")],
    out: Annotated[Path, Option(help="Folder for the shards.")],
    images: Annotated[Path | None, Option(help="Folder of the image paths, if not the records'.")] = None,
    split: Annotated[str | None, Option(help="Only this split, directly in OUT; else all, in OUT/<split>.")] = None,
    samples_per_shard: Annotated[int, Option(min=1, help="Samples in each shard.")] = 1000,
    seed: Annotated[int, Option(help="Seed of the order in which samples are written.")] = 0,
    processes: Processes = None,
    resize: Annotated[int | None, Option(min=8, help="Shrink images whose shorter side has more pixels.")] = None,
    frames: Annotated[
        str | None, Option(help="Store frames of clips instead of videos, such as 'sampler: uniform, num_frames: 16'.")
    ] = None,
    part: Annotated[str | None, Option(metavar="I/N", help="Only part I of N, for `emovit shards merge`.")] = None,
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
) -> None:
    """Write records with their images as shuffled, indexed webdataset shards. An interrupted build resumes."""
    from lavis_emovit.progress import progress
    from lavis_emovit.records import RecordStore, find_image_root, read_records
    from lavis_emovit.shards.columns import CARD_NAME, INDEX_NAME
    from lavis_emovit.shards.writer import is_built, remove_shards, write_shards
    from lavis_emovit.sources.statistics import labels_outside

    numbers, stored = _part(part), _frame_settings(frames)
    image_root = find_image_root(records, images)
    refused = []
    found = RecordStore(read_records(records))
    for problem in labels_outside(found):
        typer.echo(f"  note: {problem}")
    parts = _by_split(found, records, split, out)
    for folder in _outdated(parts, out) if split is None else ():
        if not overwrite:
            raise DataError(
                f"{folder}: contains finished shards of records that are in other splits of {records}. Pass "
                "`--overwrite` to remove them, or use another folder."
            )
        remove_shards(folder)
        typer.echo(f"removed {folder}: its records are now in other splits")
    # After a build that refused one split, the others are finished.
    resumed = not overwrite and any(not (folder / INDEX_NAME).is_file() for _, _, folder in parts)
    for name, chosen, folder in parts:
        same = seed, samples_per_shard, resize, stored
        if resumed and part is None and is_built(chosen, image_root, folder, *same):
            typer.echo(f"{name}: already finished in {folder}")
            continue
        try:
            with progress(f"building {name}") as line:
                index = write_shards(
                    chosen,
                    image_root,
                    folder,
                    samples_per_shard=samples_per_shard,
                    seed=seed,
                    skip_bad=skip_bad,
                    overwrite=overwrite,
                    progress=line.update,
                    processes=_num_processes(processes, len(chosen)),
                    resize_px=resize,
                    part=numbers,
                    frames=stored,
                )
        except DataError as error:
            # Still build the other splits, and report all faults together.
            refused.append(f"split '{name}': {error}")
            continue
        skipped = len(index.build["skipped"])
        note = f", {skipped} images skipped (`emovit shards stats` lists them)" if skipped else ""
        what = f"{name}, part {part}" if part else name
        typer.echo(f"{what}: {index.num_samples} samples in {len(index.shards)} shards in {index.folder}{note}")
    if refused:
        raise DataError("\n".join(refused))
    if overwrite and (out / CARD_NAME).is_file():
        typer.echo(f"{out / CARD_NAME} describes the earlier shards: run `emovit shards card {out} --overwrite`")


@app.command()
def merge(
    out: Annotated[Path, Argument(help="Folder of the merged set, or one above several such folders.")],
    parts: Annotated[list[Path] | None, Argument(help="Folders of the parts; by default those in OUT.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Join the parts of a build (`emovit shards build --part`) into one set with one index."""
    from lavis_emovit.shards.merge import PART_PATTERN, merge_parts

    above = sorted({path.parent for path in find_files(out, f"*/{PART_PATTERN}")})
    targets = above if not parts and above and not any(out.glob(PART_PATTERN)) else [out]
    for target in targets:
        index = merge_parts(target, parts or (), overwrite=overwrite)
        typer.echo(f"{target}: {index.num_samples} samples in {len(index.shards)} shards")


@app.command("index")
def index_command(
    folder: Annotated[Path, Argument(help="Folder with webdataset tars made by another tool.")],
    source: Annotated[str, Option(help="Name of the dataset, the first part of every record's id.")],
    pattern: Annotated[str, Option(help="Pattern of the tars' names.")] = "*.tar",
    split: Annotated[str, Option(help="Split of the records.")] = "train",
    label_set: Annotated[str | None, Option(help="Label set of the labels.")] = None,
    classes: Annotated[str | None, Option(help="Names of the class numbers, separated by commas.")] = None,
    label_key: Annotated[str | None, Option(help="Key of the label in the samples' JSON.")] = None,
    categorical: Annotated[bool, Option(help="Add the categorical question to labelled images.")] = True,
    skip_bad: SkipBad = False,
    overwrite: Overwrite = False,
) -> None:
    """Index webdataset tars made by another tool: images with json, cls or txt. The tars are not changed."""
    from lavis_emovit.progress import progress
    from lavis_emovit.shards.foreign import Reading, index_tars

    names = tuple(name.strip() for name in classes.split(",")) if classes else None
    reading = Reading(source=source, split=split, label_set=label_set, classes=names, label_key=label_key)
    with progress("indexing") as line:
        index = index_tars(
            folder,
            reading,
            pattern=pattern,
            instruct=_categorical if categorical and label_set is not None else None,
            skip_bad=skip_bad,
            overwrite=overwrite,
            progress=line.update,
        )
    skipped = len(index.build["skipped"])
    note = f", {skipped} samples skipped" if skipped else ""
    typer.echo(f"{folder}: {index.num_samples} samples in {len(index.shards)} tars{note}")


@app.command()
def card(
    folder: Annotated[Path, Argument(help="Folder with index.json, or a folder above such folders.")],
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing README.md.")] = False,
) -> None:
    """Write a dataset card, with which `load_dataset` of Hugging Face's `datasets` reads all keys of every sample."""
    from lavis_emovit.shards.card import write_card

    typer.echo(f'{write_card(folder, overwrite=overwrite)}: read the shards with load_dataset("{folder}")')


@app.command()
def verify(
    folder: Place, decode: Annotated[bool, Option(help="Also decode every image.")] = True, processes: Processes = None
) -> None:
    """Compare every byte, member and record of shards with their index."""
    from lavis_emovit.progress import progress
    from lavis_emovit.shards.index import ShardIndex, find_indexes
    from lavis_emovit.shards.verify import verify_shards

    broken = _unfinished(folder)
    for place in find_indexes(folder):
        try:
            count = _num_processes(processes, ShardIndex.load(place).num_samples)
            with progress("verifying") as line:
                report = verify_shards(place, decode_images=decode, processes=count, progress=line.update)
        except DataError as error:
            typer.echo(f"{place}: its index cannot be used")
            broken.append(str(error))
            continue
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
def stats(folder: Place) -> None:
    """Describe the contents of shards, from their index alone."""
    from lavis_emovit.shards.index import ShardIndex, find_indexes

    for place in find_indexes(folder):
        typer.echo("\n".join(_describe(place, ShardIndex.load(place))))


def _num_processes(requested: int | None, num_samples: int) -> int:
    if requested is not None:
        return requested
    if num_samples < PARALLEL_FROM_SAMPLES:
        return 1
    from lavis_emovit.distributed.cores import usable_cpus

    return usable_cpus()


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit()):
        raise DataError(f"--part {text}: must be I/N, for example 1/4 for the first of four parts")
    return int(number), int(count)


def _frame_settings(text: str | None) -> FrameSettings | None:
    if text is None:
        return None
    import yaml

    from lavis_emovit.clips.clip import FrameSettings
    from lavis_emovit.settings import valid_settings

    try:
        values = yaml.safe_load(f"{{{text}}}")
    except (yaml.YAMLError, ValueError):
        raise DataError(f"--frames {text}: must be settings such as 'sampler: uniform, num_frames: 16'") from None
    return valid_settings(FrameSettings, values, "frames", "--frames")


def _categorical(record: EmotionRecord) -> EmotionRecord:
    from lavis_emovit.generation.categorical import add_categorical

    return next(iter(add_categorical([record])))


def _by_split(
    records: Sequence[EmotionRecord], path: Path, split: str | None, out: Path
) -> list[tuple[str, Sequence[EmotionRecord], Path]]:
    """(name, records, folder) of every split to build."""
    from lavis_emovit.records import RecordStore
    from lavis_emovit.settings import nearest_name

    names = sorted({record.split for record in records})
    if not names:
        raise DataError(f"{path}: contains no records")
    if split is not None and split not in names:
        raise DataError(f"{path}: no record is in split '{split}'{nearest_name(split, names)}")
    if split is not None:
        return [(split, RecordStore(record for record in records if record.split == split), out)]
    return [(name, RecordStore(record for record in records if record.split == name), out / name) for name in names]


def _outdated(parts: Sequence[tuple[str, Sequence[EmotionRecord], Path]], out: Path) -> list[Path]:
    """Folders of finished splits, or parts of them, that no record is in any more, but that contain these records."""
    from lavis_emovit.shards.columns import INDEX_NAME
    from lavis_emovit.shards.index import ShardIndex
    from lavis_emovit.shards.merge import PART_PATTERN
    from lavis_emovit.shards.reader import ShardReader

    names = {name for name, _, _ in parts}
    found = [path.parent for pattern in ("*", f"*/{PART_PATTERN}") for path in out.glob(f"{pattern}/{INDEX_NAME}")]
    others = [folder for folder in sorted(found) if folder.relative_to(out).parts[0] not in names]
    ids = {record.id for _, chosen, _ in parts for record in chosen} if others else set()
    outdated = []
    for folder in others:
        reader = ShardReader(ShardIndex.load(folder))
        # Samples are in random order, so some are enough to recognize the records.
        if any(reader.read(number).record.id in ids for number in range(min(len(reader), RECOGNIZED_FROM_SAMPLES))):
            outdated.append(folder)
        reader.close()
    return outdated


def _unfinished(place: str) -> list[str]:
    """Problems of folders below a place that have shards but no index."""
    from lavis_emovit.shards.columns import INDEX_NAME

    folders = {path.parent for path in find_files(Path(place), "*/shard-*.tar")} if "://" not in place else set()
    return [
        f"{folder}: has shards but no {INDEX_NAME}, so their build is unfinished. Run the command that builds them "
        "again; it resumes."
        for folder in sorted(folders)
        if not (folder / INDEX_NAME).is_file()
    ]


def _describe(place: str, index: ShardIndex) -> list[str]:
    import numpy as np

    size_mb = sum(shard.size_bytes for shard in index.shards) / 1e6
    lines = [place, f"  samples     {index.num_samples} in {len(index.shards)} shards, {size_mb:.1f} MB"]
    lines.append(f"  hash        {index.hash}")
    if resize := index.build.get("resize"):
        lines.append(f"  images      shrunk to {resize['short_side_px']} px on the shorter side")
    if frames := index.build.get("frames"):
        lines.append(f"  clips       at most {frames['num_frames']} frames each, sampler {frames['sampler']}")
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
    if index.num_pairs:
        lines.append(_padding_line(index))
    for item in index.build.get("skipped", []):
        lines.append(f"  skipped     {item['id']}: {item['reason']}")
    return lines


def _padding_line(index: ShardIndex) -> str:
    """Share of padding in batches, with mixed lengths and in length buckets."""
    from lavis_emovit.shards.order import EpochOrder, LengthBucketOrder
    from lavis_emovit.shards.token_lengths import LengthBucketSettings, TokenLengths, padding_share

    settings, samples = LengthBucketSettings(), index.samples_with()
    lengths = TokenLengths.from_index(index, samples, settings)
    mixed = EpochOrder(index.hash, 0, 0, [len(samples)])
    like = LengthBucketOrder(mixed, lengths.longest, PADDING_BATCH_SIZE, settings.window_steps)
    shares = []
    for order in (mixed, like):
        numbers = [number for _, number in order.keys(0, len(samples))]
        starts = range(0, len(numbers), PADDING_BATCH_SIZE)
        shares.append(padding_share(lengths, (numbers[start : start + PADDING_BATCH_SIZE] for start in starts)))
    return (
        f"  padding     of text in batches of {PADDING_BATCH_SIZE} images: {shares[0]:.0%} mixed, {shares[1]:.0%} in "
        f"length buckets of {settings.window_steps} steps"
    )
