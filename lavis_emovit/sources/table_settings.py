"""Settings of a table of images: its files, the column of each field, and how values are read."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.settings import Settings, added_field
from lavis_emovit.sources.base import LabelSettings
from lavis_emovit.sources.clip_files import ClipFiles

WHITESPACE = "whitespace"


class TableColumns(Settings):
    """The column of each field of the record; only `image` must exist.

    `labels` has several labels in one cell. `box` is four columns (left, top, right, bottom, pixels) or one with four
    numbers. `action_units` maps the number of a facial action unit to its column, `extra` lists columns to copy
    unchanged, and `ignore` columns that no field needs; any other column is reported.
    """

    image: str = "image"
    id: str | None = None
    emotion: str | None = None
    labels: str | None = None
    split: str | None = None
    caption: str | None = None
    valence: str | None = None
    arousal: str | None = None
    dominance: str | None = None
    group: str | None = None
    utterance: str | None = None
    score: str | None = None
    start: str | None = None  # start, end: of a clip in its video, in seconds or as 0:01:02.5
    end: str | None = None
    box: tuple[str, ...] = ()
    action_units: dict[int, str] = Field(default_factory=dict)
    extra: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()  # columns that are left out on purpose

    @field_validator("box")
    @classmethod
    def _box_has_one_or_four(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) not in (0, 1, 4):
            raise ValueError("must be one column, or four: left, top, right, bottom")
        return value

    def named(self) -> list[str]:
        """All columns that the table must have."""
        fields = (
            self.image, self.id, self.emotion, self.labels, self.split, self.caption, self.valence, self.arousal,
            self.dominance, self.group, self.utterance, self.score, self.start, self.end, *self.box,
            *self.action_units.values(),
        )  # fmt: skip
        return [name for name in (*fields, *self.extra) if name is not None]


def _as_text(value: Any) -> Any:
    return {key: str(item) for key, item in value.items()} if isinstance(value, dict) else value


class TableFile(Settings):
    """One file of several."""

    path: str = Field(min_length=1)  # the file, below the root of the dataset
    split: str | None = None
    images: str | None = None  # folder of its images, below the root
    fold: int | None = added_field(None)  # number of the fold that its images are tested in, kept in `extra`
    header: tuple[str, ...] | None = added_field(None)  # as that of the table, for a file with other columns
    where: dict[str, str] = Field(default_factory=dict)  # column -> value; rows with another value are ignored

    _values_are_text = field_validator("where", mode="before")(_as_text)


class VoteSettings(Settings):
    """Columns that count the annotators' votes."""

    columns: dict[str, str]  # label -> its column
    # Name -> column of choices outside the label set: they are kept in the shares.
    beside: dict[str, str] = Field(default_factory=dict)
    # Columns of void votes ("unknown", "no face"), not counted in the shares; a row is skipped if most votes are in one
    # of them.
    void: tuple[str, ...] = ()

    def named(self) -> list[str]:
        return [*self.columns.values(), *self.beside.values(), *self.void]


class TableSettings(LabelSettings):
    """A table of images: CSV, JSON lines, a JSON list, or Parquet."""

    file: str = "labels.csv"  # the table, below the root of the dataset
    files: tuple[TableFile, ...] = ()  # several tables instead of one
    format: Literal["csv", "jsonl", "json", "parquet"] | None = None  # null: from the file's suffix
    # Delimiter of a CSV file, or `whitespace`; null: detected from the first row.
    delimiter: str | None = Field(default=None, min_length=1)
    # Quote character of cells that contain the delimiter; null: no cell is quoted.
    quote: str | None = Field(default='"', min_length=1, max_length=1)
    encoding: str = "utf-8-sig"
    # Column for the keys of a JSON object whose values are the rows; null: the file is a list.
    key: str | None = Field(default=None, min_length=1)
    header: tuple[str, ...] | None = None  # names of the columns, for a file without a header row
    skip_rows: int = Field(default=0, ge=0)  # rows to skip at the top
    columns: TableColumns = TableColumns()
    # Column -> value; rows with another value are skipped, such as the frames without a face of OpenFace.
    where: dict[str, str] = Field(default_factory=dict)
    box_format: Literal["corners", "size"] = "corners"  # `size`: the box is left, top, width, height
    # Path of the image as a pattern over columns, `{style}/{painting}.jpg`; `{name:stem}` drops the suffix, and
    # `{frame:06}` pads a number with zeros. Null: the column `columns.image` has the path.
    image: str | None = None
    clips: ClipFiles | None = None  # the paths are those of clips, as here; null: of images
    # Column with the grey values of a square image, separated by spaces; the images are written to files.
    pixels: str | None = None
    # Where the files may be that a Parquet file names in place of images, besides the folder of the table.
    image_folder: str | None = Field(default=None, min_length=1)
    # label_pattern, split_pattern, group_pattern: regular expression on the image's path; its first group is the label,
    # the split, the group.
    label_pattern: str | None = None
    split_pattern: str | None = None
    group_pattern: str | None = None
    votes: VoteSettings | None = None  # columns that count votes; the label is the one with the most
    # `drop` skips an image whose first two labels have equally many votes, `soft` keeps it with its shares and without
    # a label, `first` takes the first of these labels in alphabetical order.
    ties: Literal["drop", "soft", "first"] = "drop"
    # Text between several labels that are one compound class, such as " and "; the classes are those in the table.
    compound: str | None = Field(default=None, min_length=1)
    gather: bool = False  # combine the rows of an image into one record: one vote and one utterance per row
    # Valence, arousal, dominance -> (lowest, highest) of the published scale, which is mapped to [-1, 1].
    scales: dict[Literal["valence", "arousal", "dominance"], tuple[float, float]] = Field(default_factory=dict)
    separator: str = Field(default=",", min_length=1)  # separator of several labels in a cell
    id_from: Literal["name", "path"] = "name"  # `name` of the image file, or its whole `path` if names repeat
    # `refuse` rows with the id of an earlier row and other values, or `leave_out` all of them. Equal rows count once.
    repeated: Literal["refuse", "leave_out"] = "refuse"
    # `refuse` rows whose image is missing, or `leave_out` (skip and count them).
    missing: Literal["refuse", "leave_out"] = "refuse"

    _values_are_text = field_validator("where", mode="before")(_as_text)

    @field_validator("delimiter")
    @classmethod
    def _delimiter_is_one_character(cls, value: str | None) -> str | None:
        if value is not None and value != WHITESPACE and len(value) != 1:
            raise ValueError(f"must be one character, or '{WHITESPACE}'")
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding_exists(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError("is not an encoding that Python knows; try utf-8-sig, cp1252 or latin-1") from None
        return value

    @field_validator("label_pattern", "split_pattern", "group_pattern")
    @classmethod
    def _pattern_has_a_group(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"is not a regular expression ({error})") from None
            if groups != 1:
                raise ValueError("must have one group, `(...)`, around the value")
        return value

    @field_validator("scales")
    @classmethod
    def _scales_rise(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        if any(low >= high for low, high in value.values()):
            raise ValueError("a scale is (lowest, highest)")
        return value

    @model_validator(mode="after")
    def _labels_have_a_set(self) -> TableSettings:
        if self.label_set is None and (self.votes or self.label_pattern or self.columns.labels or self.coarsen_to):
            raise ValueError("labels need `label_set`, the set that they come from")
        if self.compound is not None and (self.columns.labels is None or "," in self.compound):
            raise ValueError("`compound` joins the labels of `columns.labels` by a text without a comma")
        if self.votes is not None and self.label_set is not None:
            for label in self.votes.columns:
                get_label_set(self.label_set).canonical(label)
        if self.pixels is not None and self.image is not None:
            raise ValueError("`pixels` and `image` exclude each other: an image is either in the table or in a file")
        if self.clips is not None and (self.pixels is not None or self.gather):
            raise ValueError("`pixels` and `gather` are for images, not for `clips`")
        if (self.columns.start or self.columns.end) and (self.clips is None or self.clips.stored_as != "videos"):
            raise ValueError("`columns.start` and `end` are times in a video; set `clips.stored_as` to videos")
        return self

    def tables(self) -> tuple[TableFile, ...]:
        return self.files or (TableFile(path=self.file),)

    def named(self) -> list[str]:
        """All columns that the files must have."""
        names = [name for name in self.columns.named() if name != self.columns.image]
        if self.pixels is not None:
            names.append(self.pixels)
        elif self.image is not None:
            names += [match.group(1) for match in _FIELD.finditer(self.image)]
        else:
            names.insert(0, self.columns.image)
        names += self.where
        return list(dict.fromkeys(names + (self.votes.named() if self.votes else [])))


_FIELD = re.compile(r"\{([^{}:]+)(?::(stem|0[1-9]))?\}")


def fill(pattern: str, row: dict[str, str]) -> str:
    """A path pattern filled with the cells of a row."""

    def cell(match: re.Match[str]) -> str:
        text, form = row[match.group(1)], match.group(2)
        if form == "stem":
            return text.rpartition(".")[0] or text
        return text.removesuffix(".0").zfill(int(form)) if form else text

    return _FIELD.sub(cell, pattern)
