"""Members of a tar file and the positions of their bytes."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from lavis_emovit.errors import DataError
from lavis_emovit.files import regular_file

RECORD_SUFFIX = "json"
_BLOCK_BYTES = 512
_KINDS = {
    tarfile.LNKTYPE: "a hard link to a file that is not in the tar before it",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


@dataclass(frozen=True)
class Member:
    """A file in a tar. Like webdataset, `key` and `suffix` split its name at the first dot of the last path part."""

    key: str
    suffix: str
    offset: int
    size_bytes: int
    name: str

    @property
    def span(self) -> tuple[int, int]:
        return self.offset, self.size_bytes


def scan_tar(path: str | os.PathLike[str]) -> list[Member]:
    """All files in their order; reads only headers. A hard link is the file that it links to, folders are ignored.

    DataError if it is not a plain tar file, is truncated, or has a member of another kind.
    """
    found: dict[str, Member] = {}
    members: list[Member] = []
    size_bytes = Path(path).stat().st_size
    try:
        with tarfile.open(path, mode="r:") as archive:
            for item in archive:
                if item.isdir():
                    continue
                if item.isfile() and not item.offset_data <= item.offset_data + item.size <= size_bytes:
                    raise _truncated(path)
                members.append(_member(path, item, found))
                found[item.name] = members[-1]
            end = archive.offset
        with regular_file(Path(path)).open("rb") as file:
            file.seek(end)
            mark = file.read(2 * _BLOCK_BYTES)
    except (tarfile.TarError, OSError, EOFError, ValueError, LookupError, OverflowError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: not a readable tar file ({error}). Get a complete, uncompressed copy, or build it again."
        ) from None
    if mark != bytes(2 * _BLOCK_BYTES):
        raise _truncated(path)
    return members


def _member(path: str | os.PathLike[str], item: tarfile.TarInfo, found: dict[str, Member]) -> Member:
    folder, _, name = item.name.rpartition("/")
    stem, _, suffix = name.partition(".")
    key = f"{folder}/{stem}" if folder else stem
    if item.islnk() and item.linkname in found:
        target = found[item.linkname]
        return Member(key, suffix.lower(), target.offset, target.size_bytes, item.name)
    if not item.isfile() or item.issparse():
        raise DataError(
            f"{path}: '{item.name}' is {_KINDS.get(item.type, 'no plain file')}, so its content is not in the tar as "
            "it is. Write the tar again with the files themselves (`tar --dereference --hard-dereference`)."
        )
    return Member(key, suffix.lower(), item.offset_data, item.size, item.name)


def _truncated(path: str | os.PathLike[str]) -> DataError:
    return DataError(f"{path}: the tar file is truncated, its end is missing. Get a complete copy, or build it again.")


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
