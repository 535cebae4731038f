"""The ledger: every answer of a paid endpoint, on disk before anything else happens with it.

One JSON object a line, only ever appended. A row is written and flushed to disk (`fsync`) before `append` returns; many
rows that wait together share one flush. A run that was killed leaves at most one half-written line, which the next
opening moves aside. One process at a time holds a ledger.

Rows with a `request` are attempts. Those whose status is in `FINISHED` were paid and are never asked for again under
the same fingerprint. Rows with an `event` keep the books: `ledger` (the first line), `reserved` (the most that calls
under way may cost; it counts as spent where a run was killed), `closed`, and those of batches.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from array import array
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lavis_emovit.errors import DataError, UserError
from lavis_emovit.files import sync_folder

LEDGER_VERSION = 1

_HEADER = {"event": "ledger", "version": LEDGER_VERSION}

# Statuses of attempts that were answered and are over: good or bad, they are kept and not paid for again.
FINISHED = frozenset({"ok", "refused", "cut", "bad_json", "empty"})


class Ledger:
    """An open ledger. Use it as a context manager.

    Args:
        path: the file; made where missing.

    Attributes:
        usd_spent: cost of all rows, in US dollars; attempts of unknown cost count with the most that they may cost.
        usd_in_doubt: what calls that were under way when a run was killed may have cost at most; part of `usd_spent`.
        tokens: input, cached and output tokens of all rows.
        counts: number of attempts by status.
        events: book-keeping rows of batches, in order.

    Raises:
        UserError: another process holds it, or the file cannot be written.
        DataError: a line in its middle is damaged, or it is no ledger.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.usd_spent = 0.0
        self.usd_in_doubt = 0.0
        self.tokens: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.events: list[dict[str, Any]] = []
        self._size = 0
        self._reserved = 0.0
        self._index = _OffsetIndex()
        self._waiting: list[tuple[dict[str, Any], bytes, asyncio.Future[None]]] = []
        self._writing = threading.Lock()
        self._flusher: asyncio.Task[None] | None = None
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._lock = FileLock(f"{self.path}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.path}: another run is using this ledger. Wait for it to end, or give this run another folder."
            ) from None
        except OSError as error:
            raise UserError(
                f"{self.path}: the ledger cannot be opened ({error.strerror}); give a folder that can be written to"
            ) from None
        try:
            try:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            except OSError as error:
                raise UserError(f"{self.path}: the ledger cannot be opened ({error.strerror})") from None
            try:
                self._load()
                if self._size == 0:
                    self.append_now(_HEADER)
                    sync_folder(self.path.parent)
            except BaseException:
                os.close(self._file)
                raise
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush and let go of the file. What calls under way may cost is settled by now."""
        if self._file < 0:
            return
        try:
            # Answers that had arrived when a run was broken off.
            waiting, self._waiting = self._waiting, []
            for row, _, _ in waiting:
                self.append_now(row)
            if self._reserved:
                self.append_now({"event": "closed"})
        finally:
            self._executor.shutdown()
            os.close(self._file)
            self._file = -1
            self._lock.release()

    def __len__(self) -> int:
        """Number of finished requests."""
        return len(self._index)

    def __contains__(self, fingerprint: str) -> bool:
        """Whether the request is finished."""
        return self._index.get(fingerprint) is not None

    def finished(self, fingerprint: str) -> dict[str, Any] | None:
        """The row of a finished request, or None."""
        offset = self._index.get(fingerprint)
        return None if offset is None else self._row_at(offset)

    def attempts(self) -> Iterator[dict[str, Any]]:
        """All rows of attempts, in the order in which they were written."""
        for _, line in _lines(self._file, self._size):
            row = _decode(line)
            if row is not None and "request" in row:
                yield row

    async def append(self, row: dict[str, Any]) -> None:
        """Write a row; returns when it is on disk.

        Raises:
            UserError: it could not be written; the file is as it was before.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, _encode(row), done))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        # A cancelled caller must not keep a paid answer from the disk.
        await asyncio.shield(done)

    def append_now(self, row: dict[str, Any]) -> None:
        """As `append`, for callers outside an event loop."""
        self._note(row, self._write(_encode(row)))

    def reserve(self, usd: float) -> None:
        """Note what calls under way may cost at most, so that a killed run leaves no cost untold.

        Only a new high is written, and a round amount, so there are few such rows.
        """
        if usd > self._reserved:
            amount = max(0.01, 2 * self._reserved)
            while amount < usd:
                amount *= 2
            self.append_now({"event": "reserved", "usd": amount})

    # ---- Reading ----

    def _load(self) -> None:
        """Read all rows, move a half-written end aside; returns the sound size in bytes."""
        size = os.fstat(self._file).st_size
        sound = bad_line = number = 0
        for offset, line in _lines(self._file, size):
            number += 1
            row = _decode(line)
            if number == 1 and not _opens_a_ledger(line, row):
                raise DataError(f"{self.path}: not a ledger of chat requests; give another folder, or move it away")
            if row is None:
                bad_line = bad_line or number
                continue
            if bad_line:
                raise DataError(
                    f"{self.path}:{bad_line}: this line is damaged, and sound rows follow. Look at it and take it out; "
                    "the requests of the other rows stay paid."
                )
            self._note(row, offset)
            sound = offset + len(line)
        if sound < size:
            self._move_end_aside(sound, size)
        self._size = sound
        if self._reserved:
            # The last run did not come to its end; whatever was under way may have been billed.
            self.append_now({"event": "closed", "in_doubt_usd": self._reserved})

    def _move_end_aside(self, start: int, end: int) -> None:
        cut = os.pread(self._file, end - start, start)
        with self.path.with_name(self.path.name + ".cut").open("ab") as file:
            file.write(cut + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.ftruncate(self._file, start)
        os.fsync(self._file)

    def _row_at(self, offset: int) -> dict[str, Any]:
        # Most rows are a few thousand bytes; a whole block for each would read the file many times over.
        for _, line in _lines(self._file, self._size, offset, block_bytes=4096):
            row = _decode(line)
            if row is not None:
                return row
            break
        raise DataError(f"{self.path}: the row at byte {offset} is gone; the file was changed while it was used")

    def _note(self, row: dict[str, Any], offset: int) -> None:
        """Take a row that is on disk into the books."""
        event = row.get("event")
        if event == "reserved":
            self._reserved = float(row["usd"])
        elif event == "closed":
            self._reserved = 0.0
            self.usd_in_doubt += row.get("in_doubt_usd", 0.0)
            self.usd_spent += row.get("in_doubt_usd", 0.0)
        elif event is not None:
            self.events.append(row)
        elif "request" in row:
            self.counts[row["status"]] += 1
            self.tokens.update(row.get("usage") or {})
            usd = row.get("usd")
            self.usd_spent += (row.get("usd_bound") or 0.0) if usd is None else usd
            if row["status"] in FINISHED and self._index.get(row["request"]) is None:
                self._index.put(row["request"], offset)

    # ---- Writing ----

    async def _flush(self) -> None:
        """Write what waits, again and again until nothing does; all rows of one round share one `fsync`."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                data = b"".join(line for _, line, _ in batch)
                offset = await loop.run_in_executor(self._executor, self._write, data)
            except Exception as error:
                for _, _, done in batch:
                    if not done.done():
                        done.set_exception(error)
                continue
            for row, line, done in batch:
                self._note(row, offset)
                offset += len(line)
                if not done.done():
                    done.set_result(None)
        self._flusher = None

    def _write(self, data: bytes) -> int:
        """Append bytes and flush them to disk; returns where they begin. Called from two threads."""
        with self._writing:
            start = self._size
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self._file, view) :]
                os.fsync(self._file)
            except OSError as error:
                # Half a row must not stand in front of the next one.
                os.ftruncate(self._file, start)
                raise UserError(
                    f"{self.path}: the ledger cannot be written ({error.strerror}). The run stops, for an answer that "
                    "is not written down would be paid twice."
                ) from None
            self._size += len(data)
            return start


def now() -> str:
    """The time, as rows have it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _opens_a_ledger(line: bytes, row: dict[str, Any] | None) -> bool:
    """Whether a file's first line is that of a ledger, or the beginning of it that a killed run left."""
    if row is not None:
        return row == _HEADER
    return not line.endswith(b"\n") and _encode(_HEADER).startswith(line)


def _encode(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"


def _decode(line: bytes) -> dict[str, Any] | None:
    """The row of a whole line, or None where it is damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not ("event" in row or ("request" in row and "status" in row)):
        return None
    return row


def _lines(file: int, end: int, start: int = 0, block_bytes: int = 1 << 20) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of a file, read by position, so that writing goes on undisturbed."""
    rest, offset = b"", start
    position = start
    while position < end:
        block = os.pread(file, min(block_bytes, end - position), position)
        if not block:
            break
        position += len(block)
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        for line in lines:
            yield offset, line + b"\n"
            offset += len(line) + 1
    if rest:
        yield offset, rest


class _OffsetIndex:
    """Fingerprint -> offset in the file, in 16 bytes a slot: a table of its own, since a dict takes ten times as much.

    Open addressing with the first 63 bits of the fingerprint as key; two of a million fingerprints share them with a
    probability of 1e-7.
    """

    def __init__(self, num_slots: int = 1 << 12):
        self._keys = array("q", bytes(8 * num_slots))
        self._offsets = array("q", bytes(8 * num_slots))
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def get(self, fingerprint: str) -> int | None:
        slot = self._slot(_key(fingerprint))
        return self._offsets[slot] if self._keys[slot] else None

    def put(self, fingerprint: str, offset: int) -> None:
        if 3 * self._length > 2 * len(self._keys):
            self._grow()
        key = _key(fingerprint)
        slot = self._slot(key)
        self._length += not self._keys[slot]
        self._keys[slot], self._offsets[slot] = key, offset

    def _slot(self, key: int) -> int:
        mask = len(self._keys) - 1
        slot = key & mask
        while self._keys[slot] not in (0, key):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        old = list(zip(self._keys, self._offsets))
        self._keys = array("q", bytes(16 * len(old)))
        self._offsets = array("q", bytes(16 * len(old)))
        for key, offset in old:
            if key:
                slot = self._slot(key)
                self._keys[slot], self._offsets[slot] = key, offset


def _key(fingerprint: str) -> int:
    # 0 marks a free slot.
    return (int(fingerprint[:16], 16) >> 1) or 1
