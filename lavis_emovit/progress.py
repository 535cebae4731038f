"""The progress display of every long loop: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

logger = logging.getLogger(__name__)

PLAIN_INTERVAL_S = 10.0
MAX_SILENCE_S = 60.0  # slow steps are reported before `every` of them are done
POLL_INTERVAL_S = 0.25


class _Bar(Progress):
    """A bar with the note on the line below, where a long one has room."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield from (Text(task.fields["note"]) for task in self.tasks if task.fields["note"])


class ProgressLine:
    """The display of one loop; see `progress` for the arguments."""

    def __init__(self, label: str, total: int | None = None, *, done: int = 0, every: int | None = None):
        self._label, self._total, self._every = label, total, every
        self._done = self._resumed = done
        self._note = ""
        self._has_written, self._written_state = False, self._state()
        self._started = self._written = time.monotonic()
        self._bar: _Bar | None = None
        console = Console(file=sys.stderr)
        # Two processes that move the cursor of one terminal would overwrite each other's bars.
        if console.is_terminal and os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
            self._bar = _Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(label, total=total, completed=done, note="")
            self._bar.start()

    def advance(self, note: str = "") -> None:
        """One more step is done."""
        self.update(self._done + 1, note=note)

    def update(self, done: int, total: int | None = None, note: str = "", resumed: int | None = None) -> None:
        """Show another state; `resumed` of the `done` steps took no time, because an earlier run did them."""
        self._done, self._note = done, note
        self._total = self._total if total is None else total
        self._resumed = self._resumed if resumed is None else resumed
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self._total, note=note)
        elif self._is_due():
            self._write_plain()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hide the bar while the block runs, so that another one can be shown. The time does not count."""
        stopped = time.monotonic()
        if self._bar is not None:
            self._bar.stop()
        try:
            yield
        finally:
            self._started += time.monotonic() - stopped
            if self._bar is not None:
                self._bar.start()

    def stop(self) -> None:
        """Leave the final state on the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif self._every is None and self._state() != self._written_state:
            print(self._state(), file=sys.stderr, flush=True)

    def _state(self) -> str:
        total = f"/{self._total}" if self._total is not None else ""
        return f"{self._label} {self._done}{total}" + (f"  {self._note}" if self._note else "")

    def _is_due(self) -> bool:
        silent_s = time.monotonic() - self._written
        if self._every is None:
            return silent_s >= PLAIN_INTERVAL_S
        is_counted = self._done % self._every == 0 or self._done == self._total
        return is_counted or not self._has_written or silent_s >= MAX_SILENCE_S

    def _write_plain(self) -> None:
        self._has_written, self._written, self._written_state = True, time.monotonic(), self._state()
        text = self._written_state
        measured = self._done - self._resumed
        if self._total is not None and measured > 0:
            left_s = (self._written - self._started) / measured * max(0, self._total - self._done)
            text += f"  {_clock(left_s)} left"
        if self._every is None:
            print(text, file=sys.stderr, flush=True)
        else:
            logger.info("%s", text)


@contextmanager
def progress(
    label: str, total: int | None = None, *, done: int = 0, every: int | None = None
) -> Iterator[ProgressLine]:
    """Show the progress of the block: on a terminal as a bar of the first process, else as plain lines.

    `done` steps were done by an earlier run. Plain lines are logged after the first step, every `every` steps and
    `MAX_SILENCE_S` seconds without a line; None, for commands, prints a line to the standard error every
    `PLAIN_INTERVAL_S` seconds, and one at the end.
    """
    line = ProgressLine(label, total, done=done, every=every)
    try:
        yield line
    finally:
        line.stop()


@contextmanager
def polled(refresh: Callable[[], None]) -> Iterator[None]:
    """Call `refresh` from a thread every `POLL_INTERVAL_S` seconds while the block runs, and once after it."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(POLL_INTERVAL_S):
            refresh()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        refresh()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
