"""Signals that stop a run: it finishes the step, saves a checkpoint, and ends with exit code 75.

Schedulers send a signal before they stop a machine: Slurm SIGTERM or the signal of `--signal=USR1@120`, cloud machines
SIGTERM. A second signal ends the process at once.
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

# EX_TEMPFAIL of sysexits.h: nothing is wrong, try again. Schedulers can requeue jobs with this exit code.
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130  # after Ctrl-C
STOP_SIGNALS = ("SIGTERM", "SIGUSR1")


class RunStopped(Exception):  # noqa: N818 (nothing is wrong)
    """A signal stopped the run, which has saved everything that it needs to resume."""


class StopRequest:
    """While it is open, the first stop signal is recorded and does not end the process.

    Attributes:
        received: name of the signal, or None. Ranks exchange it, so that all stop after the same step.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        # Only the main thread can handle signals; a run in another thread is stopped by its caller.
        if threading.current_thread() is threading.main_thread():
            for name in STOP_SIGNALS:
                if hasattr(signal, name):  # Windows has no SIGUSR1
                    number = getattr(signal, name)
                    self._earlier[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        _restore(self._earlier)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            _restore(self._earlier)
            os.kill(os.getpid(), number)
            return
        self.received = signal.Signals(number).name
        # Written directly, because the signal may have interrupted code that holds the lock of logging.
        text = f"{self.received}: the run stops after this step and saves; a second signal ends it at once\n"
        os.write(2, text.encode())


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    handlers.clear()


@contextmanager
def on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM within the block calls `stop` in the running event loop; the second is not caught."""
    loop = asyncio.get_running_loop()
    earlier: dict[int, Any] = {}

    def interrupt(number: int, frame: FrameType | None) -> None:
        _restore(earlier)
        loop.call_soon_threadsafe(stop)

    with suppress(ValueError):  # only the main thread can handle signals
        for number in (signal.SIGINT, signal.SIGTERM):
            earlier[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        _restore(earlier)
