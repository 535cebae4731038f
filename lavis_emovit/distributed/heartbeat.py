"""Ranks watch each other: if one fails, ends or hangs, the run ends with a message.

A thread of each rank writes its current work to the common store. Rank 0 reads all ranks, the others read rank 0. A
rank is lost if its process has ended or has written nothing for `SILENT_S` (`run.timeout_s` and 5 s if that is less).
So is rank 0 if the store does not answer for as long: a second thread watches the first, which then waits forever. The
run hangs if no rank makes progress for `run.timeout_s`. A rank that stops with an error stores its message for all.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from lavis_emovit.errors import UserError, first_line

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
# A rank that is silent for this long is lost; swapping may delay a thread for some seconds.
SILENT_S = 30.0
# Time for the main thread to end by itself before the process is ended.
GRACE_S = 5.0
# EX_OSERR of sysexits.h: another process or its machine failed; the same command resumes the run.
EXIT_RANK_LOST = 71

_STOP_KEY = "stop"


class RankLostError(UserError):
    """The run cannot continue because of another rank."""


@dataclass(frozen=True)
class Beat:
    """The last report of one rank."""

    rank: int
    count: int  # number of reports
    moves: int  # number of calls of `note`, each of which is progress
    doing: str  # for messages, such as `reading`
    step: int | None  # last optimizer step
    place: str | None  # last shard or sample
    may_take_long: bool  # whether the duration of the current work is unknown
    host: str
    pid: int

    def where(self) -> str:
        """`in step 12, reading, last shard train/000003.tar`"""
        step = None if self.step is None else f"in step {self.step}"
        place = None if self.place is None else f"last shard {self.place}"
        return ", ".join(part for part in (step, self.doing, place) if part is not None)


class Heartbeat:
    """The thread of one rank; `store` is a torch.distributed store that all ranks reach."""

    def __init__(self, store: Any, rank: int, world_size: int, timeout_s: float):
        self._store, self._rank, self._world_size, self._timeout_s = store, rank, world_size, timeout_s
        self._own = Beat(rank, 0, 0, "starting", None, None, True, socket.gethostname(), os.getpid())
        self._lock = threading.Lock()
        self._done, self._judged, self._news = threading.Event(), threading.Event(), threading.Event()
        self._verdict: tuple[int, str] | None = None
        # Rank -> its last beat, and the times of its last report and its last progress by this rank's clock.
        self._seen: dict[int, tuple[Beat, float, float]] = {}
        self._began = self._answered = time.monotonic()
        self._silent_s = min(SILENT_S, timeout_s + 5.0)
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        threading.Thread(target=self._watch_store, name="heartbeat-store", daemon=True).start()
        self._write()
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._news.set()
        self._thread.join(timeout=2 * INTERVAL_S)

    def note(self, doing: str, *, step: int | None = None, place: str | None = None, long: bool = False) -> None:
        """Record progress of this rank; the thread writes it, so nothing waits for the store."""
        with self._lock:
            own = self._own
            self._own = replace(
                own,
                moves=own.moves + 1,
                doing=doing,
                step=own.step if step is None else step,
                place=place or own.place,
                may_take_long=long,
            )
        self._news.set()

    def report_error(self, text: str) -> None:
        """Store the error of this rank for all; only the first error counts."""
        self._done.set()
        try:
            self._post(self._rank, f"rank {self._rank}: {text}")
        except Exception as error:  # the store ends together with rank 0
            logger.debug("the error cannot be sent to the other ranks: %s", error)

    def verdict(self, wait_s: float = 0.0) -> RankLostError | None:
        """The problem of another rank, or None; waits up to `wait_s` for the thread to find it."""
        self._judged.wait(wait_s)
        return None if self._verdict is None else RankLostError(self._verdict[1])

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._done.is_set():
            self._news.wait(max(0.0, looked + INTERVAL_S - time.monotonic()))
            self._news.clear()
            if self._done.is_set():
                return
            try:
                self._write()
                self._answered = time.monotonic()
                if time.monotonic() - looked < INTERVAL_S:
                    continue
                looked = time.monotonic()
                problem = self._look()
            except Exception as error:
                # The store belongs to rank 0 or the launcher. If it is gone and this rank is not ending, rank 0 ended.
                if self._done.wait(INTERVAL_S):
                    return
                seen = self._seen.get(0)
                text = f"the ranks can no longer reach each other: {first_line(error)}"
                problem = 0, _lost_text(seen[0]) if seen else text
            if problem is not None:
                self._judge(problem)
                return

    def _watch_store(self) -> None:
        # Counted and not measured, so that time in which this process was suspended itself does not count.
        silent_s, last = 0.0, self._answered
        while not self._done.wait(INTERVAL_S) and not self._judged.is_set():
            silent_s = silent_s + INTERVAL_S if self._answered == last else 0.0
            last = self._answered
            if silent_s > self._silent_s:
                seen = self._seen.get(0)
                unseen = f"rank 0, through which the ranks reach each other, has not answered for {silent_s:.0f} s"
                self._judge((0, _lost_text(seen[0]) if seen else unseen))

    def _write(self) -> None:
        with self._lock:
            own = self._own
            self._own = replace(own, count=own.count + 1)
        self._store.set(f"beat/{self._rank}", json.dumps(asdict(self._own)))

    def _look(self) -> tuple[int, str] | None:
        """Rank and text of a problem, or None."""
        if self._store.check([_STOP_KEY]):
            word = json.loads(self._store.get(_STOP_KEY))
            if word["rank"] != self._rank:
                return word["rank"], word["text"]
        watched = range(1, self._world_size) if self._rank == 0 else (0,)
        now = time.monotonic()
        for rank in watched:
            if not self._store.check([f"beat/{rank}"]):
                continue
            beat = Beat(**json.loads(self._store.get(f"beat/{rank}")))
            earlier, wrote, moved = self._seen.get(rank, (None, self._began, self._began))
            if earlier is None or beat.count != earlier.count:
                wrote = now
            if earlier is None or beat.moves != earlier.moves:
                moved = now
            self._seen[rank] = beat, wrote, moved
            if self._has_ended(beat) or now - wrote > self._silent_s:
                return self._post(rank, _lost_text(beat))
        return self._find_hang(now) if self._rank == 0 else None

    def _find_hang(self, now: float) -> tuple[int, str] | None:
        own = self._own
        earlier, _, moved = self._seen.get(0, (None, now, now))
        if earlier is None or own.moves != earlier.moves:
            moved = now
        self._seen[0] = own, now, moved
        if len(self._seen) < self._world_size or any(beat.may_take_long for beat, _, _ in self._seen.values()):
            return None
        idle_s = now - max(moved for _, _, moved in self._seen.values())
        if idle_s < self._timeout_s:
            return None
        for beat, wrote, _ in self._seen.values():
            if now - wrote > 5 * INTERVAL_S:  # its process is frozen, so the others wait for it
                return self._post(beat.rank, _lost_text(beat))
        beats = [beat for beat, _, _ in self._seen.values()]
        fewest = min(beat.moves for beat in beats)
        behind = [beat for beat in beats if beat.moves == fewest]
        places = "; ".join(f"rank {beat.rank}: {beat.where()}" for beat in behind)
        text = f"the run hangs: no process made progress for {idle_s:.0f} s (run.timeout_s). Furthest behind: {places}"
        return self._post(behind[0].rank, text)

    def _post(self, rank: int, text: str) -> tuple[int, str]:
        # Only the first problem is kept: later ones are consequences.
        self._store.compare_set(_STOP_KEY, "", json.dumps({"rank": rank, "text": text}))
        return rank, text

    def _has_ended(self, beat: Beat) -> bool:
        """Whether the process has ended, if it is on this machine."""
        if beat.host != self._own.host:
            return False
        try:
            return psutil.Process(beat.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False

    def _judge(self, problem: tuple[int, str]) -> None:
        """Let the main thread end with the verdict; after `GRACE_S`, end the process."""
        # Printed first, because launchers end all ranks as soon as one has ended.
        if self._rank == 0 or problem[0] == 0:
            print(f"error: {problem[1]}", file=sys.stderr, flush=True)
        self._verdict = problem
        self._judged.set()
        if not self._done.wait(GRACE_S):
            os._exit(EXIT_RANK_LOST)


def _lost_text(beat: Beat) -> str:
    return (
        f"rank {beat.rank} (process {beat.pid} on {beat.host}) has ended or cannot be reached; it was last "
        f"{beat.where()}. Check the end of its output and the memory of its machine. The same command resumes from the "
        "last save."
    )


@contextmanager
def joining(rank: int, world_size: int, timeout_s: float) -> Iterator[None]:
    """End this process if the block, in which the ranks meet, takes longer: a frozen rank does not refuse to answer."""

    def give_up() -> None:
        text = f"{others(rank, world_size)} has not answered for {timeout_s:g} s while the processes joined."
        print(f"error: {text} Check its output, and start all processes again.", file=sys.stderr, flush=True)
        os._exit(EXIT_RANK_LOST)

    timer = threading.Timer(timeout_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def others(rank: int, world_size: int) -> str:
    """The ranks that a rank waits for while the processes join: all wait for rank 0, and rank 0 for all others."""
    if rank:
        return "rank 0"
    return "rank 1" if world_size == 2 else f"one of the ranks 1 to {world_size - 1}"


_current: Heartbeat | None = None


def begin(store: Any, rank: int, world_size: int, timeout_s: float) -> None:
    """Start the heartbeat of this process, which the functions of this module use."""
    global _current
    _current = Heartbeat(store, rank, world_size, timeout_s)
    _current.start()


def end() -> None:
    global _current
    if _current is not None:
        _current.stop()
        _current = None


def current() -> Heartbeat | None:
    """This process's heartbeat, or None with one process."""
    return _current


def note(doing: str, *, step: int | None = None, place: str | None = None, long: bool = False) -> None:
    """Record progress of this process, if there are several.

    Args:
        doing: for messages, such as `reading`.
        step, place: optimizer step and shard; None keeps the last one.
        long: the duration of the work is unknown, such as preparing a dataset.
    """
    if _current is not None:
        _current.note(doing, step=step, place=place, long=long)


def is_exchange_error(error: BaseException) -> bool:
    """Whether a collective failed because another rank ended."""
    text = f"{type(error).__name__} {error}".lower()
    marks = ("gloo", "nccl", "connection closed", "connection reset", "socket", "timed out", "store", "peer")
    return isinstance(error, RuntimeError) and any(mark in text for mark in marks)
