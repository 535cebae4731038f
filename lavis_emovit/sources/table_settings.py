"""Settings of a table of pictures: which files, which column is which field, and how its values are to be read."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lavis_emovit.emotion.labels import LabelSetName, get_label_set
from lavis_emovit.settings import Settings

WHITESPACE = "whitespace"


class TableColumns(Settings):
    """Which column of the table holds which field of the record; only `image` must be there.

    `labels` holds several labels in one cell, `box` names four columns (left, top, right, bottom, pixels) or one that
    holds the four numbers, `action_units` maps the number of a facial action unit to its column, and `extra` names
    columns that go along as they are.
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
    box: tuple[str, ...] = ()
    action_units: dict[int, str] = Field(default_factory=dict)
    extra: tuple[str, ...] = ()

    @field_validator("box")
    @classmethod
    def _box_has_one_or_four(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) not in (0, 1, 4):
            raise ValueError("names one column, or four: left, top, right, bottom")
        return value

    def named(self) -> list[str]:
        """All columns that the table must have."""
        fields = (
            self.image, self.id, self.emotion, self.labels, self.split, self.caption, self.valence, self.arousal,
            self.dominance, self.group, self.utterance, self.score, *self.box, *self.action_units.values(),
        )  # fmt: skip
        return [name for name in (*fields, *self.extra) if name is not None]


class TableFile(Settings):
    """One file of several.

    Attributes:
        path: the file, below the root of the dataset.
        split: split of its rows.
        images: folder of its pictures, below the root.
        where: column -> value; rows with another value are passed over.
    """

    path: str = Field(min_length=1)
    split: str | None = None
    images: str | None = None
    where: dict[str, str] = Field(default_factory=dict)

    @field_validator("where", mode="before")
    @classmethod
    def _values_are_text(cls, value: Any) -> Any:
        return {key: str(item) for key, item in value.items()} if isinstance(value, dict) else value


class VoteSettings(Settings):
    """Columns that count the annotators' votes.

    Attributes:
        columns: label -> its column.
        beside: name -> column of choices that annotators had and that are no label of the set: they stay in the shares.
        void: columns of votes for nothing ("unknown", "no face"): left out of the shares; a row in which one of them
            has the most votes is left out itself.
    """

    columns: dict[str, str]
    beside: dict[str, str] = Field(default_factory=dict)
    void: tuple[str, ...] = ()

    def named(self) -> list[str]:
        """All columns that the table must have."""
        return [*self.columns.values(), *self.beside.values(), *self.void]


class TableSettings(Settings):
    """A table beside the pictures: CSV, lines of JSON, a JSON list, or Parquet.

    Attributes:
        file: the table, below the root of the dataset.
        files: several tables instead of one.
        format: left out, the file's ending says it.
        delimiter: what stands between two cells of a CSV file, or `whitespace`; left out, the first row shows it.
        quote: the character around cells that hold the delimiter.
        encoding: of text files.
        header: names of the columns, for a file whose first row is data.
        skip_rows: rows to pass over at the top.
        label_set: label set of `emotion`, `labels` and `votes`.
        columns: which column is which field.
        image: path of the picture as a pattern over columns, `{style}/{painting}.jpg`; `{name:stem}` leaves the suffix
            out. Without it the column `columns.image` holds the path.
        pixels: column with the grey values of a square picture, separated by blanks; the pictures are written out.
        label_pattern, split_pattern: regular expression on the picture's path; its first group is the label, the split.
        label_names: value of the column -> label; `null` leaves such rows out.
        split_names: value of the column -> split.
        default_split: split of rows without one.
        votes: columns that count votes; the label is the one with the most.
        ties: what happens where two labels have the most votes: `drop` leaves the picture out, `soft` keeps it with its
            shares and no label.
        gather: put the rows of a picture together into one record: a vote each, an utterance each.
        scales: valence, arousal, dominance -> (lowest, highest) of the published scale, brought to [-1, 1].
        separator: what stands between several labels in a cell.
        coarsen_to: a coarser label set to bring the labels to.
        id_from: `name` of the picture's file, or its whole `path`, where names repeat.
        missing: `refuse` rows whose picture is not there, or `leave_out` (and count them).
    """

    file: str = "labels.csv"
    files: tuple[TableFile, ...] = ()
    format: Literal["csv", "jsonl", "json", "parquet"] | None = None
    delimiter: str | None = Field(default=None, min_length=1)
    quote: str = Field(default='"', min_length=1, max_length=1)
    encoding: str = "utf-8-sig"
    header: tuple[str, ...] | None = None
    skip_rows: int = Field(default=0, ge=0)
    label_set: LabelSetName | None = None
    columns: TableColumns = TableColumns()
    image: str | None = None
    pixels: str | None = None
    label_pattern: str | None = None
    split_pattern: str | None = None
    label_names: dict[str, str | None] = Field(default_factory=dict)
    split_names: dict[str, str] = Field(default_factory=dict)
    default_split: str = "train"
    votes: VoteSettings | None = None
    ties: Literal["drop", "soft"] = "drop"
    gather: bool = False
    scales: dict[Literal["valence", "arousal", "dominance"], tuple[float, float]] = Field(default_factory=dict)
    separator: str = Field(default=",", min_length=1)
    coarsen_to: LabelSetName | None = None
    id_from: Literal["name", "path"] = "name"
    missing: Literal["refuse", "leave_out"] = "refuse"

    @field_validator("label_names", "split_names", mode="before")
    @classmethod
    def _codes_are_text(cls, value: Any) -> Any:
        # A code stands as a number in YAML and as text in the table.
        return {str(key): item for key, item in value.items()} if isinstance(value, dict) else value

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
            raise ValueError("is no encoding that Python knows; usual ones are utf-8-sig, cp1252 and latin-1") from None
        return value

    @field_validator("label_pattern", "split_pattern")
    @classmethod
    def _pattern_has_a_group(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"is no regular expression ({error})") from None
            if groups != 1:
                raise ValueError("must have one group, `(...)`, around what it finds")
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
            raise ValueError("labels are read, so `label_set` must say which set they come from")
        if self.votes is not None and self.label_set is not None:
            for label in self.votes.columns:
                get_label_set(self.label_set).canonical(label)
        if self.pixels is not None and self.image is not None:
            raise ValueError("`pixels` and `image` exclude each other: a picture is in the table or beside it")
        return self

    def tables(self) -> tuple[TableFile, ...]:
        """The files to read."""
        return self.files or (TableFile(path=self.file),)

    def named(self) -> list[str]:
        """All columns that the files must have."""
        names = [name for name in self.columns.named() if name != self.columns.image]
        if self.pixels is not None:
            names.append(self.pixels)
        elif self.image is not None:
            names += [name for name, _ in fields_of(self.image)]
        else:
            names.insert(0, self.columns.image)
        return list(dict.fromkeys(names + (self.votes.named() if self.votes else [])))


_FIELD = re.compile(r"\{([^{}:]+)(?::(stem))?\}")


def fields_of(pattern: str) -> list[tuple[str, str]]:
    """The columns in a path pattern, each with how it is used ('' or `stem`)."""
    return [(match.group(1), match.group(2) or "") for match in _FIELD.finditer(pattern)]


def fill(pattern: str, row: dict[str, str]) -> str:
    """A path pattern with the cells of a row in it."""

    def cell(match: re.Match[str]) -> str:
        text = row[match.group(1)]
        return text.rpartition(".")[0] or text if match.group(2) else text

    return _FIELD.sub(cell, pattern)
