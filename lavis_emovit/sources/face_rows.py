"""Rows of tables of faces: their cells, and the face that a row describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.base import parse_number

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Face:
    """A face whose image was found."""

    image: str
    table: str  # name of the file
    units: dict[int, float]
    without_intensity: tuple[int, ...]  # those of `units` that are probabilities, or 1 and 0
    box: Box | None  # left, top, right, bottom in pixels of the image
    confidence: float | None
    video: str | None  # None for a single image
    frame: int | None
    fields: dict[str, Any] = field(default_factory=dict)  # emotion and its label set, valence, arousal

    @property
    def values(self) -> dict[str, Any]:
        """The values as fields of a record."""
        return {"action_units": self.units or None, **self.fields}

    def marks(self, program: str, presence_scale: str) -> dict[str, str | int | float | bool]:
        """Program, scale, confidence and frame, for `extra` of a record."""
        marks: dict[str, str | int | float | bool] = {}
        if self.units:
            has_intensity = len(self.without_intensity) < len(self.units)
            marks |= {"units_by": program, "units_scale": "intensity" if has_intensity else presence_scale}
        if self.without_intensity:
            marks["occurrence_only"] = ",".join(map(str, self.without_intensity))
        if "emotion" in self.fields:
            marks["expression_by"] = program
        if "valence" in self.fields:
            marks["affect_by"] = program
        if self.confidence is not None:
            marks["confidence"] = self.confidence
        if self.frame is not None:
            marks["frame"] = self.frame
        return marks

    def may_be(self, record: EmotionRecord) -> bool:
        """Whether its center is in the box of a record of its image; True if one of the two has no box."""
        if self.box is None or record.box is None:
            return True
        x, y = (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2
        return record.box[0] <= x <= record.box[2] and record.box[1] <= y <= record.box[3]


def cell_text(cell: Any) -> str:
    """The text of a cell; an empty one for NaN, which pandas writes for no value."""
    text = str(cell).strip()
    return "" if text.lower() == "nan" else text


def number_in(cells: Mapping[str, str], column: str) -> float | None:
    """The number in a column; None if there is none. DataError for another text."""
    if not (text := cells.get(column, "")):
        return None
    try:
        return parse_number(text)
    except ValueError:
        raise DataError(f"column '{column}': '{text}' is not a number") from None


def whole_number_in(cells: Mapping[str, str], column: str) -> int:
    """The whole number in a column, not below 0. DataError if there is another text, or none."""
    value = number_in(cells, column)
    if value is None or not value.is_integer() or value < 0:
        raise DataError(f"column '{column}': expected a whole number, got '{cells.get(column, '')}'")
    return int(value)
