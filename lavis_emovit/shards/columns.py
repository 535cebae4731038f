"""The columns of an index: what there is one number of for every sample, or for every question-answer pair.

They lie in `index.safetensors` beside `index.json`, each with one fixed type, and are mapped into memory, not read: all
processes of a machine share one copy, and opening takes the same time for any number of samples.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lavis_emovit.files import TEMPORARY_SUFFIX, sync_folder

COLUMNS_NAME = "index.safetensors"

# Column -> type. The first group has one value for each sample, the second one for each pair of the samples in turn.
SAMPLE_TYPES = {
    "image_offset": "<u8",
    "image_bytes": "<u4",
    "record_offset": "<u8",
    "record_bytes": "<u4",
    "crc32": "<u4",
    "label": "<i4",
    "num_pairs": "<u4",
}
PAIR_TYPES = {"pair_kind": "<u1", "pair_chars": "<u4"}
COLUMN_TYPES = {**SAMPLE_TYPES, **PAIR_TYPES}
SAMPLE_COLUMNS, PAIR_COLUMNS = tuple(SAMPLE_TYPES), tuple(PAIR_TYPES)
NO_LABEL = -1

# The names of our types in safetensors' header.
_SAFETENSORS_TYPES = {"<u8": "U64", "<u4": "U32", "<u1": "U8", "<i4": "I32"}
_HEADER_LENGTH_BYTES = 8


def typed_column(name: str, values: object) -> np.ndarray:
    """Values as the type of their column.

    Raises:
        ValueError: a value does not fit into it.
    """
    column = np.asarray(values)
    kind = np.dtype(COLUMN_TYPES[name])
    if column.dtype == kind:
        return column
    if len(column):
        limits = np.iinfo(kind)
        low, high = int(column.min()), int(column.max())
        if low < limits.min or high > limits.max:
            raise ValueError(f"column '{name}' holds {low} to {high}, its type {kind.str} does not")
    return column.astype(kind)


def checksum(column: np.ndarray) -> str:
    """CRC-32 of a piece of a column, 8 hex digits."""
    return f"{zlib.crc32(np.ascontiguousarray(column).data.cast('B')):08x}" if len(column) else "00000000"


def write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns as a safetensors file, whole or not at all."""
    from safetensors.numpy import save_file

    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        save_file({name: np.ascontiguousarray(column) for name, column in columns.items()}, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def map_columns(path: Path) -> dict[str, np.ndarray]:
    """Map the columns of a file into memory, read-only.

    Raises:
        ValueError: not such a file, cut, or a column is missing or of another type.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes <= _HEADER_LENGTH_BYTES:
            raise ValueError(f"{path.name} has {size_bytes} bytes")
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = _HEADER_LENGTH_BYTES + int.from_bytes(memory[:_HEADER_LENGTH_BYTES], "little")
    if start > size_bytes:
        raise ValueError(f"{path.name} is cut")
    header = json.loads(memory[_HEADER_LENGTH_BYTES:start])
    columns = {}
    for name, kind in COLUMN_TYPES.items():
        place = header.get(name)
        if place is None or place["dtype"] != _SAFETENSORS_TYPES[kind]:
            raise ValueError(f"{path.name} has no column '{name}' of type {kind}")
        first, last = place["data_offsets"]
        if start + last > size_bytes:
            raise ValueError(f"{path.name} is cut")
        count = (last - first) // np.dtype(kind).itemsize
        columns[name] = np.frombuffer(memory, kind, count, start + first) if count else np.zeros(0, kind)
    return columns


def decode_version_1(text: str) -> np.ndarray:
    """A column of an index of version 1: `<type>:<base64>` of little-endian integers."""
    kind, _, data = text.partition(":")
    return np.frombuffer(base64.b64decode(data, validate=True), dtype=np.dtype(kind))
