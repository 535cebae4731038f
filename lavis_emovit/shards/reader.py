"""Strict reading of one sample by its number: any missing, cut or changed shard is named, never passed over."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.files import file_sha256
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.shards.faults import SampleFaultError
from lavis_emovit.shards.index import ShardIndex

_RESTORE = "Run `emovit shards verify` on the folder; restore the shard from its copy or build the shards again."
# A record file beside the shards has this number among the open files.
_RECORDS_FILE = -1
# A remote shard may be removed from the cache between fetching and opening; that often in a row, something is wrong.
_FETCH_ATTEMPTS = 20


@dataclass(frozen=True)
class ShardSample:
    """A sample as it lies in the shard."""

    record: EmotionRecord
    image_bytes: bytes


class ShardReader:
    """Reads samples of a `ShardIndex` in any order, in any process.

    Names and sizes of all shards are compared at the start, the checksum of a sample at every read. File handles are
    opened when first needed and read by position, so a reader can be shared by threads, forked and pickled. Remote
    shards are fetched when first needed.

    Args:
        index: the index of the shards.
        verify_hashes: compare the sha256 of a shard when it is first opened (reads it wholly).
        check_files: compare names and sizes of all shards now rather than each when it is opened.
        max_open: how many shards stay open; of remote ones, which the cache may remove, only one.
    """

    def __init__(self, index: ShardIndex, *, verify_hashes: bool = False, check_files: bool = True, max_open: int = 64):
        if check_files:
            index.check_files()
        self.index = index
        self.verify_hashes = verify_hashes
        self.max_open = max_open if index.cache is None else 1
        self._start_empty()

    def __len__(self) -> int:
        return self.index.num_samples

    def read(self, sample: int) -> ShardSample:
        """The record and the image bytes of a sample.

        Raises:
            SampleFaultError: the shard is missing, cut or changed; names shard and sample.
            DataError: a remote shard cannot be fetched.
        """
        columns = self.index.columns
        shard = self.index.shard_of(sample)
        image_start, record_start = int(columns["image_offset"][sample]), int(columns["record_offset"][sample])
        image_end = image_start + int(columns["image_bytes"][sample])
        record_end = record_start + int(columns["record_bytes"][sample])
        if self.index.records_name is not None:
            image_bytes = self._read_bytes(shard, image_start, image_end - image_start, sample)
            record_bytes = self._read_bytes(_RECORDS_FILE, record_start, record_end - record_start, sample)
        else:
            # Picture and record lie side by side: one read serves both.
            first = min(image_start, record_start)
            data = self._read_bytes(shard, first, max(image_end, record_end) - first, sample)
            image_bytes = data[image_start - first : image_end - first]
            record_bytes = data[record_start - first : record_end - first]
        if zlib.crc32(record_bytes, zlib.crc32(image_bytes)) != int(columns["crc32"][sample]):
            text = f"{self._place(sample)}: its bytes changed after the index was written. {_RESTORE}"
            raise SampleFaultError(text, "changed_bytes")
        try:
            return ShardSample(parse_record(record_bytes, self._place(sample)), image_bytes)
        except DataError as error:
            raise SampleFaultError(str(error), "bad_record") from None

    def close(self) -> None:
        """Close all file handles; the reader opens them again when asked."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def _start_empty(self) -> None:
        self._handles: OrderedDict[int, int] = OrderedDict()
        self._lock = Lock()
        self._process = os.getpid()

    def _read_bytes(self, number: int, start: int, size_bytes: int, sample: int) -> bytes:
        if self._process != os.getpid():
            # A fork may have copied the lock while another thread held it: start afresh in the child.
            self.close()
            self._start_empty()
        with self._lock:
            handle = self._handles.get(number)
            if handle is None:
                handle = self._open(number)
                self._handles[number] = handle
                if len(self._handles) > self.max_open + (self.index.records_name is not None):
                    os.close(self._handles.popitem(last=False)[1])
            else:
                self._handles.move_to_end(number)
            # The lock is held while reading, so that no other thread closes the handle under us.
            data = _read_at(handle, start, size_bytes)
        if len(data) != size_bytes:
            raise SampleFaultError(f"{self._place(sample)}: the shard is cut. {_RESTORE}", "cut_shard")
        return data

    def _open(self, number: int) -> int:
        if number == _RECORDS_FILE:
            name, expected_bytes = str(self.index.records_name), int(self.index.build["records_bytes"])
            sha256 = str(self.index.build["records_sha256"])
        else:
            info = self.index.shards[number]
            name, expected_bytes, sha256 = info.name, info.size_bytes, info.sha256
        path = self.index.folder / name
        try:
            handle = self._open_file(path, name, expected_bytes, sha256)
        except OSError as error:
            text = f"{path}: the shard cannot be opened ({error.strerror or error}). {_RESTORE}"
            raise SampleFaultError(text, "missing_shard") from None
        size_bytes = os.fstat(handle).st_size
        if size_bytes != expected_bytes:
            os.close(handle)
            raise SampleFaultError(
                f"{path}: {size_bytes} bytes, its index says {expected_bytes}. {_RESTORE}", "other_shard"
            )
        # What was fetched has been compared on arrival.
        if self.verify_hashes and self.index.cache is None and file_sha256(path) != sha256:
            os.close(handle)
            text = f"{path}: changed after the index was written, its sha256 does not fit. {_RESTORE}"
            raise SampleFaultError(text, "other_shard")
        return handle

    def _open_file(self, path: Path, name: str, size_bytes: int, sha256: str) -> int:
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
        if self.index.cache is None:
            return os.open(path, flags)
        for _ in range(_FETCH_ATTEMPTS):
            try:
                return os.open(self.index.cache.fetch(name, size_bytes, sha256), flags)
            except FileNotFoundError:
                continue
        raise OSError("the shard cache is too small for the processes that use it, set EMOVIT_CACHE_GB")

    def _place(self, sample: int) -> str:
        return f"{self.index.folder / self.index.key_of(sample)}"

    def __getstate__(self) -> dict[str, Any]:
        # Handles and locks don't travel to another process.
        return {"index": self.index, "verify_hashes": self.verify_hashes, "max_open": self.max_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_empty()

    def __del__(self) -> None:
        # When Python ends, modules go before what they made.
        if hasattr(self, "_handles") and os is not None:
            self.close()


def _read_at(handle: int, start: int, size_bytes: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(handle, size_bytes, start)
    os.lseek(handle, start, os.SEEK_SET)
    return os.read(handle, size_bytes)
