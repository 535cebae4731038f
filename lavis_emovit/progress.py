"""The one progress display: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)


class ProgressLine:
    """A live bar on a terminal, a plain line every so often elsewhere."""

    def __init__(self, label: str, total: int, *, done: int = 0, every: int = 10):
        self._label, self._total, self._every = label, total, every
        self._done = self._first = done
        self._started = time.monotonic()
        self._bar: Progress | None = None
        console = Console(file=sys.stderr)
        if console.is_terminal and os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(label, total=total, completed=done, note="")
            self._bar.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the block, something else may show a line of its own; its time does not count."""
        stopped = time.monotonic()
        if self._bar is not None:
            self._bar.stop()
        try:
            yield
        finally:
            self._started += time.monotonic() - stopped
            if self._bar is not None:
                self._bar.start()

    def advance(self, note: str = "") -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=note)
        elif self._done % self._every == 0 or self._done == self._total:
            left_s = (time.monotonic() - self._started) / (self._done - self._first) * (self._total - self._done)
            logger.info("%s %d/%d  %s  %s left", self._label, self._done, self._total, note, _clock(left_s))

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def progress(label: str, total: int, *, done: int = 0, every: int = 10) -> Iterator[ProgressLine]:
    line = ProgressLine(label, total, done=done, every=every)
    try:
        yield line
    finally:
        line.stop()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
