"""Properties: a program that still reads batches ends, with its worker processes, however it ends and however long its
workers take; workers ignore the signals that stop a run. Processes of a pool end with a killed program, and silently
after Ctrl-C."""

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


POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from lavis_emovit.distributed.workers import end_with_parent

def wait():
    Path(__file__).with_name(f"{os.getpid()}.ready").touch()
    time.sleep(600)

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=end_with_parent)
    waiting = [pool.submit(wait) for _ in range(3)]
    while len(list(Path(__file__).parent.glob("*.ready"))) < 2:  # a future "runs" before its process has begun
        time.sleep(0.05)
    print("ready", flush=True)
    waiting[0].result()
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_processes_of_a_pool_end_with_their_program(ending, tmp_path):
    (tmp_path / "program.py").write_text(POOL)
    program = subprocess.Popen(
        [sys.executable, tmp_path / "program.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert program.stdout.readline()
    children = psutil.Process(program.pid).children(recursive=True)
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    if ending == signal.SIGINT:
        # A terminal sends it to all; here only to the workers, which the program would end anyway.
        for worker in workers:
            worker.send_signal(ending)
    else:
        program.send_signal(ending)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    errors = program.communicate(timeout=30)[1]
    assert "KeyboardInterrupt" not in errors
