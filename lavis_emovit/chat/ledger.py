"""The ledger: every answer of a paid endpoint, on disk before anything else is done with it.

One JSON object a line, only ever appended. A killed run leaves at most one partial line, which the next opening moves
aside. Rows with a `request` are attempts. Requests with a status in `FINISHED` are paid and never sent again under the
same fingerprint. Rows with an `event` are `ledger` (the first line), `reserved` (the most that calls under way may
cost; it counts as spent if the run is killed), `closed`, and those of batches.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lavis_emovit.chat.scratch import Scratch
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.files import load_json, regular_file, sync_folder

_HEADER = {"event": "ledger", "version": 1}

# Statuses of finished requests: good or bad, the answer is kept and not paid for again.
FINISHED = frozenset({"ok", "refused", "cut", "bad_json", "empty"})

_Usd = Annotated[float, Field(ge=0.0)]


class _Row(BaseModel):
    """What a row must be so that costs, limits and replies can be trusted. All but the first two keys are optional."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    request: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    status: str | None = None
    model: str | None = None
    prompt: str | None = None
    reply: str | None = None
    reason: str | None = None
    logprobs: list[list[str | float]] | None = None
    sample: int = 0
    about: dict[str, str] = {}
    usage: dict[str, Annotated[int, Field(ge=0, le=10**12)]] | None = None
    usd: _Usd | None = None
    usd_bound: _Usd | None = None
    event: str | None = None
    in_doubt_usd: _Usd = 0.0
    submission: str | None = None
    requests: Annotated[int, Field(ge=0)] = 0
    batch: str | None = None

    def missing(self) -> str | None:
        """The name of a key that the row needs and lacks."""
        if self.event is None:
            return "request" if self.request is None else "status" if self.status is None else None
        if self.event == "reserved":
            return "usd" if self.usd is None else None
        if self.event == "batch_submitted" and self.batch is None:
            return "batch"
        return "submission" if self.event.startswith("batch_") and self.submission is None else None


LEDGER_NAME = "ledger.jsonl"
"""The ledger's file in a folder of generated instructions."""


class Ledger:
    """An open ledger, which no other process can open (UserError). Use it as a context manager.

    UserError also if the file cannot be written; DataError if it is not a ledger, or a line in the middle is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.usd_spent = 0.0  # of all rows; attempts of unknown cost count with the most that they may cost
        self.usd_in_doubt = 0.0  # the part of `usd_spent` that calls under way may have cost when a run was killed
        self.tokens: Counter[str] = Counter()  # input, cached and output tokens of all rows
        self.counts: Counter[str] = Counter()  # number of attempts by status
        self.events: list[dict[str, Any]] = []  # rows of batches, in order
        self._size = 0
        self._reserved = 0.0
        self._waiting: list[tuple[dict[str, Any], bytes]] = []
        self._flush_under_way: asyncio.Task[None] | None = None
        self._next_flush: asyncio.Task[None] | None = None
        self._writing = threading.Lock()
        self._open_parts = ExitStack()
        with ExitStack() as parts:  # closes what is open if an error follows
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                parts.enter_context(FileLock(f"{self.path}.lock", timeout=0))
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            except Timeout:
                raise UserError(
                    f"{self.path}: another run is using this ledger. Wait for it to end, or give this run another "
                    "folder."
                ) from None
            except OSError as error:
                raise UserError(
                    f"{self.path}: the ledger cannot be opened ({error.strerror}); give a folder that can be written to"
                ) from None
            parts.callback(self._close_file)
            # Place of the row of each finished request.
            self._index = Scratch("key INTEGER PRIMARY KEY, offset INTEGER, length INTEGER", self.path.parent)
            self._load()
            if self._size == 0:
                self.append_now(_HEADER)
                sync_folder(self.path.parent)
            self._executor = parts.enter_context(ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger"))
            self._open_parts = parts.pop_all()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, and close the file."""
        with self._open_parts:
            # Answers that had arrived when a run was cancelled.
            waiting, self._waiting = self._waiting, []
            for row, _ in waiting:
                self.append_now(row)
            if self._reserved:
                self.append_now({"event": "closed"})

    def _close_file(self) -> None:
        os.close(self._file)
        self._file = -1  # the number may soon belong to another file

    def __len__(self) -> int:
        count: int = self._index.execute("SELECT count(*) FROM scratch").fetchone()[0]
        return count

    def __contains__(self, fingerprint: str) -> bool:
        return self._place(fingerprint) is not None

    def finished(self, fingerprint: str) -> dict[str, Any] | None:
        """The row of a finished request, or None."""
        place = self._place(fingerprint)
        if place is None:
            return None
        offset, length = place
        row = decode_row(os.pread(self._file, length, offset))
        if row is None:
            raise DataError(f"{self.path}: the row at byte {offset} is missing; the file was changed while it was used")
        return row

    def attempts(self) -> Iterator[dict[str, Any]]:
        """The rows of all attempts, in the order in which they were written."""
        for row in map(decode_row, self._lines()):
            if row is not None and "request" in row:
                yield row

    async def append(self, row: dict[str, Any]) -> None:
        """Write a row; returns when it is on disk. If it cannot be written, the file stays as it was."""
        self._waiting.append((row, _encode(row)))
        if self._next_flush is None or self._next_flush.done():
            self._next_flush = asyncio.create_task(self._flush(self._flush_under_way))
        # Even if the caller is cancelled, a paid answer is written.
        await asyncio.shield(self._next_flush)

    def append_now(self, row: dict[str, Any]) -> None:
        """As `append`, for callers outside an event loop."""
        line = _encode(row)
        self._note(row, self._write(line), len(line))

    def reserve(self, usd: float) -> None:
        """Record what calls under way may cost at most, so that a killed run leaves no cost unknown.

        Only a new maximum is written, rounded up to one of few amounts, so there are few such rows.
        """
        if usd > self._reserved:
            amount = max(0.01, 2 * self._reserved)
            while amount < usd:
                amount *= 2
            self.append_now({"event": "reserved", "usd": amount})

    def _lines(self) -> Iterator[bytes]:
        with regular_file(self.path).open("rb") as file:
            yield from file

    def _place(self, fingerprint: str) -> tuple[int, int] | None:
        place: tuple[int, int] | None = self._index.execute(
            "SELECT offset, length FROM scratch WHERE key = ?", (_key(fingerprint),)
        ).fetchone()
        return place

    def _load(self) -> None:
        """Read all rows, and move a partial line at the end aside."""
        offset = bad_line = 0
        for number, line in enumerate(self._lines(), start=1):
            row = decode_row(line)
            if number == 1 and not _is_header(line, row):
                raise DataError(f"{self.path}: not a ledger of chat requests; give another folder, or move it away")
            if row is None:
                bad_line = bad_line or number
            elif bad_line:
                raise DataError(
                    f"{self.path}:{bad_line}: this line is damaged, but the rows after it are not. Look at it and "
                    "remove it; the requests of the other rows are not sent and paid again."
                )
            else:
                self._check(row, number)
                self._note(row, offset, len(line))
                offset += len(line)
        self._size = offset
        if bad_line:
            self._move_end_aside()
        if self._reserved:
            # The last run was killed, and the calls under way may have been billed.
            self.append_now({"event": "closed", "in_doubt_usd": self._reserved})

    def _check(self, row: dict[str, Any], number: int) -> None:
        """DataError for a row that an edit made unusable. A wrong cost would let a run pass its limit."""
        try:
            missing = _Row.model_validate(row).missing()
            problem = f"'{missing}' is missing" if missing else None
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"'{'.'.join(map(str, first['loc']))}': {first['msg']} (got {first['input']!r:.80})"
        if problem is not None:
            raise DataError(
                f"{self.path}:{number}: {problem}. The ledger was edited. Correct this row, or remove it: its request "
                "is then paid again, and the costs of the row no longer count."
            )

    def _move_end_aside(self) -> None:
        cut = os.pread(self._file, os.fstat(self._file).st_size - self._size, self._size)
        with self.path.with_name(self.path.name + ".cut").open("ab") as file:
            file.write(cut + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.ftruncate(self._file, self._size)
        os.fsync(self._file)

    def _note(self, row: dict[str, Any], offset: int, length: int) -> None:
        """Update counters and index with a row that is on disk."""
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
            if row["status"] in FINISHED:
                self._index.execute(
                    "INSERT OR IGNORE INTO scratch VALUES (?, ?, ?)", (_key(row["request"]), offset, length)
                )

    async def _flush(self, previous: asyncio.Task[None] | None) -> None:
        """Write, with one `fsync`, all rows that wait when the previous flush has ended."""
        if previous is not None and not previous.done():
            await asyncio.wait([previous])
        batch, self._waiting = self._waiting, []
        self._flush_under_way, self._next_flush = self._next_flush, None
        data = b"".join(line for _, line in batch)
        offset = await asyncio.get_running_loop().run_in_executor(self._executor, self._write, data)
        for row, line in batch:
            self._note(row, offset, len(line))
            offset += len(line)

    def _write(self, data: bytes) -> int:
        """Append bytes and flush them to disk; returns their offset. Called from two threads."""
        with self._writing:
            start = self._size
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self._file, view) :]
                os.fsync(self._file)
            except OSError as error:
                # The next row must not follow a partial one.
                os.ftruncate(self._file, start)
                raise UserError(
                    f"{self.path}: the ledger cannot be written ({error.strerror}). The run stops, because an answer "
                    "that is not recorded would be paid twice."
                ) from None
            self._size += len(data)
            return start


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_header(line: bytes, row: dict[str, Any] | None) -> bool:
    """Whether a first line is that of a ledger, or the part of it that a killed run has left."""
    if row is not None:
        return row == _HEADER
    return not line.endswith(b"\n") and _encode(_HEADER).startswith(line)


def _encode(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"


def decode_row(line: bytes) -> dict[str, Any] | None:
    """The row of a whole line, or None if it is damaged."""
    with suppress(ValueError):
        row = load_json(line, unique_keys=True)
        if line.endswith(b"\n") and isinstance(row, dict) and ("event" in row or {"request", "status"} <= row.keys()):
            return row
    return None


def _key(fingerprint: str) -> int:
    """The first 63 bits; two of a million fingerprints share them with a probability of 1e-7."""
    return int(fingerprint[:16], 16) >> 1
