"""Files of rows that are written one by one: a JSON list, JSON lines, Parquet; and safe names of images."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_emovit.sources.table_files import import_pyarrow

ROW_GROUP_BYTES = 64 * 2**20
"""Bytes of images in a row group, counted for each of their questions."""
_ROW_GROUP_ROWS = 1000
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
# Names that Windows reserves for devices.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_MAX_NAME = 100


class ImageNames:
    """Names for image files below one folder: plain ASCII, unique also on file systems that ignore case.

    They are unique without their suffix too: other programs name what they compute of an image so, as EmoLA its
    landmarks. Images with the same name up to case and suffix and the same bytes share a file.
    """

    def __init__(self) -> None:
        # Name in lower case without its suffix -> the name, and the sha256 of the bytes.
        self._files: dict[str, tuple[str, bytes]] = {}

    def __len__(self) -> int:
        """Number of files."""
        return len(self._files)

    def name(self, path: str, digest: bytes) -> str:
        """The name of the image with this path in its record, whose bytes have this sha256."""
        parts = [_safe(part) for part in PurePosixPath(path).parts or ("_",)]
        name = PurePosixPath(*parts)
        while True:
            known, its_digest = self._files.setdefault(str(name.with_suffix("")).lower(), (str(name), digest))
            if its_digest == digest:
                return known
            name = name.with_name(f"{name.stem}-{digest.hex()[:16]}{name.suffix}")


def _safe(part: str) -> str:
    plain = _UNSAFE.sub("_", part).strip(".") or "_"
    if _DEVICE.match(plain):
        plain = f"_{plain}"
    if len(plain) > _MAX_NAME:
        stem, dot, suffix = plain.rpartition(".")
        digest = hashlib.sha256(part.encode()).hexdigest()[:16]
        end = f"-{digest}{dot}{suffix}" if stem and len(suffix) < 8 else f"-{digest}"
        plain = plain[: _MAX_NAME - len(end)] + end
    return plain


@contextmanager
def row_writer(path: Path, columns: Mapping[str, Any] | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that adds a row to a new file, whose suffix gives the format; `columns` are those of Parquet."""
    if path.suffix == ".parquet":
        assert columns is not None
        with _parquet_writer(path, columns) as write:
            yield write
        return
    is_list = path.suffix == ".json"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        count = 0

        def write(row: dict[str, Any]) -> None:
            nonlocal count
            if is_list:
                file.write(",\n" if count else "[\n")
            file.write(json.dumps(row, ensure_ascii=False))
            if not is_list:
                file.write("\n")
            count += 1

        yield write
        if is_list:
            file.write("\n]\n" if count else "[]\n")


@contextmanager
def _parquet_writer(path: Path, columns: Mapping[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    pyarrow = import_pyarrow(path.name)
    metadata = {"huggingface": json.dumps({"info": {"features": dict(columns)}})}
    schema = pyarrow.schema({name: _arrow_type(kind, pyarrow) for name, kind in columns.items()}, metadata)
    rows: list[dict[str, Any]] = []
    size_bytes = 0
    # The questions about an image are neighbours, so a dictionary of a whole row group stores its bytes once.
    with pyarrow.parquet.ParquetWriter(path, schema, dictionary_pagesize_limit=2 * ROW_GROUP_BYTES) as writer:

        def flush() -> None:
            nonlocal size_bytes
            if rows:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
            rows.clear()
            size_bytes = 0

        def write(row: dict[str, Any]) -> None:
            nonlocal size_bytes
            size_bytes += sum(len(image["bytes"]) for image in row["images"])
            rows.append(row)
            if size_bytes >= ROW_GROUP_BYTES or len(rows) >= _ROW_GROUP_ROWS:
                flush()

        yield write
        flush()


def _arrow_type(feature: Any, pyarrow: Any) -> Any:
    """The Arrow type in which `datasets` stores a feature."""
    if isinstance(feature, list):
        return pyarrow.list_(_arrow_type(feature[0], pyarrow))
    kind = feature.get("_type")
    if kind == "Sequence":
        return pyarrow.list_(_arrow_type(feature["feature"], pyarrow))
    if kind == "Image":
        return pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    if kind == "Value":
        return pyarrow.string()
    return pyarrow.struct({name: _arrow_type(value, pyarrow) for name, value in feature.items()})
