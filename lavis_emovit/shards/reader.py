"""Strict reading of one sample by its number: a missing, truncated or changed shard is an error that names it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from lavis_emovit.boxes import BoxCounts
from lavis_emovit.errors import DataError
from lavis_emovit.files import file_sha256
from lavis_emovit.own_files import Written
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.shards.columns import sample_crc32
from lavis_emovit.shards.index import ShardIndex

_RESTORE = "Run `emovit shards verify` on the folder; restore the shard from a backup or build the shards again."
# Number of the records file beside the shards, among the open files.
_RECORDS_FILE = -1
# In `build.resize` of the index: shrinking scaled the boxes of the records, too.
SCALED_BOXES = "scaled_boxes"
# Another process may evict a remote shard between fetching and opening it.
_FETCH_ATTEMPTS = 20


# Kind -> its description in a summary.
FAULT_KINDS = {
    "missing_shard": "the shard is missing or cannot be opened",
    "other_shard": "the shard is not the indexed one",
    "cut_shard": "the shard is truncated inside the sample",
    "changed_bytes": "the sample's bytes are not the indexed ones",
    "bad_record": "the record cannot be read",
    "bad_image": "the image cannot be decoded",
}


QUARANTINE_NAME = "quarantine.jsonl"
"""The list of a run's faults, in its folder; a line is a `ListedFault`."""


class ListedFault(Written):
    """A sample that a run could not use, and the one in its place.

    Attributes:
        place: the key of the sample in its shard.
        label: of the sample, if it has one.
        index: the beginning of the hash of the shards' index.
    """

    sample: int
    place: str
    kind: str
    label: str | None
    reason: str
    replaced_by: int
    index: str


class SampleFaultError(DataError):
    """A sample that cannot be used; `kind` is a key of `FAULT_KINDS`."""

    def __init__(self, text: str, kind: str = "bad_record"):
        super().__init__(text)
        self.kind = kind

    def __reduce__(self) -> tuple[type[SampleFaultError], tuple[str, str]]:
        return type(self), (str(self), self.kind)


@dataclass(frozen=True)
class ShardSample:
    """A sample as stored in the shard."""

    record: EmotionRecord
    image_bytes: bytes


class ShardReader:
    """Reads samples of a `ShardIndex` in any order, in any process.

    Names and sizes of all shards are checked at the start (without `check_files`: of each when it is opened), the
    checksum of a sample at every read, and with `verify_hashes` the sha256 of a shard when it is first opened. File
    handles are opened when first needed and read by position, so a reader can be shared by threads, forked and pickled.
    Remote shards are fetched when first needed, and only one stays open, since the cache may evict them.
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
            SampleFaultError: the shard is missing, truncated or changed; names shard and sample.
            DataError: a remote shard cannot be fetched, or an earlier version shrank the image and may not have
                scaled its box.
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
            # Image and record are side by side, so one read gets both.
            first = min(image_start, record_start)
            data = self._read_bytes(shard, first, max(image_end, record_end) - first, sample)
            image_bytes = data[image_start - first : image_end - first]
            record_bytes = data[record_start - first : record_end - first]
        if sample_crc32(image_bytes, record_bytes) != int(columns["crc32"][sample]):
            text = f"{self._place(sample)}: its bytes changed after the index was written. {_RESTORE}"
            raise SampleFaultError(text, "changed_bytes")
        return ShardSample(self._parsed(record_bytes, sample), image_bytes)

    def read_record(self, sample: int) -> EmotionRecord:
        """The record of a sample without its image, so its checksum is not compared; raises as `read`."""
        return self._parsed(self._record_bytes(sample), sample)

    def box_counts(self, samples: Iterable[int]) -> BoxCounts:
        """Counts of samples without a box, and of images that several are about; unreadable ones are not counted."""
        found = BoxCounts()
        for sample in samples:
            with suppress(SampleFaultError):
                # Most records have no box, and looking for the key is much faster than parsing.
                if b'"box"' in (content := self._record_bytes(sample)):
                    record = self._parsed(content, sample)
                    found.add(record.image, record.clip, record.box)
                else:
                    found.num_without += 1
        return found

    def _record_bytes(self, sample: int) -> bytes:
        columns = self.index.columns
        place = self.index.shard_of(sample) if self.index.records_name is None else _RECORDS_FILE
        start, size_bytes = int(columns["record_offset"][sample]), int(columns["record_bytes"][sample])
        return self._read_bytes(place, start, size_bytes, sample)

    def close(self) -> None:
        """Close all file handles; the next read opens them again."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def _parsed(self, record_bytes: bytes, sample: int) -> EmotionRecord:
        try:
            record = parse_record(record_bytes, self._place(sample))
        except DataError as error:
            raise SampleFaultError(str(error), "bad_record") from None
        resize = self.index.build.get("resize")
        if record.box is not None and resize and not resize.get(SCALED_BOXES):
            # Not a faulty sample, which another one could replace.
            raise DataError(
                f"{self.index.place}: these images were shrunk by an earlier version, which may not have scaled the "
                "boxes of their records. Build the shards again (`emovit shards build`)."
            )
        return record

    def _start_empty(self) -> None:
        self._handles: OrderedDict[int, int] = OrderedDict()
        self._lock = Lock()
        self._process = os.getpid()

    def _read_bytes(self, number: int, start: int, size_bytes: int, sample: int) -> bytes:
        if self._process != os.getpid():
            # A fork may have copied the lock while another thread held it, so the child starts with new state.
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
            # Read under the lock, so that no other thread closes the handle.
            data = _read_at(handle, start, size_bytes)
        if len(data) != size_bytes:
            raise SampleFaultError(f"{self._place(sample)}: the shard is truncated. {_RESTORE}", "cut_shard")
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
            raise SampleFaultError(f"{path}: {size_bytes} bytes, expected {expected_bytes}. {_RESTORE}", "other_shard")
        # Fetched shards were verified on arrival.
        if self.verify_hashes and self.index.cache is None and file_sha256(path) != sha256:
            os.close(handle)
            text = f"{path}: changed after the index was written, its sha256 does not match. {_RESTORE}"
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
        raise OSError("the shard cache is too small for the processes that use it; increase EMOVIT_CACHE_GB")

    def _place(self, sample: int) -> str:
        return f"{self.index.place}/{self.index.key_of(sample)}"

    def __getstate__(self) -> dict[str, Any]:
        # Handles and locks cannot be pickled.
        return {"index": self.index, "verify_hashes": self.verify_hashes, "max_open": self.max_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_empty()

    def __del__(self) -> None:
        # At interpreter exit the module `os` may be gone before the reader.
        if hasattr(self, "_handles") and os is not None:
            self.close()


def _read_at(handle: int, start: int, size_bytes: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(handle, size_bytes, start)
    os.lseek(handle, start, os.SEEK_SET)
    return os.read(handle, size_bytes)
