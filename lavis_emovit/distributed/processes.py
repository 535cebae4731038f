"""The processes (ranks) of a run: how they are launched, how they connect, and small exchanges between them.

Every function also works with one process, without a process group.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from lavis_emovit.distributed.heartbeat import others
from lavis_emovit.errors import JoinError, UserError, first_line

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 1800.0
# Range of ports that are rarely used, for Slurm jobs without MASTER_PORT.
_FIRST_PORT, _NUM_PORTS = 20000, 20000

_store: Any = None


@dataclass(frozen=True)
class Launch:
    """Rank of this process in the run, and on its machine (`local_`)."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    launcher: str = "python"  # `python`, `torchrun`, `deepspeed`, `slurm` or `environment` (RANK etc. set by hand)
    master: tuple[str, int] | None = None  # host and port that the processes connect to; None for one process

    @property
    def is_alone(self) -> bool:
        return self.world_size == 1


def read_launch(environ: Mapping[str, str] | None = None) -> Launch:
    """Read the environment that torchrun, `deepspeed` or Slurm's `srun` sets; UserError if it is contradictory or
    incomplete.

    Slurm's variables count only inside a step of several tasks: a batch script runs once, whatever its allocation.
    """
    environ = os.environ if environ is None else environ
    if "WORLD_SIZE" in environ or "RANK" in environ:
        return _from_rank_variables(environ)
    if _number(environ, "SLURM_STEP_NUM_TASKS", 1) > 1:
        return _from_slurm(environ)
    return Launch()


def start(
    launch: Launch,
    *,
    device: torch.device,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    join_timeout_s: float | None = None,
    even_alone: bool = False,
) -> None:
    """Join the process group: gloo for tensors on the CPU, NCCL for those on GPUs. UserError if that fails.

    Args:
        timeout_s: a collective that waits longer for another rank ends with an error.
        join_timeout_s: the same for the other ranks to join; None: `timeout_s`.
        even_alone: also create a group of one process, for libraries that need one.
    """
    if dist.is_initialized() or (launch.is_alone and not even_alone):
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=timeout_s)
    if launch.is_alone:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
        return
    assert launch.master is not None
    host, port = launch.master
    # torch's rendezvous reads these; the launchers set them, srun does not.
    os.environ.setdefault("MASTER_ADDR", host)
    os.environ.setdefault("MASTER_PORT", str(port))
    global _store
    join_timeout = timedelta(seconds=timeout_s if join_timeout_s is None else join_timeout_s)
    try:
        store, _, _ = next(iter(rendezvous("env://", launch.rank, launch.world_size, timeout=join_timeout)))
        store.set_timeout(join_timeout)
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("group", store),
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=timeout,
        )
        store.set_timeout(timeout)
    except (RuntimeError, ValueError) as error:
        waited = f"{host}:{port} within {join_timeout.total_seconds():g} s"
        raise JoinError(
            f"rank {launch.rank} of {launch.world_size} cannot connect to {others(launch.rank, launch.world_size)} at "
            f"{waited}: {first_line(error)}. Check that all processes were started, that every node can reach the "
            "host, and that the port is free (MASTER_ADDR, MASTER_PORT)."
        ) from error
    _store = store


def store(prefix: str) -> Any:
    """A separate connection to the store of the ranks, with prefixed keys; None with one process."""
    if _store is None:
        return None
    return dist.PrefixStore(prefix, _store.clone() if hasattr(_store, "clone") else _store)


def stop() -> None:
    """Leave the process group, if any."""
    global _store
    _store = None
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is rank 0, the only one that writes the run's folder."""
    return rank() == 0


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        # On the CPU: NCCL's barrier needs the device, and waits on the GPU.
        dist.all_reduce(torch.zeros(1))


def broadcast_object(value: T, source: int = 0) -> T:
    """The small, picklable value of rank `source`, on all ranks."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=source, device=torch.device("cpu"))
    return box[0]


def gather_objects(value: T) -> list[T]:
    """The values of all ranks, in order, on all ranks."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def on_main(function: Callable[[], T]) -> T:
    """Call a function on rank 0 only, and return its picklable result (or raise its UserError) on all ranks."""
    if world_size() == 1:
        return function()
    outcome: tuple[Any, UserError | None, str | None] = (None, None, None)
    if is_main():
        try:
            outcome = function(), None, None
        except UserError as error:
            outcome = None, error, str(error)
    result, text = broadcast_object((outcome[0], outcome[2]))
    if text is not None:
        raise outcome[1] if outcome[1] is not None else UserError(text)
    return result


def _from_rank_variables(environ: Mapping[str, str]) -> Launch:
    missing = [name for name in ("RANK", "WORLD_SIZE") if name not in environ]
    if missing:
        raise UserError(
            f"{missing[0]} is not set in the environment, although RANK or WORLD_SIZE is. Start several processes with "
            "torchrun, deepspeed or srun, or unset RANK and WORLD_SIZE."
        )
    own, total = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    # The deepspeed launcher calls it LOCAL_SIZE.
    local_total = _number(environ, "LOCAL_WORLD_SIZE", _number(environ, "LOCAL_SIZE", total))
    local = _number(environ, "LOCAL_RANK", own % max(1, local_total))
    if not (0 <= own < total and 0 <= local < local_total <= total):
        raise UserError(
            f"RANK={own} WORLD_SIZE={total} LOCAL_RANK={local} LOCAL_WORLD_SIZE={local_total} contradict each other; "
            "ranks start at 0 and must be less than their sizes"
        )
    if total == 1:
        return Launch(launcher=_launcher(environ))
    if "MASTER_ADDR" not in environ or "MASTER_PORT" not in environ:
        raise UserError(
            f"rank {own} of {total} needs MASTER_ADDR and MASTER_PORT to connect to the other processes; torchrun and "
            "deepspeed set them"
        )
    master = environ["MASTER_ADDR"], _number(environ, "MASTER_PORT")
    return Launch(own, total, local, local_total, _launcher(environ), master)


def _launcher(environ: Mapping[str, str]) -> str:
    if "TORCHELASTIC_RUN_ID" in environ:
        return "torchrun"
    return "deepspeed" if "CROSS_RANK" in environ else "environment"


def _from_slurm(environ: Mapping[str, str]) -> Launch:
    own, total = _number(environ, "SLURM_PROCID"), _number(environ, "SLURM_STEP_NUM_TASKS")
    local = _number(environ, "SLURM_LOCALID")
    tasks = environ.get("SLURM_STEP_TASKS_PER_NODE", environ.get("SLURM_TASKS_PER_NODE", str(total)))
    local_total = _tasks_of_node(tasks, _number(environ, "SLURM_NODEID", 0))
    hosts = environ.get("SLURM_STEP_NODELIST", environ.get("SLURM_JOB_NODELIST", "localhost"))
    host = environ.get("MASTER_ADDR", first_host(hosts))
    # Two jobs on one node must not connect to each other: the job's number decides the port.
    port = _FIRST_PORT + _number(environ, "SLURM_JOB_ID", 0) % _NUM_PORTS
    return Launch(own, total, local, local_total, "slurm", (host, _number(environ, "MASTER_PORT", port)))


def first_host(nodelist: str) -> str:
    """The first name of a Slurm node list: `gpu[003-007,9],login1` -> `gpu003`."""
    first = re.split(r",(?![^\[]*\])", nodelist)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def _tasks_of_node(tasks_per_node: str, node: int) -> int:
    """Tasks of one node in Slurm's short form: `4(x2),3` is 4, 4, 3."""
    counts: list[int] = []
    for part in tasks_per_node.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise UserError(f"SLURM_TASKS_PER_NODE={tasks_per_node} is not of the form 4(x2),3")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts[min(node, len(counts) - 1)]


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    value = environ.get(name)
    if value is None and default is not None:
        return default
    try:
        return int(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = "is not set" if value is None else f"is '{value}'"
        raise UserError(f"{name} {found}, expected a whole number; the launcher sets it") from None
