"""Properties, two processes under each launcher (torchrun, DeepSpeed's, environment variables), of which one is killed
or frozen while they join, train or leave: the other ends within `run.timeout_s` and 15 s, and names the lost rank
unless its launcher ends it first."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

RANKS = Path(__file__).resolve().parent / "ranks"
sys.path.insert(0, str(RANKS))

from jobs import REPOSITORY, free_port  # noqa: E402

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
TIMEOUT_S, MARGIN_S = 10.0, 15.0
SCRIPT = str(RANKS / "lost.py")


def commands(launcher: str) -> list[tuple[list[str], dict[str, str]]]:
    """What is started: commands and their environment."""
    port = str(free_port())
    if launcher == "torchrun":
        return [([str(BIN / "torchrun"), "--standalone", "--nproc_per_node=2", SCRIPT], {})]
    if launcher == "deepspeed":
        return [([str(BIN / "deepspeed"), "--num_gpus", "2", "--master_port", port, SCRIPT], {})]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [([sys.executable, SCRIPT], {**common, **rank}) for rank in ranks]


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are killed at the end, with all that they started."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        if psutil.pid_exists(process.pid):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()


def wait_for(path: Path, timeout_s: float) -> float:
    """Seconds until a file exists."""
    begin = time.monotonic()
    while not path.exists():
        assert time.monotonic() - begin < timeout_s, f"{path.name} is missing after {timeout_s} s"
        time.sleep(0.1)
    return time.monotonic() - begin


CASES = [
    (launcher, "training", name, rank)
    for launcher in ("torchrun", "deepspeed", "environment")
    for name in ("SIGSTOP", "SIGKILL")
    for rank in (0, 1)
]
CASES += [("environment", point, "SIGSTOP", rank) for point in ("joining", "leaving") for rank in (0, 1)]


@pytest.mark.parametrize(("launcher", "point", "name", "rank"), CASES)
def test_the_other_rank_ends_and_names_the_lost_one(started, tmp_path, launcher, point, name, rank) -> None:
    unset = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    path = os.pathsep.join([str(REPOSITORY), str(BIN), os.environ["PATH"]])
    environment |= {"PYTHONPATH": str(REPOSITORY), "PATH": path, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    for command, variables in commands(launcher):
        arguments = [point, name, str(rank), str(TIMEOUT_S), str(tmp_path)]
        with (tmp_path / "launcher.log").open("a") as output:
            variables = {**environment, **variables}
            started.append(subprocess.Popen(command + arguments, env=variables, stdout=output, stderr=output))
    wait_for(tmp_path / "lost", 120)
    other = 1 - rank
    begin = time.monotonic()
    log = tmp_path / f"rank{other}.log"
    while time.monotonic() - begin < TIMEOUT_S + MARGIN_S and not _has_ended(tmp_path, other):
        time.sleep(0.2)
    assert _has_ended(tmp_path, other), log.read_text()
    if name == "SIGKILL" and launcher != "environment":
        # The launcher sees the death first and ends the other rank at once; torchrun names the rank itself.
        started[0].wait(60)
        assert launcher == "deepspeed" or f": {rank} (local_rank: {rank})" in (tmp_path / "launcher.log").read_text()
        return
    assert f"error: rank {rank}" in log.read_text() or f"cannot connect to rank {rank}" in log.read_text()


def _has_ended(folder: Path, rank: int) -> bool:
    pids = [int(process.pid) for process in psutil.process_iter() if _is_rank(process, folder, rank)]
    return not pids


def _is_rank(process: psutil.Process, folder: Path, rank: int) -> bool:
    try:
        if str(folder) not in process.cmdline() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get("RANK") == str(rank)
    except psutil.Error:
        return False
