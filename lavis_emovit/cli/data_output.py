"""Where `emovit data import` and `data split` may write: never over what they read, nor unasked over what is there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from lavis_emovit.errors import DataError

OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an existing records file.")]

_RECORD_KEYS = {"id", "image", "split", "source"}


def check_output(out: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse a records file that cannot be written without losing something. Nothing is written here.

    Args:
        out: the file to write.
        inputs: files that are read; none of them is ever replaced.
        overwrite: whether an existing records file may be replaced. Any other file, a picture or a list of the
            dataset for example, may not.

    Raises:
        DataError: `out` is an input, a folder, a file that is no records file, or there without `overwrite`.
    """
    place = out.resolve()
    for path in inputs:
        if path.resolve() == place:
            raise DataError(f"{out}: it is the file that is read, and would be lost; give another --out")
    if out.is_dir():
        raise DataError(f"{out}: it is a folder; --out must name a file, for example {out / 'records.jsonl'}")
    in_the_way = next((place for place in out.parents if place.exists() and not place.is_dir()), None)
    if in_the_way is not None:
        raise DataError(f"{out}: {in_the_way} is a file, so nothing can be written below it; give another --out")
    if not out.exists():
        return
    if not overwrite:
        raise DataError(f"{out}: exists already; give another --out, or --overwrite to replace it")
    if not _is_records_file(out):
        raise DataError(f"{out}: is no records file, and --overwrite replaces only those; give another --out")


def _is_records_file(path: Path) -> bool:
    """Whether the first line is a record, or there is none."""
    with path.open("rb") as file:
        line = file.readline()
    try:
        return not line.strip() or set(json.loads(line)) >= _RECORD_KEYS
    except (ValueError, TypeError):
        return False
