"""Cells of tables as text, numbers and boxes."""

from __future__ import annotations

import math
import re
import reprlib
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.sources.base import parse_number
from lavis_emovit.sources.table_files import Row


def cell_text(value: Any) -> str:
    """A cell as text; the empty values of table formats give an empty string."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value.strip() if isinstance(value, str) else str(value)


def cell_number(text: str, column: str) -> float:
    try:
        return parse_number(text or "0")
    except ValueError:
        raise DataError(f"column '{column}': '{text}' is not a number") from None


# Also the minus sign of typesetters (U+2212), to refuse it rather than lose it.
_FLOAT = re.compile(r"[-\u2212]?(?<![\d.])(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")


def cell_box(row: Row, columns: tuple[str, ...]) -> list[float] | None:
    """The four numbers of a box; None if all its cells are empty."""
    value = row[columns[0]] if len(columns) == 1 else [row[column] for column in columns]
    if isinstance(value, str):
        parts: list[Any] = _FLOAT.findall(value)
    else:
        parts = value if isinstance(value, list) else [value]
    cells = [cell_text(part) for part in parts]
    if not any(cells) and (not isinstance(value, str) or not value.strip()):
        return None
    if len(cells) != 4 or not all(cells):
        names = f"column '{columns[0]}'" if len(columns) == 1 else f"columns {', '.join(columns)}"
        raise DataError(f"{names}: expected four numbers (left, top, right, bottom), got {reprlib.repr(value)}")
    return [cell_number(cell, columns[0]) for cell in cells]
