"""Rows of table files (CSV, JSON lines, a JSON list, Parquet), each with its place for messages."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.files import load_json, parse_json
from lavis_emovit.settings import nearest_name
from lavis_emovit.sources.base import Notes
from lavis_emovit.sources.table_settings import WHITESPACE, TableSettings

FORMAT_OF_SUFFIX = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
_DELIMITERS = (",", ";", "\t", "|")
# A cell may contain the pixels of an image; the csv module's default limit is 131,072 characters per cell.
_MAX_CELL_CHARS = 2**24
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# The first bytes of .xlsx, .ods and .zip, and of .xls.
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
# The first line of CSV files from Excel may name the delimiter, as in `sep=;`.
_EXCEL_HINT = re.compile(r'"?sep=(.)"?\1*\s*', re.IGNORECASE)

_ABSENT = object()  # no value at a path of keys

Row = dict[str, Any]


class Fault(str):
    """What is wrong with a row, instead of the row."""


def read_rows(
    path: Path, settings: TableSettings, named: Sequence[str], notes: Notes
) -> Iterator[tuple[str, Row | str]]:
    """Rows of a table with the columns `named`. DataError for a missing file or column, or a file of another format.

    Yields the place of the row for messages (`line 3`), and the row (column -> value), or what is wrong with it. Adds
    the names of all other columns to `notes.unused`, and a note for rows of several lines.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such table. It must be a file with the columns {', '.join(named)}.")
    kind = settings.format or FORMAT_OF_SUFFIX.get(path.suffix.lower())
    with path.open("rb") as file:
        start = file.read(4)
    if kind != "parquet" and start in _SPREADSHEETS:
        raise DataError(
            f"{path}: a spreadsheet or an archive, not a table; save it as CSV (UTF-8) and import that file"
        )
    if kind is None:
        raise DataError(f"{path}: unknown suffix; set `format` to csv, jsonl, json or parquet")
    if kind == "parquet":
        yield from _parquet_rows(path, settings, named, notes)
    elif kind == "csv":
        yield from _csv_rows(path, settings, named, notes)
    else:
        yield from _json_rows(path, kind, settings, named, notes)


def unused_columns(present: Iterable[str], named: Sequence[str], settings: TableSettings) -> dict[str, None]:
    """The columns that no setting names; those without a name are not columns."""
    return {name: None for name in present if name and name not in named and name not in settings.columns.ignore}


def check_columns(path: Path, present: Sequence[str], named: Sequence[str], hint: str = "") -> None:
    """Check the columns of a table. DataError if names repeat or are missing, with the nearest existing names."""
    # Spreadsheets leave columns without a name at the right; they do no harm.
    repeated = [f"'{name}'" for name, count in Counter(present).items() if count > 1 and name]
    if repeated:
        raise DataError(f"{path}: several columns are called {', '.join(repeated)}; rename all but one of them")
    if named and not any(present):
        raise DataError(f"{path}: its first row is blank; expected the names of the columns {', '.join(named)}")
    missing = [f"'{name}'{nearest_name(name, list(present))}" for name in named if name not in present]
    if missing:
        raise DataError(f"{path}: the table has no column {'; no column '.join(missing)}{hint}")


def has_embedded_images(path: Path, settings: TableSettings) -> bool:
    """Whether the image column of a Parquet file contains the images themselves, as in Hugging Face's files."""
    if (settings.format or FORMAT_OF_SUFFIX.get(path.suffix.lower())) != "parquet" or not path.is_file():
        return False
    schema = open_parquet(path).read_schema(path)
    column = settings.columns.image
    return column in schema.names and str(schema.field(column).type).startswith(("struct", "binary", "large_binary"))


def _not_text(path: Path, encoding: str, error: UnicodeError) -> DataError:
    # A codec that misses its byte order mark raises a plain UnicodeError, without a position.
    reason = str(error)
    if isinstance(error, UnicodeDecodeError):
        reason = f"byte 0x{error.object[error.start]:02x}: {error.reason}"
    return DataError(
        f"{path}: not {encoding} text ({reason}). Set `encoding`, for example to cp1252, or save the table as UTF-8."
    )


def _csv_rows(
    path: Path, settings: TableSettings, named: Sequence[str], notes: Notes
) -> Iterator[tuple[str, Row | str]]:
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL_CHARS))
    with path.open("rb") as file:
        encoding = _BYTE_ORDER_MARKS.get(file.read(2), settings.encoding)
    end = settings.skip_rows  # the last line that was read
    long_rows = []
    with path.open(encoding=encoding, newline="") as file:
        try:
            for _ in range(settings.skip_rows):
                file.readline()
            start = file.tell()
            first = file.readline()
            hint = _EXCEL_HINT.fullmatch(first)
            if hint is not None:
                end += 1
                start, first = file.tell(), file.readline()
            if not first:
                after = f" after the {settings.skip_rows} rows of `skip_rows`" if settings.skip_rows else ""
                raise DataError(f"{path}: the file is empty{after}; expected a table with {', '.join(named)}")
            file.seek(start)
            delimiter = settings.delimiter or (hint and hint[1]) or _delimiter_of(first, settings, named)
            cells: Iterator[list[str]]
            if delimiter == WHITESPACE:
                width = len(settings.header) if settings.header else 0
                cells = (line.split(None, width - 1) if width else line.split() for line in file)
            else:
                cells = _csv_reader(file, delimiter, settings, strict=True)
            header = list(settings.header) if settings.header else [name.strip() for name in next(cells, [])]
            check_columns(path, header, named, _other_delimiter(first, delimiter, settings, named))
            notes.unused |= unused_columns(header, named, settings)
            # A quoted cell may contain line breaks, so prefer the CSV reader's own line count.
            before = end
            end += 0 if settings.header else getattr(cells, "line_num", 1)
            for row in cells:
                line = before + cells.line_num if hasattr(cells, "line_num") else end + 1
                if line > end + 1:
                    long_rows.append(f"{end + 1} to {line}")
                end, place = line, f"line {line}"
                if not row:
                    continue
                if len(row) != len(header):
                    yield place, f"expected {len(header)} cells, as in the first row, got {len(row)}"
                    continue
                yield place, dict(zip(header, row))
        except UnicodeError as error:
            raise _not_text(path, encoding, error) from None
        except csv.Error as error:
            raise DataError(
                f"{path}: the row that starts in line {end + 1} is not CSV ({error}). Close its quotes and double "
                "those inside quoted cells; if no cell is quoted, set `quote` to null (`--set quote=null`)."
            ) from None
    if long_rows:
        notes.add(
            f"{path.name}: {len(long_rows)} rows of several lines (first: {long_rows[0]}), because quoted cells "
            "contain line breaks. If these quotes are part of the text, set `quote` to null (`--set quote=null`).",
            expected=True,
        )


def _csv_reader(lines: Iterable[str], delimiter: str, settings: TableSettings, *, strict: bool = False) -> Any:
    return csv.reader(
        lines,
        delimiter=delimiter,
        quotechar=settings.quote,
        quoting=csv.QUOTE_NONE if settings.quote is None else csv.QUOTE_MINIMAL,
        strict=strict,
    )


def _delimiter_of(first: str, settings: TableSettings, named: Sequence[str]) -> str:
    """The delimiter that splits the first row into most of the named columns, or into the most cells."""

    def quality(delimiter: str) -> tuple[int, int]:
        cells = [cell.strip() for cell in next(_csv_reader([first], delimiter, settings), [])]
        return len(set(cells) & set(named)), len(cells) if settings.header is None else -abs(
            len(cells) - len(settings.header)
        )

    return max(_DELIMITERS, key=quality)


def _other_delimiter(first: str, used: str, settings: TableSettings, named: Sequence[str]) -> str:
    """A hint where another delimiter would give the missing columns."""
    for delimiter in _DELIMITERS:
        cells: list[str] = next(_csv_reader([first], delimiter, settings), [])
        if delimiter != used and set(named) <= {cell.strip() for cell in cells}:
            return f". With `--set 'delimiter={json.dumps(delimiter)}'` it has them."
    return ""


def _json_rows(
    path: Path, kind: str, settings: TableSettings, named: Sequence[str], notes: Notes
) -> Iterator[tuple[str, Row | str]]:
    try:
        if kind == "json":
            items = parse_json(path.read_text(encoding=settings.encoding), str(path), unique_keys=True)
            places: Iterator[tuple[str, Any]]
            if settings.key is not None and isinstance(items, dict):
                places = ((f"entry '{key}'", _with_key(item, settings.key, key)) for key, item in items.items())
            elif isinstance(items, list) and settings.key is None:
                places = ((f"item {number}", item) for number, item in enumerate(items))
            else:
                hint = " For an object of rows, set `key` to a name for its keys." if isinstance(items, dict) else ""
                expected = "a list of objects" if settings.key is None else "an object of rows, because `key` is set"
                raise DataError(f"{path}: expected {expected}, got {type(items).__name__}.{hint}")
        else:
            places = _json_lines(path, settings.encoding)
        for place, item in places:
            if not isinstance(item, dict):
                yield place, item if isinstance(item, Fault) else f"expected an object, got {type(item).__name__}"
                continue
            nested = {name: _inner(item, name) for name in named if name not in item and "." in name}
            notes.unused |= unused_columns(item, [*named, *(name.partition(".")[0] for name in nested)], settings)
            item |= {name: value for name, value in nested.items() if value is not _ABSENT}
            missing = [name for name in named if name not in item]
            if missing:
                yield place, "; ".join(f"no key '{name}'{nearest_name(name, list(item))}" for name in missing)
                continue
            yield place, item
    except UnicodeError as error:
        raise _not_text(path, settings.encoding, error) from None


def _with_key(item: Any, name: str, key: str) -> Any:
    """A row of a JSON object of rows, with its key as another cell."""
    if isinstance(item, dict) and name in item:
        return Fault(f"has a key '{name}' of its own; give `key` another name")
    return {name: key, **item} if isinstance(item, dict) else item


def _inner(item: Row, path: str) -> Any:
    """The value at a path of keys in nested objects, such as `description.third_section.dominant_emotion`."""
    value: Any = item
    for key in path.split("."):
        value = value.get(key, _ABSENT) if isinstance(value, dict) else _ABSENT
    return value


def _json_lines(path: Path, encoding: str) -> Iterator[tuple[str, Any]]:
    with path.open(encoding=encoding) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                item = load_json(line, unique_keys=True)
            except ValueError as error:
                item = Fault(f"not JSON ({error})")
            yield f"line {number}", item


def _parquet_rows(
    path: Path, settings: TableSettings, named: Sequence[str], notes: Notes
) -> Iterator[tuple[str, Row | str]]:
    names = open_parquet(path).read_schema(path).names
    check_columns(path, names, named)
    notes.unused |= unused_columns(names, named, settings)
    for number, row in enumerate(parquet_rows(path, list(dict.fromkeys(named)))):
        yield f"row {number}", row


def parquet_rows(path: Path, columns: Sequence[str] | None = None, rows_at_once: int = 256) -> Iterator[Row]:
    """Rows of a Parquet file, with some of its columns or all. DataError for a damaged file."""
    try:
        for batch in open_parquet(path).ParquetFile(path).iter_batches(batch_size=rows_at_once, columns=columns):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise _not_parquet(path, error) from None


def open_parquet(path: Path) -> Any:
    """The module `pyarrow.parquet`. DataError if it is not installed, or for an existing file that is no Parquet."""
    pyarrow = import_pyarrow(path)
    if path.is_file():
        try:
            pyarrow.parquet.read_schema(path)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise _not_parquet(path, error) from None
    return pyarrow.parquet


def import_pyarrow(place: Path | str) -> Any:
    """The module `pyarrow` with `pyarrow.parquet`. DataError names the file that needs it if it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{place}: Parquet needs pyarrow: pip install 'lavis-emovit[tables]'") from None
    return pyarrow


def _not_parquet(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a Parquet file, or a damaged one ({error})")
