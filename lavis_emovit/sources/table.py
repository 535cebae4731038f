"""Reader of pictures with a table: a CSV file, one row a picture, and a map from record fields to its columns."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_emovit.emotion.labels import LabelSet, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.settings import Settings, nearest_name
from lavis_emovit.sources.problems import Problems

_REMEDY = "Correct or remove these rows of the table."


class TableColumns(Settings):
    """Which column of the table holds which field of the record; only `image` must be there.

    `extra` names columns that go along as they are.
    """

    image: str = "image"
    id: str | None = None
    emotion: str | None = None
    split: str | None = None
    caption: str | None = None
    valence: str | None = None
    arousal: str | None = None
    group: str | None = None
    extra: tuple[str, ...] = ()

    def named(self) -> list[str]:
        """All columns that the table must have."""
        fields = (self.image, self.id, self.emotion, self.split, self.caption, self.valence, self.arousal, self.group)
        return [name for name in (*fields, *self.extra) if name is not None]


def read_table(
    path: str | os.PathLike[str],
    columns: TableColumns,
    *,
    source: str,
    label_set: str | None = None,
    default_split: str = "train",
    image_root: str | os.PathLike[str] | None = None,
    delimiter: str = ",",
) -> Iterator[EmotionRecord]:
    """Records of a table, row after row.

    Args:
        path: the CSV file, UTF-8, its first row the column names.
        columns: the column of each field.
        source: name of the dataset, also the first part of each id.
        label_set: label set of the column `emotion`; labels are brought to its canonical names.
        default_split: split of rows without one.
        image_root: where the image paths start; left out, the folder of the table.
        delimiter: what stands between two cells.

    Returns:
        one record for every sound row, as they are asked for.

    Raises:
        DataError: no such file (at once) or column, or, after the sound ones, rows that cannot be used: an unknown
            emotion, a missing picture, a number that is none, an id that repeats. The row is named.
    """
    path = Path(path)
    root = Path(image_root) if image_root is not None else path.parent
    if not path.is_file():
        raise DataError(f"{path}: no such table. It must be a CSV file with the columns {', '.join(columns.named())}.")
    labels = get_label_set(label_set) if label_set is not None else None
    if columns.emotion is not None and labels is None:
        raise DataError(f"{path}: column '{columns.emotion}' holds emotions; say which label set they come from")
    return _records(path, root, columns, source, labels, default_split, delimiter)


def _records(
    path: Path,
    root: Path,
    columns: TableColumns,
    source: str,
    labels: LabelSet | None,
    default_split: str,
    delimiter: str,
) -> Iterator[EmotionRecord]:
    problems = Problems(path, _REMEDY)
    seen: dict[str, int] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        _check_columns(path, reader.fieldnames or [], columns)
        for row in reader:
            place = f"line {reader.line_num}"
            try:
                if None in row or None in row.values():
                    raise DataError(f"expected {len(reader.fieldnames or [])} cells, as in the first row")
                values = _values(row, columns)
                if labels is not None and "emotion" in values:
                    values |= {"emotion": labels.canonical(values["emotion"]), "label_set": labels.name}
                if not (root / values["image"]).is_file():
                    raise DataError(f"the picture {values['image']} is missing below {root}")
                # The folders of an image path are left out of the id where the file name alone says enough.
                name = values.pop("id", None) or PurePosixPath(values["image"]).stem
                record = parse_record(
                    json.dumps({"split": default_split, **values, "id": f"{source}/{name}", "source": source}), "record"
                )
                first = seen.setdefault(record.id, reader.line_num)
                if first != reader.line_num:
                    raise DataError(f"id '{record.id}' stands in line {first} already; name an id column")
            except DataError as error:
                problems.add(f"{place}: {error}")
                continue
            yield record
    problems.finish()


def _check_columns(path: Path, present: Sequence[str], columns: TableColumns) -> None:
    missing = [f"'{name}'{nearest_name(name, list(present))}" for name in columns.named() if name not in present]
    if missing:
        raise DataError(f"{path}: the table has no column {'; no column '.join(missing)}")


def _values(row: dict[str, str], columns: TableColumns) -> dict[str, Any]:
    """The cells of a row as fields of a record; empty cells are left out."""
    values: dict[str, Any] = {}
    for field in ("image", "id", "emotion", "split", "caption", "valence", "arousal", "group"):
        column = getattr(columns, field)
        text = row[column].strip() if column is not None else ""
        if not text:
            continue
        values[field] = _number(text, column) if field in ("valence", "arousal") else text
    if "image" not in values:
        raise DataError(f"column '{columns.image}' is empty")
    values["image"] = str(PurePosixPath(values["image"].replace("\\", "/")))
    values["extra"] = {name: row[name].strip() for name in columns.extra if row[name].strip()}
    return values


def _number(text: str, column: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"column '{column}': '{text}' is not a number") from None
