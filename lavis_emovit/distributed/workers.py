"""Processes that read images for a data loader."""

from __future__ import annotations

import signal

from lavis_emovit.distributed.signals import STOP_SIGNALS
from lavis_emovit.errors import UserError


def ignore_stop_signals(worker_id: int) -> None:
    """To be called in a worker process at its start.

    A scheduler signals all processes of a job, but the step that a stopped run finishes needs its workers. They end
    when the run ends.
    """
    for name in STOP_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def killed_worker(error: BaseException) -> UserError | None:
    """The message for torch's error about a worker process that was killed; None for any other error.

    torch raises it from a signal handler, so it may come up anywhere, mostly in the middle of a step.
    """
    if not isinstance(error, RuntimeError) or "DataLoader worker" not in str(error):
        return None
    return UserError(
        f"A process that reads images was killed, probably because memory ran out ({str(error).strip().splitlines()[0]}"
        "). Set num_workers lower, or add memory (in a container also shared memory, /dev/shm). The same command "
        "resumes."
    )
