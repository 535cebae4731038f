"""Processes that read images for a data loader."""

from __future__ import annotations

import signal

from lavis_emovit.distributed.signals import STOP_SIGNALS
from lavis_emovit.errors import UserError, first_line


def ignore_stop_signals(worker_id: int) -> None:
    """Called at the start of a worker process: a scheduler signals all processes of a job, but a stopped run needs its
    workers to finish the step. They end when the run ends.
    """
    for name in STOP_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def killed_worker(error: BaseException) -> UserError | None:
    """Our error for torch's error about a killed worker process, which may occur anywhere; None for other errors."""
    if not isinstance(error, RuntimeError) or "DataLoader worker" not in str(error):
        return None
    return UserError(
        f"A process that reads images was killed, probably because memory ran out ({first_line(error)}). Reduce "
        "num_workers, or add memory (in a container also shared memory, /dev/shm). The same command resumes."
    )
