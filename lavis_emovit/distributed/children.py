"""Trainings in a process of their own."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from lavis_emovit.distributed.signals import EXIT_INTERRUPTED, EXIT_STOPPED, RunStopped
from lavis_emovit.errors import UserError


def training_command(launcher: str | None, key: str, recipe: str, options: Sequence[str]) -> list[str]:
    """The command of a training: one process of this Python, or what a launcher such as `torchrun --standalone
    --nproc_per_node=2` starts. UserError for a launcher that is no command; `key` is the setting that names it.
    """
    try:
        start = [sys.executable] if launcher is None else shlex.split(launcher)
    except ValueError as error:
        raise UserError(f"{key}: '{launcher}' is no command ({error})") from None
    if not start:
        raise UserError(f"{key}: is empty; name a launcher, such as torchrun, or omit it for one process")
    return [*start, "-m", "lavis.train", "--cfg-path", recipe, "--options", *options]


def run_training(name: str, command: Sequence[str], key: str) -> int:
    """Run a training command; stop signals reach it, and its messages are shown. Its exit code.

    Args:
        key: the setting that names the launcher.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it.
        RunStopped: a stop signal ended it. It has saved everything, unless a launcher ended its processes before.
        UserError: it cannot be started.
    """
    waiting: list[int] = []
    received: list[int] = []

    def note(number: int, _: object) -> None:
        received.append(number)
        if number != signal.SIGINT:  # a terminal sends Ctrl-C to both processes
            # The other signals mean the same to a training, but this one is what launchers pass on.
            waiting.append(signal.SIGTERM)

    # Before the process starts, and asked for in turns: a signal is lost neither before nor within a wait.
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    earlier = {number: signal.signal(number, note) for number in signals}
    try:
        try:
            process = subprocess.Popen(command)
        except OSError as error:
            raise UserError(f"{key}: {command[0]} cannot be started ({error.strerror})") from None
        code = None
        while code is None:
            while waiting:
                process.send_signal(waiting.pop(0))
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=0.5)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    # Launchers end with a code of their own.
    ended_by = received[0] if received and code and command[0] != sys.executable else None
    if code == EXIT_INTERRUPTED or ended_by == signal.SIGINT:
        raise KeyboardInterrupt
    if code == EXIT_STOPPED or ended_by is not None:
        raise RunStopped(f"the training of {name} was stopped")
    return code
