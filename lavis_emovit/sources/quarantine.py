"""The list of removed records and moved images, with which a cleaning is undone.

A list is a file of JSON lines: a head, and a line for each removed record, with its place in the original file, why it
was removed, and the quarantine path of its image, if the image was moved.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.files import atomic_writer, file_sha256, read_file
from lavis_emovit.own_files import PathText, Written, parse_own
from lavis_emovit.records import build_record, read_records, write_records
from lavis_emovit.sources.cleaning import Removed

_FORMAT, _VERSION = "emovit-removed", 1
_SHOWN = 10
_ADVICE = "Restore it from a backup; the original records file still has all of its records."


class _Format(Written):
    format: str = ""
    version: int = 0


class _Head(_Format):
    out: PathText
    out_sha256: str
    image_root: PathText
    quarantine: PathText | None
    num_records: int = Field(ge=0)


class _Row(Written):
    place: int = Field(ge=0)
    moved: PathText | None
    record: dict[str, Any]


@dataclass(frozen=True)
class UndoList:
    """Attributes:
    head: `out` and its sha256, `image_root` and `quarantine` (absolute), and the number of records in the original.
    rows: `place`, `kind`, `reason`, `kept`, `record`, and `moved`, the path below both folders, or null.
    """

    head: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def moves(self) -> Iterator[tuple[Path, Path]]:
        """(place among the images, place in the quarantine folder) of every image that was to be moved.

        Records may name one file by several paths, for example through a linked folder; the first one counts.
        """
        seen: set[tuple[str, str]] = set()
        for name in dict.fromkeys(row["moved"] for row in self.rows if row["moved"] is not None):
            place = Path(self.head["image_root"], name)
            if (entry := (os.path.realpath(place.parent), place.name)) not in seen:
                seen.add(entry)
                yield place, Path(self.head["quarantine"], name)


def list_path(out: Path) -> Path:
    return out.with_suffix(".removed.jsonl")


def write_list(
    path: Path,
    records: Path,
    removed: Mapping[str, Removed],
    *,
    out: Path,
    image_root: Path,
    quarantine: Path | None,
    moved: Mapping[str, str],
) -> UndoList:
    """Write the list of a cleaning of `records`, whose result `out` exists.

    `moved` has the image of every record whose image will be moved.
    """
    head: dict[str, Any] = {
        "format": _FORMAT, "version": _VERSION, "out": str(out.resolve()), "out_sha256": file_sha256(out),
        "image_root": str(image_root.resolve()),
        "quarantine": str(quarantine.resolve()) if quarantine is not None else None,
    }  # fmt: skip
    rows = []
    place = -1
    for place, record in enumerate(read_records(records)):
        why = removed.get(record.id)
        if why is not None:
            row = {"place": place, "kind": why.kind, "reason": why.reason, "kept": why.kept}
            rows.append({**row, "moved": moved.get(record.id), "record": json.loads(record.to_json())})
    head["num_records"] = place + 1
    with atomic_writer(path) as file:
        for row in (head, *rows):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return UndoList(head, rows)


def read_list(path: Path) -> UndoList:
    """DataError if there is no such list, or it is damaged."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; pass the list that `emovit data clean` wrote (NAME.removed.jsonl)")
    # Only line feeds end a line; `str.splitlines` would also cut within texts.
    lines = [(f"{path}:{number}", line) for number, line in enumerate(read_file(path).split(b"\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path}: not a list that `emovit data clean` wrote")
    stated = parse_own(lines[0][1], _Format, lines[0][0], _ADVICE)
    if stated.format != _FORMAT:
        raise DataError(f"{path}: not a list that `emovit data clean` wrote")
    if stated.version != _VERSION:
        raise DataError(f"{path}: version {stated.version} of the list; this release reads {_VERSION}")
    head = parse_own(lines[0][1], _Head, lines[0][0], _ADVICE)
    rows = []
    for place, line in lines[1:]:
        row = parse_own(line, _Row, place, _ADVICE).model_dump()
        if row["moved"] not in (None, build_record(row["record"], place).image):
            raise DataError(f"{place}: damaged: 'moved' is not the image of its record. {_ADVICE}")
        if row["moved"] is not None and head.quarantine is None:
            raise DataError(f"{lines[0][0]}: damaged: 'quarantine' is missing. {_ADVICE}")
        rows.append(row)
    return UndoList(head.model_dump(), rows)


def move_images(moves: Sequence[tuple[Path, Path]]) -> int:
    """Move every file that is at its first place to its second one, and return their number.

    A link is moved as a link to the same file. DataError, before any file is moved, if files are already at a second
    place.
    """
    waiting = [(start, end) for start, end in moves if os.path.lexists(start)]
    taken = [f"{end} exists, so {start} cannot be moved there" for start, end in waiting if os.path.lexists(end)]
    if taken:
        raise DataError(f"no image was moved:\n{bullet_list(taken, _SHOWN)}")
    for start, end in waiting:
        end.parent.mkdir(parents=True, exist_ok=True)
        if start.is_symlink() and start.exists() and not (target := start.readlink()).is_absolute():
            # A relative path starts in the folder of the link.
            place = os.path.normpath(start.parent.resolve() / target)
            end.symlink_to(os.path.relpath(place, os.path.realpath(end.parent)))
            start.unlink()
        else:
            shutil.move(start, end)
    return len(waiting)


def undo(path: Path) -> tuple[int, int, Path]:
    """Move the images of a list back and put its records back into the result of the cleaning.

    Returns the numbers of images and records, and the records file. An undone list can be undone again; it does nothing
    more. DataError if the records file has changed, or files are in the way.
    """
    found = read_list(path)
    out = Path(found.head["out"])
    present = {record.id for record in read_records(out)}
    is_undone = all(row["record"]["id"] in present for row in found.rows)
    if not is_undone and file_sha256(out) != found.head["out_sha256"]:
        raise DataError(
            f"{out}: has changed since {path} was written, so the removed records have no place in it. Clean the "
            "original records again with other kinds instead"
        )
    lost = [f"{end}" for start, end in found.moves if not os.path.lexists(start) and not os.path.lexists(end)]
    if lost:
        raise DataError(f"{path}: images are neither in quarantine nor at their place:\n{bullet_list(lost, _SHOWN)}")
    back = {row["place"]: build_record(row["record"], f"{path}: place {row['place']}") for row in found.rows}
    num = found.head["num_records"]
    if not is_undone and (len(back) + len(present) != num or not set(back) <= set(range(num))):
        rows = f"its {len(found.rows)} rows and the {len(present)} of {out} are not the {num} before"
        raise DataError(f"{path}: damaged: {rows}. {_ADVICE}")
    num_moved = move_images([(end, start) for start, end in found.moves])
    if is_undone:
        return num_moved, 0, out
    staying = read_records(out)
    write_records(out, (back[n] if n in back else next(staying) for n in range(num)))
    return num_moved, len(back), out
