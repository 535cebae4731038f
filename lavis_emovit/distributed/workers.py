"""Worker processes: how they end, whoever stops them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait as wait_for_handles
from typing import TypeVar

from lavis_emovit.distributed.signals import STOP_SIGNALS
from lavis_emovit.errors import UserError, first_line

T = TypeVar("T")


def ignore_stop_signals(worker_id: int) -> None:
    """Called at the start of a worker process: a scheduler signals all processes of a job, but a stopped run needs its
    workers to finish the step. They end when the run ends.
    """
    signals = {getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)}
    if not hasattr(signal, "sigwaitinfo"):
        # macOS and Windows, which have no schedulers, cannot tell who sent a signal.
        signals.discard(signal.SIGTERM)
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        return
    # In all threads: the signals wait for the thread that asks for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    threading.Thread(target=_obey_parent, args=(signals, os.getppid()), name="signals", daemon=True).start()


def _obey_parent(signals: set[signal.Signals], parent: int) -> None:
    """End this process on SIGTERM from its parent: Python sends it at its end, and waits until its workers end."""
    while True:
        info = signal.sigwaitinfo(signals)
        if info.si_signo == signal.SIGTERM and info.si_pid == parent:
            os._exit(0)


def end_with_parent() -> None:
    """Called at the start of a process of a pool: it ends if its parent was killed, and after Ctrl-C, which a terminal
    sends to all processes, without a traceback.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait_for_handles([sentinel])
    os._exit(1)


def unchanged(batch: T) -> T:
    """For `collate_fn`, if a dataset returns whole batches."""
    return batch


def killed_worker(error: BaseException) -> UserError | None:
    """Our error for torch's error about a killed worker process, which may occur anywhere; None for other errors."""
    if not isinstance(error, RuntimeError) or "DataLoader worker" not in str(error):
        return None
    return UserError(
        f"A process that reads images was killed, probably because memory ran out ({first_line(error)}). Reduce "
        "num_workers, or add memory (in a container also shared memory, /dev/shm). The same command resumes."
    )
