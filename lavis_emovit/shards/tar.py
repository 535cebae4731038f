"""Members of a tar file and the positions of their bytes."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from lavis_emovit.errors import DataError

RECORD_SUFFIX = "json"
_BLOCK_BYTES = 512


@dataclass(frozen=True)
class Member:
    """A file in a tar. Like webdataset, `key` and `suffix` split its name at the first dot of the last path part."""

    key: str
    suffix: str
    offset: int
    size_bytes: int
    name: str


def scan_tar(path: str | os.PathLike[str]) -> list[Member]:
    """All members in file order; reads only headers. DataError if it is not a plain tar file, or truncated."""
    try:
        with tarfile.open(path, mode="r:") as archive:
            members = [item for item in archive if item.isfile()]
        end = max((item.offset_data + -(-item.size // _BLOCK_BYTES) * _BLOCK_BYTES for item in members), default=0)
        with Path(path).open("rb") as file:
            file.seek(end)
            mark = file.read(2 * _BLOCK_BYTES)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{path}: not a readable tar file ({error}). Get a complete, uncompressed copy, or build it again."
        ) from None
    if mark != bytes(2 * _BLOCK_BYTES):
        raise DataError(
            f"{path}: the tar file is truncated, its end is missing. Get a complete copy, or build it again."
        )
    found = []
    for item in members:
        folder, _, name = item.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        found.append(Member(key, suffix.lower(), item.offset_data, item.size, item.name))
    return found


def pair_members(path: str | os.PathLike[str], members: list[Member]) -> list[tuple[Member, Member]]:
    """(image, record) of every sample. DataError for a key without exactly one of each, side by side."""
    if len(members) % 2:
        raise DataError(f"{path}: {len(members)} members, but a sample is an image and a record. Build it again.")
    pairs, seen = [], set()
    for first, second in zip(members[0::2], members[1::2]):
        image, record = (second, first) if first.suffix == RECORD_SUFFIX else (first, second)
        if image.key != record.key or record.suffix != RECORD_SUFFIX or image.suffix == RECORD_SUFFIX:
            raise DataError(f"{path}: '{first.key}' has no image and record side by side. Build the shard again.")
        if image.key in seen:
            raise DataError(f"{path}: it contains key '{image.key}' twice. Build the shard again.")
        seen.add(image.key)
        pairs.append((image, record))
    return pairs
