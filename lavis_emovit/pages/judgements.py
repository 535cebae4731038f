"""A judge sheet and the choices of people on its page, in a CSV file that `emovit judge score` reads."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.sheets import COLUMNS, ENTRIES_NAME
from lavis_emovit.files import read_file
from lavis_emovit.own_files import read_own
from lavis_emovit.pages.decisions import change_file
from lavis_emovit.settings import FrozenModel

CHOICES = ("A", "B", "tie", "")
"""What people can choose; the empty one skips an image."""


class SheetEntry(FrozenModel):
    """An image, as a `data:` URL, with two captions."""

    number: int = Field(ge=1)
    image: str = Field(pattern="^data:image/")
    a: str
    b: str


class Sheet(FrozenModel):
    """The file `sheet.json`, which does not say who wrote the captions."""

    sheet: str = Field(min_length=1)
    question: str = Field(min_length=1)
    entries: tuple[SheetEntry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _numbers_differ(self) -> Sheet:
        if len({entry.number for entry in self.entries}) < len(self.entries):
            raise ValueError("two entries have the same number, so their choices would replace each other")
        return self


@dataclass(frozen=True)
class Choices:
    """The choices of all people about a sheet; the last one of a person about an image counts.

    Attributes:
        path: the CSV file, which need not exist yet.
        sheet: the name of the sheet.
    """

    path: Path
    sheet: str

    def read(self) -> dict[tuple[str, int], str]:
        """(rater, number of the image) -> choice; empty for a skipped image.

        Raises:
            DataError: the file has other columns, a row that cannot be used, or choices about another sheet.
        """
        return self._parsed(read_file(self.path) if self.path.exists() else b"")

    def keep(self, rater: str, number: int, choice: str) -> None:
        """Save a choice. UserError if it is none of `CHOICES`; DataError as in `read`."""
        if choice not in CHOICES:
            raise UserError(f"'{choice}' is none of the choices: A, B or tie.")

        def changed(content: bytes) -> bytes:
            rows = {**self._parsed(content), (rater, number): choice}
            out = io.StringIO()
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows([self.sheet, place, name, chosen] for (name, place), chosen in rows.items())
            return out.getvalue().encode()

        change_file(self.path, changed)

    def _parsed(self, content: bytes) -> dict[tuple[str, int], str]:
        found: dict[tuple[str, int], str] = {}
        try:
            rows = list(csv.reader(io.StringIO(content.decode()), strict=True))
            if rows and tuple(rows[0]) != COLUMNS:
                raise ValueError(f"its columns should be {', '.join(COLUMNS)}")
            for sheet, number, rater, choice in filter(None, rows[1:]):
                if sheet != self.sheet:
                    raise ValueError(f"it has choices about the sheet '{sheet}', not '{self.sheet}'")
                found[rater, int(number)] = choice
        except (ValueError, csv.Error) as error:
            raise DataError(f"{self.path}: cannot be used ({error}); name another file by --choices") from None
        return found


def read_sheet(folder: Path) -> Sheet:
    """The sheet in a folder that `emovit judge sheet` wrote; DataError if there is none, or if it is damaged."""
    path = folder / ENTRIES_NAME
    if not path.is_file():
        raise DataError(f"{folder}: has no {ENTRIES_NAME}; pass a folder that `emovit judge sheet` wrote")
    return read_own(path, Sheet, "Write the sheet again.")
