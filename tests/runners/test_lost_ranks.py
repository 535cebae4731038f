"""Properties, two processes under each launcher (torchrun, DeepSpeed's, environment variables), of which one is killed
or frozen while they join, train or leave: the other ends within `run.timeout_s` and 15 s, and names the lost rank
unless its launcher ends it first."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

RANKS = Path(__file__).resolve().parent / "ranks"
sys.path.insert(0, str(RANKS))

from jobs import REPOSITORY, free_port, load_deepspeed  # noqa: E402
from warm import DEEPSPEED, TORCHRUN, forked_commands  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("lost_ranks")]  # one worker waits for all of them, once

BIN = Path(sys.executable).parent
TIMEOUT_S, MARGIN_S = 10.0, 15.0
TICK_S = 0.5
SCRIPT = str(RANKS / "lost.py")
LAUNCHERS = ("torchrun", "deepspeed", "environment")

# Launcher, what the ranks do when it happens, the signal, the rank that gets it.
Case = tuple[str, str, str, int]
CASES: list[Case] = [
    (launcher, "training", name, rank) for launcher in LAUNCHERS for name in ("SIGSTOP", "SIGKILL") for rank in (0, 1)
]
CASES += [("environment", point, "SIGSTOP", rank) for point in ("joining", "leaving") for rank in (0, 1)]


@dataclass
class Job:
    """Two ranks, one of which is lost.

    Attributes:
        folder: what launcher and ranks wrote.
        started: the launcher, or the ranks if there is none.
        ranks: the ranks that have begun.
        waited_s: since the one rank was lost, or None; in ticks, which a busy machine stretches as it does all else.
        has_ended: whether the other rank has ended by then.
    """

    folder: Path
    lost_rank: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ranks: dict[int, psutil.Process] = field(default_factory=dict)
    waited_s: float | None = None
    has_ended: bool = False

    def look(self) -> None:
        """Note what has happened in a tick."""
        for rank in (0, 1):
            if rank not in self.ranks and (self.folder / f"pid{rank}").exists():
                self.ranks[rank] = psutil.Process(int(self.text(f"pid{rank}")))
        other = self.ranks.get(1 - self.lost_rank)
        if other is None or not (self.folder / "lost").exists() or self.is_over:
            return
        self.waited_s = 0.0 if self.waited_s is None else self.waited_s + TICK_S
        self.has_ended = has_ended(other)

    @property
    def is_over(self) -> bool:
        return self.has_ended or (self.waited_s is not None and self.waited_s >= TIMEOUT_S + MARGIN_S)

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def kill(self) -> None:
        """End everything that was started, and all that it started."""
        for process in self.started:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
                process.wait()
        for rank in self.ranks.values():
            if rank.is_running():
                rank.kill()


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def commands(launcher: str) -> list[tuple[list[str], dict[str, str]]]:
    """What is started: commands and their environment."""
    port = str(free_port())
    if launcher == "torchrun":
        return [([*TORCHRUN, "--standalone", "--nproc_per_node=2", SCRIPT], {})]
    if launcher == "deepspeed":
        return [([*DEEPSPEED, "--num_gpus", "2", "--master_port", port, SCRIPT], {})]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [([sys.executable, SCRIPT], {**common, **rank}) for rank in ranks]


def start(folder: Path, case: Case) -> Job:
    launcher, point, name, rank = case
    job = Job(folder, rank)
    unset = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    path = os.pathsep.join([str(REPOSITORY), str(BIN), os.environ["PATH"]])
    environment |= {"PYTHONPATH": str(REPOSITORY), "PATH": path, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    for command, variables in commands(launcher):
        arguments = [point, name, str(rank), str(TIMEOUT_S), str(folder)]
        with (folder / "launcher.log").open("a") as output:
            variables = {**environment, **variables}
            job.started.append(subprocess.Popen(command + arguments, env=variables, stdout=output, stderr=output))
    return job


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Case, Job]]:
    """All cases at once, since they do little but wait."""
    load_deepspeed()
    import torch.distributed.run  # noqa: F401

    started: dict[Case, Job] = {}
    try:
        with forked_commands():
            for case in CASES:
                started[case] = start(tmp_path_factory.mktemp("lost"), case)
        begin = time.monotonic()
        while not all(job.is_over for job in started.values()) and time.monotonic() - begin < 240:
            time.sleep(TICK_S)
            for job in started.values():
                job.look()
        yield started
    finally:
        for job in started.values():
            job.kill()


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_the_other_rank_ends_and_names_the_lost_one(jobs: dict[Case, Job], case: Case) -> None:
    launcher, _, name, rank = case
    job, other_log = jobs[case], f"rank{1 - rank}.log"
    assert job.waited_s is not None, job.text("launcher.log")
    assert job.has_ended, job.text(other_log)
    if name == "SIGKILL" and launcher != "environment":
        # The launcher sees the death first and ends the other rank at once; torchrun names the rank itself.
        job.started[0].wait(60)
        assert launcher == "deepspeed" or f": {rank} (local_rank: {rank})" in job.text("launcher.log")
        return
    assert f"error: rank {rank}" in job.text(other_log) or f"cannot connect to rank {rank}" in job.text(other_log)
