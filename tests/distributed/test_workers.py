"""Properties: a program that still reads batches ends, with its worker processes, however it ends and however long its
workers take; workers ignore the signals that stop a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

PROGRAM = """
import os, sys, time
from torch.utils.data import DataLoader
from lavis_emovit.distributed.workers import ignore_stop_signals

class Numbers:
    def __len__(self):
        return 100
    def __getitem__(self, number):
        if number >= 4 and "{ending}" == "slow":
            time.sleep(600)
        return number, os.getpid()

if __name__ == "__main__":
    batches = iter(DataLoader(Numbers(), batch_size=2, num_workers=2, worker_init_fn=ignore_stop_signals))
    sys.held = [batches]
    print(*next(batches)[1].tolist(), *next(batches)[1].tolist(), flush=True)
    if "{ending}" == "error":
        raise RuntimeError("the program fails")
    if "{ending}" == "signal":
        sys.stdin.readline()
        print(*next(batches)[0].tolist(), flush=True)
"""


def start(ending: str, tmp_path) -> tuple[subprocess.Popen[str], set[int]]:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM.replace("{ending}", ending)))
    command = [sys.executable, str(tmp_path / "program.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **pipes)
    workers = set(map(int, process.stdout.readline().split()))
    assert len(workers) == 2
    return process, workers


@pytest.mark.parametrize("ending", ["end", "error", "slow"])
def test_a_program_that_holds_batches_ends_with_its_workers(ending, tmp_path):
    process, workers = start(ending, tmp_path)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert errors == "" or ending == "error"
    assert process.returncode == (1 if ending == "error" else 0)
    assert not any(psutil.pid_exists(worker) for worker in workers)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the sender of a signal is not known here")
def test_workers_finish_a_stopped_run(tmp_path):
    process, workers = start("signal", tmp_path)
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGUSR1)
    output, errors = process.communicate("go on\n", timeout=60)
    assert output.split() == ["4", "5"], errors
