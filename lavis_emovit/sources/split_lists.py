"""Official split lists: files that name the images of each split, for datasets whose layout does not have splits.

A list is text with one image a line (a tab, a comma or a trailing label ends the name; `#` begins a comment), or JSON:
a list of names. A name is the path of an image, or its last parts (`anger/12.jpg` for `images/anger/12.jpg`).

A list of clips whose frames are image files names their folders.

A benchmark of several datasets has one table of all samples instead: a CSV file, with a column of names and others that
choose the rows. Its names may begin with folders that the dataset does not have.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.files import load_json, regular_file
from lavis_emovit.paths import expand_home
from lavis_emovit.records import EmotionRecord, RecordStore
from lavis_emovit.settings import Settings

logger = logging.getLogger(__name__)

_TRAILING_LABEL = re.compile(r"\s+-?\d+$")


class ListedImages(NamedTuple):
    """A list, or the rows of a table: those with these values in other columns."""

    path: Path
    column: str | None = None
    where: Mapping[str, str] = {}

    def __str__(self) -> str:
        chosen = ", ".join(f"{name}={value}" for name, value in self.where.items())
        return f"{self.path} ({chosen})" if chosen else str(self.path)


class SplitList(Settings):
    """One of `prepare.split_lists`; a path alone means `{file: PATH}`.

    Attributes:
        file: below the dataset's folder, or else relative to the working directory.
        column: of a CSV file, the column with the names of the images; null: the file is a list.
        where: column -> value of the rows that belong to the list; others are ignored.
    """

    file: str = Field(min_length=1)
    column: str | None = Field(default=None, min_length=1)
    where: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _table_has_a_column(self) -> SplitList:
        if self.where and self.column is None:
            raise ValueError("`where` chooses rows of a table, so it needs `column`, the one with the images")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> Any:
        """Shards of earlier versions recorded the path alone."""
        return dump(self) if self.column is not None else self.file

    def below(self, root: Path) -> ListedImages:
        """The list of a dataset in the folder `root`."""
        path = expand_home(self.file)
        is_elsewhere = path.is_file() and not (root / path).is_file()
        return ListedImages(path.resolve() if is_elsewhere else root / path, self.column, self.where)


Lists = Mapping[str, "Path | ListedImages"]


def split_by_lists(
    records: Iterable[EmotionRecord], lists: Lists, *, skip_missing: bool = False
) -> Sequence[EmotionRecord]:
    """The records that the lists name, each in its split; the others are counted and left out.

    Args:
        lists: split -> its list.
        skip_missing: count entries without an image instead of refusing them.

    Raises:
        DataError: lists that cannot be read, overlap, name an image twice or none, or have entries without an image;
            all of it together.
    """
    split_of, problems = read_lists(lists)
    entry_of = _ends_of_tables(lists, split_of)
    found: dict[str, str] = {}  # entry -> id of its record

    def chosen() -> Iterable[EmotionRecord]:
        num_left_out = 0
        for record in records:
            place = _place(record)
            entry = next((name for name in _names(place) if name in split_of), entry_of.get(place))
            if entry is None:
                num_left_out += 1
                continue
            if entry in found:
                problems.append(f"'{entry}' names both '{found[entry]}' and '{record.id}'; write more of their paths")
                continue
            found[entry] = record.id
            yield record.model_copy(update={"split": split_of[entry]})
        if num_left_out:
            logger.warning("%d images are in none of the split lists and are left out", num_left_out)

    kept = RecordStore(chosen())
    for split, path in lists.items():
        missing = [entry for entry, name in split_of.items() if name == split and entry not in found]
        if missing and skip_missing:
            logger.warning(
                "%s: %d entries have no image and are left out, such as '%s'", path, len(missing), missing[0]
            )
        elif missing:
            problems.append(
                f"{path}: {len(missing)} entries have no image, such as '{missing[0]}'. Complete the images, or set "
                "`skip_bad: true` to leave them out"
            )
    if problems:
        raise DataError(f"the split lists do not match the images:\n{bullet_list(problems)}")
    return kept


def _ends_of_tables(lists: Lists, split_of: Mapping[str, str]) -> dict[str, str]:
    """Ends of the entries of tables -> entry, without ends that several entries have."""
    tables = {split for split, file in lists.items() if isinstance(file, ListedImages) and file.column is not None}
    entry_of: dict[str, str] = {}
    ambiguous = set()
    for entry in (entry for entry, split in split_of.items() if split in tables):
        for end in _names(entry)[2::2]:
            if entry_of.setdefault(end, entry) != entry:
                ambiguous.add(end)
    return {end: entry for end, entry in entry_of.items() if end not in ambiguous}


def read_lists(lists: Lists) -> tuple[dict[str, str], list[str]]:
    """Entry -> split, and what is wrong with the lists."""
    split_of: dict[str, str] = {}
    problems: list[str] = []
    for split, path in lists.items():
        try:
            entries = list(_entries(path if isinstance(path, ListedImages) else ListedImages(path)))
        except (OSError, ValueError) as error:
            problems.append(f"{path}: cannot be read ({error})")
            continue
        if not entries:
            problems.append(f"{path}: names no image")
        repeated = [entry for entry in entries if split_of.get(entry, split) != split]
        twice = len(entries) - len(set(entries))
        if repeated:
            other = split_of[repeated[0]]
            problems.append(f"{path}: {len(repeated)} images are also in split '{other}', such as '{repeated[0]}'")
        if twice:
            problems.append(f"{path}: {twice} images are listed twice")
        split_of |= {entry: split for entry in entries if entry not in split_of}
    return split_of, problems


def _entries(listed: ListedImages) -> Iterator[str]:
    path = listed.path
    if listed.column is not None:
        with regular_file(path).open(encoding="utf-8-sig", newline="") as file:
            names: list[str] = list(_column(csv.DictReader(file), listed.column, listed.where))
        return (_path(name) for name in names)
    text = regular_file(path).read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        names = load_json(text)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("expected a JSON list of names")
    else:
        lines = (re.split(r"[\t,]", line, maxsplit=1)[0].strip() for line in text.split("\n"))
        names = [_TRAILING_LABEL.sub("", line) for line in lines if line and not line.startswith("#")]
    return (_path(name) for name in names)


def _path(name: str) -> str:
    return name.strip().replace("\\", "/").removeprefix("./").strip("/")


def _column(table: csv.DictReader[str], column: str, where: Mapping[str, str]) -> Iterator[str]:
    """Values of a column in the rows with these values in others; ValueError for columns that the table lacks."""
    columns = list(table.fieldnames or ())
    if absent := [name for name in (column, *where) if name not in columns]:
        raise ValueError(f"no column {', '.join(absent)}; its columns are {', '.join(columns)}")
    for row in table:
        if all((row[name] or "").strip() == value for name, value in where.items()):
            yield row[column] or ""


def _place(record: EmotionRecord) -> str:
    """The path of the image or video, or the folder of the frames."""
    has_frames = record.clip is not None and record.clip.frames is not None
    return record.image.rpartition("/")[0] if has_frames else record.image


def _names(image: str) -> list[str]:
    """What a list may call an image: its path, then shorter ends of it, each also without the ending of the file."""
    parts = image.split("/")
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    return [name for end in ends for name in (end, end.rpartition(".")[0] or end)]
