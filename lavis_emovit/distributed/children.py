"""Trainings in a process of their own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from lavis_emovit.distributed.signals import EXIT_INTERRUPTED, EXIT_STOPPED, RunStopped


def run_training(name: str, command: Sequence[str]) -> int:
    """Run a training command; stop signals reach it, and its messages are shown. Its exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it.
        RunStopped: a stop signal ended it, with everything saved.
        OSError: it cannot be started.
    """
    waiting: list[int] = []

    def note(number: int, _: object) -> None:
        if number != signal.SIGINT:  # a terminal sends Ctrl-C to both processes
            waiting.append(number)

    # Before the process starts, and asked for in turns: a signal is lost neither before nor within a wait.
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    earlier = {number: signal.signal(number, note) for number in signals}
    try:
        process = subprocess.Popen(command)
        code = None
        while code is None:
            while waiting:
                process.send_signal(waiting.pop(0))
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=0.5)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code == EXIT_STOPPED:
        raise RunStopped(f"the training of {name} was stopped")
    return code
