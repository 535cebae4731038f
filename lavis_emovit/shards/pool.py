"""Work shared among processes: fresh ones, that end with the one that started them, and whose death is told."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_handles
from typing import Any, TypeVar

from lavis_emovit.errors import DataError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


def run_all(
    function: Callable[[JobT], ResultT], jobs: Sequence[JobT], processes: int, on_done: Callable[[JobT], None]
) -> list[ResultT]:
    """Call a function with every job.

    Args:
        function: of a module, so that other processes find it.
        jobs: what it is called with, one after the other.
        processes: how many work at once.
        on_done: called here after each job.

    Returns:
        the results, in the order of the jobs.

    Raises:
        DataError: a process was killed.
    """
    results: dict[int, ResultT] = {}
    pool = ProcessPoolExecutor(min(processes, len(jobs)), mp_context=start_method(), initializer=_end_with_parent)
    try:
        # Few at a time, so that not all jobs are pickled at once.
        waiting = list(range(len(jobs)))[::-1]
        running: dict[Future[ResultT], int] = {}
        while waiting or running:
            while waiting and len(running) < 2 * processes:
                number = waiting.pop()
                running[pool.submit(function, jobs[number])] = number
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(future)
                results[number] = future.result()
                on_done(jobs[number])
    except BrokenProcessPool:
        raise DataError(
            "one of the processes was killed, perhaps for want of memory. Run the same command again (a build goes on "
            "where it was); with fewer `--processes` it needs less memory."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [results[number] for number in range(len(jobs))]


def start_method() -> Any:
    """Fresh processes: a fork of one that has threads (a progress bar, torch) may hang."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Loaded once, then inherited by all: webdataset brings torch with it, which is slow to load.
    context.set_forkserver_preload(["webdataset", "lavis_emovit.shards.writer"])
    return context


def _end_with_parent() -> None:
    """Let this process of a pool end when the one that started it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait_for_handles([sentinel])
    os._exit(1)
