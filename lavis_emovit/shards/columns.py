"""The columns of an index: one value per sample, or one per question-answer pair.

They are in `index.safetensors` beside `index.json`, each with a fixed type, and memory-mapped rather than read: all
processes of a machine share one copy, and opening takes the same time for any number of samples.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavis_emovit.files import atomic_path, obey_umask
from lavis_emovit.own_files import Written, parse_as, reason_of
from lavis_emovit.records import INSTRUCTION_KINDS, EmotionRecord

INDEX_NAME = "index.json"
COLUMNS_NAME = "index.safetensors"
CARD_NAME = "README.md"

# Column -> type. The first group has one value per sample, the second one per pair, sample after sample.
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

# Our types as safetensors' header names them.
_SAFETENSORS_TYPES = {"<u8": "U64", "<u4": "U32", "<u1": "U8", "<i4": "I32"}
_HEADER_LENGTH_BYTES = 8


def empty_columns() -> dict[str, list[int]]:
    """Columns to append samples to."""
    return {name: [] for name in COLUMN_TYPES}


def append_sample(
    columns: dict[str, list[int]],
    record: EmotionRecord,
    image: tuple[int, int],
    line: tuple[int, int],
    crc32: int,
    label: int,
) -> None:
    """Append one sample: (offset, size in bytes) of its image and of its record, their checksum, its label's number."""
    for name, value in zip(SAMPLE_COLUMNS, (*image, *line, crc32, label, len(record.instructions))):
        columns[name].append(value)
    for instruction in record.instructions:
        columns["pair_kind"].append(INSTRUCTION_KINDS.index(instruction.kind))
        columns["pair_chars"].append(len(instruction.question) + len(instruction.answer))


def join_columns(parts: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The columns of several shards, one after the other."""
    return {
        name: np.concatenate([np.zeros(0, kind), *(typed_column(name, part[name]) for part in parts)])
        for name, kind in COLUMN_TYPES.items()
    }


def sample_crc32(image_bytes: bytes, record_bytes: bytes) -> int:
    """Checksum over both members of a sample."""
    return zlib.crc32(record_bytes, zlib.crc32(image_bytes))


def typed_column(name: str, values: object) -> np.ndarray:
    """Values as an array of the column's type. ValueError if a value does not fit into it."""
    column = np.asarray(values)
    kind = np.dtype(COLUMN_TYPES[name])
    if column.dtype == kind:
        return column
    if len(column):
        limits = np.iinfo(kind)
        low, high = int(column.min()), int(column.max())
        if low < limits.min or high > limits.max:
            raise ValueError(f"column '{name}' has values from {low} to {high}, outside the range of {kind.str}")
    return column.astype(kind)


def checksum(column: np.ndarray) -> str:
    """CRC-32 of a piece of a column, 8 hex digits."""
    return f"{zlib.crc32(np.ascontiguousarray(column).data.cast('B')):08x}" if len(column) else "00000000"


def write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns atomically as a safetensors file."""
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        save_file({name: np.ascontiguousarray(column) for name, column in columns.items()}, temporary)
        obey_umask(temporary)


class IndexFormat(Written):
    """What every version of `index.json` has."""

    format: str
    version: int


class _Column(Written):
    """The place of a column, counted from the end of the header."""

    dtype: str
    data_offsets: tuple[int, int]


def map_columns(path: Path) -> dict[str, np.ndarray]:
    """Map the columns of a file into memory, read-only. ValueError if the file is not as `write_columns` writes it."""
    memory = np.memmap(path, np.uint8, mode="r")
    size_bytes = len(memory)
    start = _HEADER_LENGTH_BYTES + int.from_bytes(memory[:_HEADER_LENGTH_BYTES].tobytes(), "little")
    if start > size_bytes:
        raise ValueError(f"{path.name} is truncated")
    try:
        header = parse_as(memory[_HEADER_LENGTH_BYTES:start].tobytes(), dict[str, _Column])
    except ValueError as error:
        raise ValueError(f"{path.name} has another header ({reason_of(error)})") from None
    columns = {}
    for name, kind in COLUMN_TYPES.items():
        entry = header.get(name)
        if entry is None or entry.dtype != _SAFETENSORS_TYPES[kind]:
            raise ValueError(f"{path.name} has no column '{name}' of type {kind}")
        first, last = entry.data_offsets
        if not 0 <= first <= last <= size_bytes - start:
            raise ValueError(f"{path.name} is truncated")
        count = (last - first) // np.dtype(kind).itemsize
        columns[name] = np.frombuffer(memory, kind, count, start + first) if count else np.zeros(0, kind)
    return columns


def decode_version_1(text: str) -> np.ndarray:
    """A column of a version 1 index, `<type>:<base64>` of little-endian integers; ValueError for anything else."""
    kind, _, data = text.partition(":")
    if not re.fullmatch(r"<[iu][1248]", kind) and kind not in ("|i1", "|u1"):
        raise ValueError(f"a column of the type '{kind[:20]}'")
    return np.frombuffer(base64.b64decode(data, validate=True), dtype=np.dtype(kind))
