"""Reader of pictures with a table: one row a picture, or several, and a map from record fields to its columns."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_emovit.emotion.labels import coarser_label, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.sources.embedded import PictureFolder
from lavis_emovit.sources.problems import Notes, Problems
from lavis_emovit.sources.table_files import Row, holds_pictures, read_rows
from lavis_emovit.sources.table_settings import TableColumns, TableFile, TableSettings, fill

__all__ = ["TableColumns", "TableFile", "TableSettings", "read_table", "read_tables", "records_from_rows"]

_REMEDY = "Correct or remove these rows of the table."
_NUMBERS = ("valence", "arousal", "dominance", "score")
_TEXTS = ("id", "emotion", "split", "caption", "group", "utterance")


def read_table(
    path: str | os.PathLike[str],
    columns: TableColumns,
    *,
    source: str,
    label_set: str | None = None,
    default_split: str = "train",
    image_root: str | os.PathLike[str] | None = None,
    delimiter: str | None = None,
) -> Iterator[EmotionRecord]:
    """Records of one table, row after row.

    Args:
        path: the file: CSV with the column names in its first row, lines of JSON, a JSON list, or Parquet.
        columns: the column of each field.
        source: name of the dataset, also the first part of each id.
        label_set: label set of the column `emotion`; labels are brought to its canonical names.
        default_split: split of rows without one.
        image_root: where the image paths start; left out, the folder of the table.
        delimiter: what stands between two cells of a CSV file; left out, the first row shows it.

    Returns:
        one record for every sound row, as they are asked for.

    Raises:
        DataError: no such file (at once) or column, or, after the sound ones, rows that cannot be used: an unknown
            emotion, a missing picture, a number that is none, an id that repeats. The row is named.
    """
    path = Path(path)
    settings = TableSettings(
        file=str(path.absolute()),
        columns=columns,
        label_set=label_set,
        default_split=default_split,
        delimiter=delimiter,
    )
    return read_tables(Path(image_root) if image_root is not None else path.parent, settings, source=source)


def read_tables(
    root: str | os.PathLike[str],
    settings: TableSettings,
    *,
    source: str,
    notes: Notes | None = None,
    extract_to: str | os.PathLike[str] | None = None,
) -> Iterator[EmotionRecord]:
    """Records of a dataset that tables describe.

    Args:
        root: folder of the dataset.
        settings: which tables, and what is in their columns.
        source: name of the dataset, also the first part of each id.
        notes: where rows that are left out are counted.
        extract_to: folder for the pictures of tables that hold them; `extracts_pictures` tells which do.

    Returns:
        one record for every picture, as they are asked for.

    Raises:
        DataError: as `read_table`.
    """
    root = Path(root)
    for table in settings.tables():
        path = root / table.path
        if not path.is_file():
            names = ", ".join(settings.named())
            raise DataError(f"{path}: no such table. It must be a CSV, JSON or Parquet file with the columns {names}.")
    if settings.columns.emotion is not None and settings.label_set is None:
        raise DataError(
            f"{root / settings.tables()[0].path}: column '{settings.columns.emotion}' holds emotions; say which label "
            "set they come from, as label_set (`--label-set mikels8`, or one of your own: 'labels:calm, tense')"
        )
    pictures = None
    if extracts_pictures(root, settings):
        if extract_to is None:
            raise DataError(f"{root}: its tables hold the pictures; say where to write them out (`extract_to`)")
        pictures = PictureFolder(Path(extract_to))
    return _records_of_files(root, settings, source, notes or Notes(), pictures)


def extracts_pictures(root: Path, settings: TableSettings) -> bool:
    """Whether the tables hold the pictures themselves, so that reading writes them out."""
    return settings.pixels is not None or any(holds_pictures(root / t.path, settings) for t in settings.tables())


def records_from_rows(
    rows: Iterable[tuple[str, Row | str]],
    settings: TableSettings,
    *,
    source: str,
    root: Path,
    place: str | os.PathLike[str],
    notes: Notes | None = None,
    pictures: PictureFolder | None = None,
) -> Iterator[EmotionRecord]:
    """Records of rows that are already in memory, or come from elsewhere than a file.

    Args:
        rows: place of each row for messages, and column -> value, or what is wrong with the row.
        settings: what is in the columns.
        source: name of the dataset, also the first part of each id.
        root: where picture paths start.
        place: name of the whole, for messages.
        notes: where rows that are left out are counted.
        pictures: where pictures that the rows hold are written.

    Raises:
        DataError: after the sound ones, the rows that cannot be used.
    """
    reader = _TableReader(settings, source, notes or Notes(), pictures)
    problems = Problems(place, _REMEDY)
    for where, row in rows:
        yield from reader.take(where, row, TableFile(path=str(place)), root, problems)
    yield from reader.gathered(problems)
    problems.finish()


def _records_of_files(
    root: Path, settings: TableSettings, source: str, notes: Notes, pictures: PictureFolder | None
) -> Iterator[EmotionRecord]:
    reader = _TableReader(settings, source, notes, pictures)
    tables = settings.tables()
    # One table is named in full; of several, each line names its own.
    problems = Problems(root / tables[0].path if len(tables) == 1 else root, _REMEDY)
    for table in tables:
        named = [*settings.named(), *table.where]
        for line, row in read_rows(root / table.path, settings, named):
            place = line if len(tables) == 1 else f"{table.path}, {line}"
            yield from reader.take(place, row, table, root, problems)
    yield from reader.gathered(problems)
    problems.finish()


class _TableReader:
    """Makes records of rows, and remembers ids and, where rows are gathered, the rows of each picture."""

    def __init__(self, settings: TableSettings, source: str, notes: Notes, pictures: PictureFolder | None):
        self.settings, self.source, self.notes, self.pictures = settings, source, notes, pictures
        self.labels = get_label_set(settings.label_set) if settings.label_set is not None else None
        self._first_place: dict[str, str] = {}
        self._num_embedded = 0
        self._drafts: dict[str, tuple[str, dict[str, Any]]] = {}

    def take(
        self, place: str, row: Row | str, table: TableFile, root: Path, problems: Problems
    ) -> Iterator[EmotionRecord]:
        """The record of a row, if it makes one by itself."""
        try:
            if not isinstance(row, dict):
                raise DataError(row)
            cells = {name: _text(value) for name, value in row.items()}
            if any(cells.get(column) != value for column, value in table.where.items()):
                return
            values = self._values(row, cells, table, root)
            if values is None:
                return
            if self.settings.gather:
                self._gather(place, values)
                return
            record = self._record(place, values)
        except DataError as error:
            problems.add(f"{place}: {error}")
            return
        yield record

    def gathered(self, problems: Problems) -> Iterator[EmotionRecord]:
        """The records of gathered rows, in the order in which their pictures came."""
        for place, draft in self._drafts.values():
            try:
                counts = draft.pop("counts")
                if counts and (votes := self._decided(dict(counts))) is None:
                    continue
                elif counts:
                    draft |= votes or {}
                record = self._record(place, draft)
            except DataError as error:
                problems.add(f"{place}: {error}")
                continue
            yield record

    def _record(self, place: str, values: dict[str, Any]) -> EmotionRecord:
        path = PurePosixPath(values["image"])
        # The folders of an image path are left out of the id where the file name alone says enough.
        name = values.pop("id", None) or (path.stem if self.settings.id_from == "name" else str(path.with_suffix("")))
        values = {"split": self.settings.default_split, **values, "id": f"{self.source}/{name}", "source": self.source}
        record = parse_record(json.dumps(values), "record")
        first = self._first_place.setdefault(record.id, place)
        if first != place:
            raise DataError(f"id '{record.id}' stands in {first} already; name an id column, or take ids from paths")
        return record

    def _gather(self, place: str, values: dict[str, Any]) -> None:
        said = {"text": values.pop("utterance", None), "emotion": values.pop("emotion", None)}
        said["score"] = values.pop("score", None)
        _, draft = self._drafts.setdefault(values["image"], (place, {**values, "utterances": [], "counts": Counter()}))
        if said["emotion"] is not None:
            draft["counts"][said["emotion"]] += 1
        if said["text"]:
            draft["utterances"].append({key: value for key, value in said.items() if value is not None})

    # ---- From cells to fields ------------------------------------------------------------------------------------

    def _values(self, row: Row, cells: dict[str, str], table: TableFile, root: Path) -> dict[str, Any] | None:
        """The cells of a row as fields of a record, empty ones left out; None for a row that is left out."""
        settings, columns = self.settings, self.settings.columns
        values: dict[str, Any] = {}
        for field in _TEXTS:
            column = getattr(columns, field)
            if column is not None and cells[column]:
                values[field] = cells[column]
        for field in _NUMBERS:
            column = getattr(columns, field)
            if column is not None and cells[column]:
                values[field] = self._scaled(field, _number(cells[column], column), column)
        image = self._image(row, cells, table, root, values)
        if image is None:
            return None
        values["image"] = image
        if table.split is not None:
            values["split"] = table.split
        elif settings.split_pattern is not None:
            values["split"] = _found(settings.split_pattern, image, "split")
        if "split" in values:
            values["split"] = settings.split_names.get(values["split"], values["split"])
        if not self._label(values, cells, image):
            return None
        if columns.labels is not None and self.labels is not None:
            values["labels"] = self._several(row[columns.labels])
            values["label_set"] = self.labels.name
        if columns.box:
            values["box"] = _box(row, columns.box)
        if columns.action_units:
            units = {n: _number(cells[c], c) for n, c in columns.action_units.items() if cells[c]}
            values["action_units"] = units or None
        values["extra"] = {name: cells[name] for name in columns.extra if cells[name]}
        if "score" in values and not settings.gather:
            values["extra"]["score"] = values.pop("score")
        if "utterance" in values and not settings.gather:
            values["utterances"] = [{"text": values.pop("utterance")}]
        return values

    def _image(
        self, row: Row, cells: dict[str, str], table: TableFile, root: Path, values: dict[str, Any]
    ) -> str | None:
        settings, column = self.settings, self.settings.columns.image
        if settings.pixels is not None or (self.pictures is not None and not isinstance(row.get(column), str)):
            assert self.pictures is not None
            # Names inside a table repeat; the row's number does not.
            name = values.get("id") or f"{PurePosixPath(table.path).stem}_{self._num_embedded:07d}"
            self._num_embedded += 1
            if settings.pixels is not None:
                return self.pictures.add_pixels(name, cells[settings.pixels])
            return self.pictures.add(name, row[column])
        image = fill(settings.image, cells) if settings.image is not None else cells[column]
        if not image:
            if settings.missing == "leave_out":
                self.notes.leave_out("rows without a picture", expected=True)
                return None
            raise DataError(f"column '{column}' is empty")
        image = str(PurePosixPath(table.images or "", image.replace("\\", "/")))
        # False, and no error, for a name that no file can have.
        if not os.path.isfile(root / image):  # noqa: PTH113
            if settings.missing == "leave_out":
                self.notes.leave_out("the picture is not there")
                return None
            raise DataError(f"the picture {image} is missing below {root}")
        return image

    def _label(self, values: dict[str, Any], cells: dict[str, str], image: str) -> bool:
        """Bring the label, from wherever it comes, to the label set; False for a row that is left out."""
        settings = self.settings
        if settings.votes is not None:
            votes = self._votes(cells)
            if votes is None:
                return False
            values |= votes
        if settings.label_pattern is not None:
            values["emotion"] = _found(settings.label_pattern, image, "label")
        if self.labels is None or "emotion" not in values:
            return True
        named = values["emotion"]
        if named in settings.label_names:
            named = settings.label_names[named]
            if named is None:
                self.notes.leave_out(f"labelled '{values['emotion']}'", expected=True)
                return False
        values |= {"emotion": self.labels.canonical(named), "label_set": self.labels.name}
        if settings.coarsen_to is not None:
            coarse = coarser_label(values["emotion"], self.labels.name, settings.coarsen_to)
            if coarse is None:
                self.notes.leave_out(f"'{values['emotion']}' has no place in {settings.coarsen_to}", expected=True)
                return False
            values |= {"emotion": coarse, "label_set": settings.coarsen_to}
        return True

    def _votes(self, cells: dict[str, str]) -> dict[str, Any] | None:
        votes = self.settings.votes
        assert votes is not None and self.labels is not None
        counts = {self.labels.canonical(label): _number(cells[c], c) for label, c in votes.columns.items()}
        beside = {name: _number(cells[c], c) for name, c in votes.beside.items()}
        if any(count < 0 for count in (*counts.values(), *beside.values())):
            raise DataError("a count of votes is negative")
        void = max((_number(cells[c], c) for c in votes.void), default=0.0)
        if void > 0 and void >= max((*counts.values(), *beside.values())):
            self.notes.leave_out(f"most votes are for {' or '.join(votes.void)}", expected=True)
            return None
        return self._decided(counts, beside)

    def _decided(self, counts: dict[str, float], beside: dict[str, float] | None = None) -> dict[str, Any] | None:
        """Label and shares of counted votes; None where the picture is left out."""
        assert self.labels is not None
        shares = {name: count for name, count in {**counts, **(beside or {})}.items() if count > 0}
        total = sum(shares.values())
        if not total:
            self.notes.leave_out("nobody voted")
            return None
        fields: dict[str, Any] = {
            "votes": {name: count / total for name, count in shares.items()},
            "label_set": self.labels.name,
        }
        most = max(counts.values())
        winners = [label for label, count in counts.items() if count == most and most > 0]
        if len(winners) == 1:
            fields["emotion"] = winners[0]
        elif self.settings.label_pattern is None and self.settings.ties == "drop":
            self.notes.leave_out("the most votes are tied", expected=True)
            return None
        return fields

    def _several(self, value: Any) -> list[str]:
        assert self.labels is not None
        if isinstance(value, str):
            text = value.strip()
            # Python's list notation, as converters of MATLAB files write it.
            parts = re.findall(r"'([^']*)'|\"([^\"]*)\"", text) if text.startswith("[") else []
            value = (
                [one or other for one, other in parts] if text.startswith("[") else text.split(self.settings.separator)
            )
        return [self.labels.canonical(str(item)) for item in value or () if str(item).strip()]

    def _scaled(self, field: str, value: float, column: str) -> float:
        scale = self.settings.scales.get(field)  # type: ignore[call-overload]
        if scale is None:
            return value
        low, high = scale
        if not low <= value <= high:
            raise DataError(f"column '{column}': {value:g} is outside the scale {low:g} to {high:g}")
        return 2 * (value - low) / (high - low) - 1


def _text(value: Any) -> str:
    """A cell as text; what a table knows as empty is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value.strip() if isinstance(value, str) else str(value)


def _number(text: str, column: str) -> float:
    try:
        number = float(text or 0)
    except ValueError:
        raise DataError(f"column '{column}': '{text}' is not a number") from None
    if not math.isfinite(number):
        raise DataError(f"column '{column}': '{text}' is not a number")
    return number


def _box(row: Row, columns: tuple[str, ...]) -> list[float]:
    if len(columns) == 4:
        return [_number(_text(row[column]), column) for column in columns]
    value = row[columns[0]]
    parts = re.findall(r"-?\d+(?:\.\d+)?", value) if isinstance(value, str) else list(value or ())
    if len(parts) != 4:
        raise DataError(f"column '{columns[0]}': expected four numbers (left, top, right, bottom), got {value!r}")
    return [float(part) for part in parts]


def _found(pattern: str, image: str, what: str) -> str:
    match = re.search(pattern, image)
    if match is None:
        raise DataError(f"no {what} in the path {image} (looked for {pattern})")
    return match.group(1)
