"""Properties: the environment of each launcher is read as that launcher means it, and what contradicts itself is
refused by name; one process needs no group; the ranks of a group see the same values."""

from __future__ import annotations

import pytest

from lavis_emovit.distributed import processes
from lavis_emovit.distributed.processes import Launch, first_host, read_launch
from lavis_emovit.errors import UserError

MEET = {"MASTER_ADDR": "node7", "MASTER_PORT": "29501"}
TORCHRUN = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8", "TORCHELASTIC_RUN_ID": "none"}
DEEPSPEED = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_SIZE": "4", "CROSS_RANK": "1", "CROSS_SIZE": "2"}
SLURM = {
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4,3",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_JOB_ID": "412345",
}


@pytest.mark.parametrize(
    ("environ", "launch"),
    [
        ({}, Launch()),
        ({**TORCHRUN, **MEET}, Launch(9, 16, 1, 8, "torchrun", ("node7", 29501))),
        ({**DEEPSPEED, **MEET}, Launch(5, 8, 1, 4, "deepspeed", ("node7", 29501))),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Launch(launcher="environment")),
        (SLURM, Launch(5, 7, 1, 3, "slurm", ("gpu03", 20000 + 12345))),
        ({**SLURM, **MEET}, Launch(5, 7, 1, 3, "slurm", ("node7", 29501))),
        # One task for each node, which starts torchrun: torchrun's word counts.
        ({**SLURM, **TORCHRUN, **MEET}, Launch(9, 16, 1, 8, "torchrun", ("node7", 29501))),
        # A batch script, and the shell of an allocation: eight tasks are reserved, none is started.
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}, Launch()),
    ],
)
def test_every_launcher_is_read(environ: dict[str, str], launch: Launch) -> None:
    assert read_launch(environ) == launch


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "MASTER_ADDR"),
        ({"RANK": "2", "WORLD_SIZE": "2", **MEET}, "RANK=2 WORLD_SIZE=2"),
        ({"RANK": "one", "WORLD_SIZE": "2", **MEET}, "RANK is 'one'"),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "many"}, "many"),
    ],
)
def test_contradictions_are_refused_by_name(environ: dict[str, str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        read_launch(environ)


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("login1", "login1"),
        ("gpu[003-007,9],login1", "gpu003"),
        ("a1,b[2-3]", "a1"),
        ("r[1-2]n[04,07]", "r1n04"),
    ],
)
def test_the_first_host_of_a_node_list(nodelist: str, host: str) -> None:
    assert first_host(nodelist) == host


def test_one_process_needs_no_group() -> None:
    assert (processes.rank(), processes.world_size(), processes.is_main()) == (0, 1, True)
    thing = object()
    assert processes.broadcast_object(thing) is thing
    assert processes.gather_objects(thing) == [thing]
    processes.barrier()
    processes.stop()
