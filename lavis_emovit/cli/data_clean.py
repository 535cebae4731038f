"""`emovit data clean` and `dedupe`: remove what `verify` finds from a records file, and undo that."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from lavis_emovit.cli.data_checks import ImagesOption, NearOption, WorkersOption, checked_files, near_bits_of
from lavis_emovit.cli.data_import import OverwriteOption, check_output, writing
from lavis_emovit.errors import ConfigError, DataError, bullet_list

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from lavis_emovit.records import EmotionRecord
    from lavis_emovit.sources.checks import CheckedFile
    from lavis_emovit.sources.cleaning import Cleaning, Kind

AgainstOption = Annotated[
    list[Path] | None,
    Option(help="Another records file, whose images stay and must not be in this one; repeatable."),
]


def clean(
    records: Annotated[Path | None, Argument(help="Records file; it stays as it is.")] = None,
    out: Annotated[Path | None, Option(help="Records file to write; image paths stay unchanged.")] = None,
    kinds: Annotated[
        str | None,
        Option(
            help="What to remove, of broken,small,conflicts,boxes,duplicates,leaks; by default all but small images."
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    against: AgainstOption = None,
    images: ImagesOption = None,
    near: NearOption = 2,
    quarantine: Annotated[
        Path | None, Option(help="Also move the images that no remaining record uses to this folder.")
    ] = None,
    undo: Annotated[
        Path | None, Option(help="Undo a cleaning with its list (OUT.removed.jsonl), instead of cleaning.")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Only report what would be removed.")] = False,
    workers: WorkersOption = 1,
    show: Annotated[int, Option(min=1, help="Label conflicts to show.")] = 20,
) -> None:
    """Remove what verify finds: broken images, contradictory labels, wrong boxes, duplicates, leaks."""
    from lavis_emovit.sources.cleaning import DEFAULT_KINDS

    if undo is not None:
        if records is not None or out is not None:
            raise ConfigError(["takes the list alone, which names the records file"], "--undo")
        _undo(undo)
        return
    problems = ["RECORDS: missing, the file to clean"] if records is None else []
    problems += ["--out: missing, the records file to write"] if out is None and not dry_run else []
    if problems or records is None:
        raise ConfigError(problems, "the command line")
    chosen = _parse_kinds(kinds) if kinds is not None else DEFAULT_KINDS
    _remove(
        records, out, chosen, overwrite, against or [], images, near, workers, show, dry_run=dry_run,
        quarantine=quarantine, writes_list=True,
    )  # fmt: skip


def dedupe(
    records: Annotated[Path, Argument(help="Records file.")],
    out: Annotated[Path, Option(help="Records file to write; image paths stay unchanged.")],
    overwrite: OverwriteOption = False,
    against: AgainstOption = None,
    images: ImagesOption = None,
    near: NearOption = 2,
    workers: WorkersOption = 1,
    show: Annotated[int, Option(min=1, help="Label conflicts to show.")] = 20,
) -> None:
    """Remove exact and near duplicates, also between splits: the image of the split test stays, then that of val."""
    _remove(records, out, ("duplicates", "leaks"), overwrite, against or [], images, near, workers, show)


def _parse_kinds(text: str) -> tuple[Kind, ...]:
    from lavis_emovit.settings import nearest_name
    from lavis_emovit.sources.cleaning import KINDS

    names = [name.strip() for name in text.split(",")]
    unknown = [f"no kind '{name}'{nearest_name(name, list(KINDS))}" for name in names if name not in KINDS]
    if unknown:
        raise ConfigError(unknown, "--kinds")
    return tuple(kind for kind in KINDS if kind in names)


def _remove(
    records: Path,
    out: Path | None,
    kinds: Collection[Kind],
    overwrite: bool,
    against: list[Path],
    images: list[Path] | None,
    near: int,
    workers: int,
    show: int,
    *,
    dry_run: bool = False,
    quarantine: Path | None = None,
    writes_list: bool = False,
) -> None:
    """Clean a records file; the part that `clean` and `dedupe` share."""
    from lavis_emovit.progress import progress
    from lavis_emovit.records import read_records, write_records, write_summary
    from lavis_emovit.sources.cleaning import clean_records
    from lavis_emovit.sources.duplicates import open_images
    from lavis_emovit.sources.quarantine import list_path, move_images, write_list

    if out is not None and not dry_run:
        check_output(out, [records, *against], overwrite=overwrite)
        if writes_list and list_path(out).exists() and not overwrite:
            raise DataError(f"{list_path(out)}: already exists, and may be needed to undo; use another --out")
    if records.resolve() in {path.resolve() for path in against}:
        raise ConfigError([f"{records} would lose all of its records to itself"], "--against")
    files = checked_files([records, *against], images)
    file = files[0]
    if quarantine is not None and quarantine.resolve().is_relative_to(file.image_root.resolve()):
        raise DataError(
            f"--quarantine {quarantine}: is inside the folder of the images {file.image_root}; choose another"
        )
    with progress("checking images") as display:
        facts = open_images(files, workers, display.update)
    found = clean_records(files, facts, kinds, near_bits_of(near))
    reasons = Counter(removal.reason for removal in found.removed.values())
    moved = _to_move(files, found) if quarantine is not None else {}
    if dry_run or out is None:
        typer.echo(f"{len(file.records) - len(found.removed)} of {len(file.records)} records would stay")
        _report(found, reasons, show)
        return
    with writing(out, overwrite=overwrite):
        count = write_records(out, (record for record in read_records(records) if record.id not in found.removed))
        account: dict[str, Any] = {
            "records": count,
            "removed": dict(reasons),
            "removed_records": [
                {"id": record_id, "kept": removal.kept, "reason": removal.reason}
                for record_id, removal in found.removed.items()
            ],
            "label_conflicts": found.label_conflicts,
            "unread_images": found.num_unread,
        }
        write_summary(out, file.image_root, **account)
        typer.echo(f"{count} of {len(file.records)} records in {out}")
        _report(found, reasons, show)
        if writes_list:
            place = list_path(out)
            # Before any image is moved, so that a crash can be undone.
            listed = write_list(
                place, records, found.removed, out=out, image_root=file.image_root, quarantine=quarantine, moved=moved
            )
            num_moved = move_images(list(listed.moves))
            if quarantine is not None:
                typer.echo(f"  moved: {num_moved} images to {quarantine}")
            typer.echo(f"  undo with: emovit data clean --undo {place}")


def _report(found: Cleaning, reasons: Counter[str], show: int) -> None:
    for reason, number in reasons.most_common():
        typer.echo(f"  removed: {number}, {reason}")
    if found.label_conflicts:
        typer.echo(f"  duplicates with different labels, the first of which stay: {len(found.label_conflicts)}")
        typer.echo(bullet_list(found.label_conflicts, show))
    if found.num_unread:
        typer.echo(f"  note: {found.num_unread} images cannot be read and stay (`emovit data verify` names them)")


def _to_move(files: list[CheckedFile], found: Cleaning) -> Mapping[str, str]:
    """Id of a removed record -> path of its image, for the images that no remaining record uses."""
    from lavis_emovit.sources.checks import image_path

    def place(file: CheckedFile, record: EmotionRecord) -> str:
        # Two files may name one folder in different ways.
        return os.path.realpath(image_path(file, record))

    file, *others = files
    used = {place(file, record) for record in file.records if record.id not in found.removed}
    used |= {place(other, record) for other in others for record in other.records}
    gone = (record for record in file.records if record.id in found.removed)
    return {
        record.id: record.image for record in gone if Path(path := place(file, record)).is_file() and path not in used
    }


def _undo(path: Path) -> None:
    from lavis_emovit.sources.quarantine import undo

    num_images, num_records, out = undo(path)
    typer.echo(f"{num_records} records put back into {out}, {num_images} images moved back")
