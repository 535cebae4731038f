"""The list of removed records and moved images, with which a cleaning is undone.

A list is a file of JSON lines: a head, and a line for each removed record, with its place in the original file, why it
was removed, and the quarantine path of its image, if the image was moved.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.files import atomic_writer, file_sha256, parse_json
from lavis_emovit.records import build_record, read_records, write_records
from lavis_emovit.sources.cleaning import Removed

_FORMAT, _VERSION = "emovit-removed", 1
_SHOWN = 10


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
        """(place among the images, place in the quarantine folder) of every image that was to be moved."""
        for name in dict.fromkeys(row["moved"] for row in self.rows if row["moved"] is not None):
            yield Path(self.head["image_root"], name), Path(self.head["quarantine"], name)


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
    """DataError if there is no such list."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; pass the list that `emovit data clean` wrote (NAME.removed.jsonl)")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [parse_json(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows or not isinstance(rows[0], dict) or rows[0].get("format") != _FORMAT:
        raise DataError(f"{path}: not a list that `emovit data clean` wrote")
    if rows[0].get("version") != _VERSION:
        raise DataError(f"{path}: version {rows[0].get('version')} of the list; this release reads {_VERSION}")
    return UndoList(rows[0], rows[1:])


def move_images(moves: Sequence[tuple[Path, Path]]) -> int:
    """Move every file that is at its first place to its second one, and return their number.

    DataError, before any file is moved, if files are already at a second place.
    """
    waiting = [(start, end) for start, end in moves if start.is_file()]
    taken = [f"{end} exists, so {start} cannot be moved there" for start, end in waiting if end.exists()]
    if taken:
        raise DataError(f"no image was moved:\n{bullet_list(taken, _SHOWN)}")
    for start, end in waiting:
        end.parent.mkdir(parents=True, exist_ok=True)
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
    lost = [f"{end}" for start, end in found.moves if not start.is_file() and not end.is_file()]
    if lost:
        raise DataError(f"{path}: images are neither in quarantine nor at their place:\n{bullet_list(lost, _SHOWN)}")
    num_moved = move_images([(end, start) for start, end in found.moves])
    if is_undone:
        return num_moved, 0, out
    back = {row["place"]: build_record(row["record"], f"{path}: place {row['place']}") for row in found.rows}
    staying = read_records(out)
    write_records(out, (back[n] if n in back else next(staying) for n in range(found.head["num_records"])))
    return num_moved, len(back), out
