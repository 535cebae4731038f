"""Frames of videos as numbered image files, and the number tables that annotate them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import TypeVar

from lavis_emovit.errors import DataError
from lavis_emovit.files import IMAGE_SUFFIXES, read_file
from lavis_emovit.sources.base import parse_number

_NUMBER_AT_END = re.compile(r"(\d+)$")

PathT = TypeVar("PathT", bound=PurePath)


def frames_in(folder: Path) -> dict[int, Path]:
    """Frame number -> file, from the digits at the end of each image's name. DataError if two have the same number."""
    return numbered(path for path in sorted(folder.iterdir()) if is_image(path)) if folder.is_dir() else {}


def is_image(path: PurePath) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def numbered(images: Iterable[PathT]) -> dict[int, PathT]:
    """As `frames_in`, of the images of a folder."""
    found: dict[int, PathT] = {}
    for path in images:
        if (match := _NUMBER_AT_END.search(path.stem)) is not None:
            first = found.setdefault(int(match.group(1)), path)
            if first != path:
                raise DataError(f"{path.parent}: {first.name} and {path.name} have the same frame number; remove one")
    return found


def number_rows(path: Path, *, header: bool = False, numbered: bool = False) -> tuple[list[str], list[list[float]]]:
    """The cells of the header, if there is one, and the numbers of a text file, one row per line.

    Commas, semicolons or spaces separate them. DataError names a line with another cell, or a number that is not
    finite, and, if the lines are `numbered` by their place alone, a blank line before the last one.
    """
    try:
        lines = read_file(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None
    names = [cell.strip() for cell in re.split(r"[,;\t]", lines[0])] if header and lines else []
    rows = []
    while numbered and lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines[1:] if header else lines, start=2 if header else 1):
        if numbered and not line.strip():
            raise DataError(f"{path}, line {number}: blank, but the place of a line is its frame; fill or remove it")
        if line.strip():
            try:
                rows.append([parse_number(cell) for cell in re.split(r"[,;\s]+", line.strip())])
            except ValueError:
                raise DataError(f"{path}, line {number}: expected numbers, got '{line.strip()[:60]}'") from None
    return names, rows


def whole_number(value: float, place: Path) -> int:
    """A code, a unit or a frame as an integer; DataError for a fraction."""
    if not value.is_integer():
        raise DataError(f"{place}: expected a whole number, got {value:g}")
    return int(value)
