"""Signals that ask a run to stop: the step is finished, a checkpoint is saved, and the command ends with its own code.

Schedulers warn a job before they take its machine away: Slurm sends SIGTERM, or what `--signal=USR1@120` asks for, and
cloud machines send SIGTERM. A second signal ends the process at once, as it would have without us.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

# EX_TEMPFAIL of sysexits.h: nothing is wrong, try again. Schedulers can be told to requeue a job that ends so.
EXIT_STOPPED = 75
STOP_SIGNALS = ("SIGTERM", "SIGUSR1")


class RunStopped(Exception):  # noqa: N818 (nothing is wrong)
    """A run was asked to stop and has saved what it needs to go on."""


class StopRequest:
    """While it is open, notes the first stop signal instead of dying of it.

    Attributes:
        received: name of the signal, or None. Ranks tell each other theirs, so that all stop after the same step.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        # Python lets only the main thread handle signals; a run inside a thread is its owner's to stop.
        if threading.current_thread() is threading.main_thread():
            for name in STOP_SIGNALS:
                if hasattr(signal, name):  # Windows has no SIGUSR1
                    number = getattr(signal, name)
                    self._earlier[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self._restore()
            os.kill(os.getpid(), number)
            return
        self.received = signal.Signals(number).name
        # Straight to standard error: a handler may interrupt the very lock that logging would wait for.
        text = f"{self.received}: the run stops after this step and saves; a second signal ends it at once\n"
        os.write(2, text.encode())

    def _restore(self) -> None:
        for number, handler in self._earlier.items():
            restored: Callable[[int, FrameType | None], Any] | int = handler if handler is not None else signal.SIG_DFL
            signal.signal(number, restored)
        self._earlier = {}


@contextmanager
def on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM within the block calls `stop` in the running event loop; the second is not caught."""
    loop = asyncio.get_running_loop()
    earlier: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in earlier.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def interrupt(number: int, frame: FrameType | None) -> None:
        restore()
        loop.call_soon_threadsafe(stop)

    with suppress(ValueError):  # only the main thread can handle signals
        for number in (signal.SIGINT, signal.SIGTERM):
            earlier[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        restore()
