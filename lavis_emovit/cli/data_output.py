"""Checks the output of `emovit data import` and `data split`: never an input file, or an existing file by accident."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from typer import Option

from lavis_emovit.errors import DataError

OverwriteOption = Annotated[bool, Option("--overwrite", help="Replace an existing records file.")]

_RECORD_KEYS = {"id", "image", "split", "source"}


def check_output(out: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse (DataError) an output file whose creation would lose data; `overwrite` may replace only a records file."""
    place = out.resolve()
    for path in inputs:
        if path.resolve() == place:
            raise DataError(f"{out}: is an input file, which would be lost; use another --out")
    if out.is_dir():
        raise DataError(f"{out}: is a folder; --out must be a file, for example {out / 'records.jsonl'}")
    in_the_way = next((place for place in out.parents if place.exists() and not place.is_dir()), None)
    if in_the_way is not None:
        raise DataError(f"{out}: {in_the_way} is a file, not a folder; use another --out")
    if not out.exists():
        return
    if not overwrite:
        raise DataError(f"{out}: already exists; use another --out, or --overwrite to replace it")
    if not _is_records_file(out):
        raise DataError(f"{out}: is not a records file, and --overwrite replaces only those; use another --out")


def _is_records_file(path: Path) -> bool:
    """Whether the first line is a record, or empty."""
    with path.open("rb") as file:
        line = file.readline()
    try:
        return not line.strip() or set(json.loads(line)) >= _RECORD_KEYS
    except (ValueError, TypeError):
        return False
