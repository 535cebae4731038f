"""Strict reading of one sample by its number: any missing, cut or changed shard is named, never passed over."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.shards.index import ShardIndex

_RESTORE = "Run `emovit shards verify` on the folder; restore the shard from its copy or build the shards again."


@dataclass(frozen=True)
class ShardSample:
    """A sample as it lies in the shard."""

    record: EmotionRecord
    image_bytes: bytes


class ShardReader:
    """Reads samples of a `ShardIndex` in any order, in any process.

    Names and sizes of all shards are compared at the start, the checksum of a sample at every read. File handles are
    opened when first needed and read by position, so a reader can be shared by threads, forked and pickled.

    Args:
        index: the index of the shards.
        verify_hashes: compare the sha256 of a shard when it is first opened (reads it wholly).
        check_files: compare names and sizes of all shards now rather than each when it is opened.
        max_open: how many shards stay open.
    """

    def __init__(self, index: ShardIndex, *, verify_hashes: bool = False, check_files: bool = True, max_open: int = 64):
        if check_files:
            index.check_files()
        self.index = index
        self.verify_hashes = verify_hashes
        self.max_open = max_open
        self._start_empty()

    def __len__(self) -> int:
        return self.index.num_samples

    def read(self, sample: int) -> ShardSample:
        """The record and the image bytes of a sample.

        Raises:
            DataError: the shard is missing, cut or changed; names shard and sample.
        """
        columns = self.index.columns
        shard = self.index.shard_of(sample)
        image_start, record_start = int(columns["image_offset"][sample]), int(columns["record_offset"][sample])
        image_end = image_start + int(columns["image_bytes"][sample])
        record_end = record_start + int(columns["record_bytes"][sample])
        # Picture and record lie side by side: one read serves both.
        first = min(image_start, record_start)
        data = self._read_bytes(shard, first, max(image_end, record_end) - first, sample)
        image_bytes = data[image_start - first : image_end - first]
        record_bytes = data[record_start - first : record_end - first]
        if zlib.crc32(record_bytes, zlib.crc32(image_bytes)) != int(columns["crc32"][sample]):
            raise DataError(f"{self._place(sample)}: its bytes changed after the index was written. {_RESTORE}")
        return ShardSample(parse_record(record_bytes, self._place(sample)), image_bytes)

    def close(self) -> None:
        """Close all file handles; the reader opens them again when asked."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def _start_empty(self) -> None:
        self._handles: OrderedDict[int, int] = OrderedDict()
        self._lock = Lock()
        self._process = os.getpid()

    def _read_bytes(self, shard: int, start: int, size_bytes: int, sample: int) -> bytes:
        if self._process != os.getpid():
            # A fork may have copied the lock while another thread held it: start afresh in the child.
            self.close()
            self._start_empty()
        with self._lock:
            handle = self._handles.get(shard)
            if handle is None:
                handle = self._open(shard)
                self._handles[shard] = handle
                if len(self._handles) > self.max_open:
                    os.close(self._handles.popitem(last=False)[1])
            else:
                self._handles.move_to_end(shard)
            # The lock is held while reading, so that no other thread closes the handle under us.
            data = _read_at(handle, start, size_bytes)
        if len(data) != size_bytes:
            raise DataError(f"{self._place(sample)}: the shard is cut. {_RESTORE}")
        return data

    def _open(self, shard: int) -> int:
        info = self.index.shards[shard]
        path = self.index.folder / info.name
        try:
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise DataError(f"{path}: the shard cannot be opened ({error.strerror}). {_RESTORE}") from None
        size_bytes = os.fstat(handle).st_size
        if size_bytes != info.size_bytes:
            os.close(handle)
            raise DataError(f"{path}: {size_bytes} bytes, its index says {info.size_bytes}. {_RESTORE}")
        if self.verify_hashes and file_sha256(path) != info.sha256:
            os.close(handle)
            raise DataError(f"{path}: changed after the index was written, its sha256 does not fit. {_RESTORE}")
        return handle

    def _place(self, sample: int) -> str:
        return f"{self.index.folder / self.index.key_of(sample)}"

    def __getstate__(self) -> dict[str, Any]:
        # Handles and locks don't travel to another process.
        return {"index": self.index, "verify_hashes": self.verify_hashes, "max_open": self.max_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_empty()

    def __del__(self) -> None:
        if hasattr(self, "_handles"):
            self.close()


def _read_at(handle: int, start: int, size_bytes: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(handle, size_bytes, start)
    os.lseek(handle, start, os.SEEK_SET)
    return os.read(handle, size_bytes)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
