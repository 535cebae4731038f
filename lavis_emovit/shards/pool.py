"""Runs jobs in fresh processes that end with their parent; a killed process is reported."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from lavis_emovit.distributed.workers import end_with_parent
from lavis_emovit.errors import DataError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


def run_all(
    function: Callable[[JobT], ResultT], jobs: Sequence[JobT], processes: int, on_done: Callable[[JobT], None]
) -> list[ResultT]:
    """The results of a module-level function for every job, in their order. DataError if a process was killed.

    With one process or one job, the calling process does the work. It also calls `on_done` after each job.
    """
    results: dict[int, ResultT] = {}
    if processes == 1 or len(jobs) < 2:
        for number, job in enumerate(jobs):
            results[number] = function(job)
            on_done(job)
        return list(results.values())
    pool = ProcessPoolExecutor(min(processes, len(jobs)), mp_context=start_method(), initializer=end_with_parent)
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
            "one of the processes was killed, perhaps because memory ran out. Run the same command again; a build "
            "resumes, and fewer `--processes` need less memory."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [results[number] for number in range(len(jobs))]


def start_method() -> Any:
    """Starts fresh processes: a fork of a process with threads (a progress bar, torch) may hang."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Loaded once and inherited by all.
    context.set_forkserver_preload(["lavis_emovit.shards.writer"])
    return context
