"""Workers of Ray, on this machine or on those of a cluster.

They are actors of Ray's core with one item at a time each, so the item that ended a worker is known, and only this one
is tried again. An actor gets items once it runs: Ray keeps actors waiting for a free CPU, after the loss of a machine
perhaps for ever, and items would wait with them.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from lavis_emovit.distributed.cores import usable_cpus
from lavis_emovit.distributed.engine import Done, Engine, Item, Known, Lost, OpenWork, Result
from lavis_emovit.errors import UserError, first_line

logger = logging.getLogger(__name__)

INSTALL_LINE = "pip install 'lavis-emovit[ray]'"
_NUM_ATTEMPTS = 3
_MAX_LOST_IN_A_ROW = 3
_MAX_SHOWN = 5  # further lost workers are only counted
_MAX_FAILED_STARTS = 3  # in a row, times the number of workers
_PATIENCE_S = 30.0  # after which it is reported that no worker runs
_ITEMS_PER_WORKER = 4  # read before the first of them has its result
_CONNECT_S = 10.0
_END_S = 10.0
_ADDRESS = re.compile(r"\bip[=:] ?([^\s,)]+)")


def _machine(name: str, address: str) -> str:
    return f"{name} ({address})" if name else address


def _require_listener(address: str | None) -> None:
    """UserError if nobody listens at `HOST:PORT`: Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if not colon or "/" in host or not port.isdecimal():
        return  # `auto`, or what Ray understands
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster at {address} ({getattr(error, 'strerror', None) or error}); see `ray status`"
        ) from None


class _Refusal(NamedTuple):
    """The message of a UserError in a worker, which is raised here: Ray would add a traceback to it."""

    message: str
    machine: str


class _Worker:
    """The actor: opens the work with its first item."""

    def __init__(self, open_work: OpenWork[Any, Any]):
        self._open_work = open_work
        self._work: Callable[[Any], Any] | None = None
        self._parts = ExitStack()

    def ready(self) -> None:
        """Returns once the actor runs."""

    def run(self, item: Any) -> Any:
        try:
            if self._work is None:
                self._work = self._parts.enter_context(self._open_work())
            return self._work(item)
        except UserError as error:
            from ray.util import get_node_ip_address

            return _Refusal(str(error), _machine(platform.node(), get_node_ip_address()))

    def close(self) -> None:
        self._parts.close()


@dataclass
class _Job:
    """An item from its reading until its result is yielded."""

    known: Any
    item: Any
    num_ends: int = 0  # of workers that had it
    is_done: bool = False
    result: Any = None


class RayEngine(Engine):
    """Workers of Ray.

    Args:
        address: of a cluster, such as `auto` or `10.0.0.1:6379`; None starts Ray on this machine.
        num_workers: None for all CPUs, or with `needs_gpu` all GPUs.
        needs_gpu: whether each worker needs a GPU of its own.

    Raises:
        UserError: Ray is not installed, the cluster does not answer, or it has no GPU.
    """

    def __init__(self, address: str | None = None, num_workers: int | None = None, *, needs_gpu: bool = False):
        # Ray sends statistics to its makers by default.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise UserError(f"--engine ray needs Ray: {INSTALL_LINE}") from None
        self._ray, self._num_gpus, self._address = ray, int(needs_gpu), address
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            _require_listener(address)
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
            if address is None:
                # At least as many as workers, or those beyond the CPUs would wait for ever.
                options |= {"num_cpus": max(usable_cpus(), num_workers or 1), "include_dashboard": False}
            try:
                # A name that is no address: without it, Ray would join what the environment or an earlier run left.
                ray.init(address=address or "local", **options)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise UserError(
                    f"no Ray cluster at {address or 'this machine'} ({first_line(error)}); see `ray status`"
                ) from None
        kind = "GPU" if needs_gpu else "CPU"
        available = int(ray.cluster_resources().get(kind, 0))
        if not available:
            self.close()
            raise UserError(f"the Ray cluster has no {kind}; use another --device or --ray-address")
        self._num_workers = num_workers or available
        if self._num_workers > available:
            logger.warning("%d workers, but the Ray cluster has %d %ss", self._num_workers, available, kind)

    def close(self) -> None:
        if self._owns_ray:
            self._ray.shutdown()

    def map(
        self, open_work: OpenWork[Item, Result], items: Iterable[tuple[Known, Item | None]]
    ) -> Iterator[Done[Known, Result]]:
        run = _Run(self, self._ray, self._num_gpus, self._num_workers, open_work)
        jobs: deque[_Job] = deque()  # not yielded yet
        source = (_Job(known, item, is_done=item is None) for known, item in items)
        has_more, num_lost_in_a_row = True, 0
        try:
            while jobs or has_more:
                while has_more and len(jobs) < _ITEMS_PER_WORKER * self._num_workers:
                    if (job := next(source, None)) is None:
                        has_more = False
                        break
                    jobs.append(job)
                    run.add(job)
                if jobs and jobs[0].is_done:
                    job = jobs.popleft()
                    if isinstance(job.result, _Refusal):
                        where = "" if self._address is None else f"on {job.result.machine}: "
                        raise UserError(where + job.result.message)
                    num_lost_in_a_row = num_lost_in_a_row + 1 if isinstance(job.result, Lost) else 0
                    if num_lost_in_a_row == _MAX_LOST_IN_A_ROW:
                        raise UserError(
                            f"{num_lost_in_a_row} items in a row ended {_NUM_ATTEMPTS} workers each "
                            f"({job.result.reason}). Earlier results are kept; try fewer --workers, or no --engine ray."
                        )
                    yield Done(job.known, job.result)
                elif jobs:
                    run.wait()
        finally:
            run.close()


class _Run:
    """The actors of one call of `map`, which start when there is work for them."""

    def __init__(self, engine: RayEngine, ray: Any, num_gpus: int, num_workers: int, open_work: OpenWork[Any, Any]):
        self._engine, self._ray, self._num_workers = engine, ray, num_workers
        self._actor_class = ray.remote(num_cpus=1, num_gpus=num_gpus)(_Worker)
        self._open_work = ray.put(open_work)
        self._starting: dict[Any, Any] = {}  # reference that is ready when the actor runs -> actor
        self._idle: list[Any] = []
        self._at_work: dict[Any, tuple[Any, _Job]] = {}  # reference to a result -> its actor and job
        self._waiting: deque[_Job] = deque()
        self._num_failed_starts = 0  # in a row
        self._has_warned = False
        errors = ray.exceptions
        self._ends = (
            errors.RayActorError, errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError,
            errors.OutOfMemoryError,
        )  # fmt: skip

    def add(self, job: _Job) -> None:
        if not job.is_done:
            self._waiting.append(job)
            self._send()

    def _send(self) -> None:
        """Give the next items to idle actors, and start as many more as there are items."""
        while self._idle and self._waiting:
            actor, job = self._idle.pop(), self._waiting.popleft()
            self._at_work[actor.run.remote(job.item)] = actor, job
        while len(self._starting) < min(len(self._waiting), self._num_workers - len(self._at_work)):
            actor = self._actor_class.remote(self._open_work)
            self._starting[actor.ready.remote()] = actor

    def wait(self) -> None:
        """Wait for a result or for an actor that runs, and give it the next item."""
        found, _ = self._ray.wait([*self._at_work, *self._starting], timeout=_PATIENCE_S)
        if not found:
            if not self._at_work and not self._has_warned:
                self._has_warned = True
                logger.warning("no worker of Ray started in %d s; `ray status` shows free CPUs and GPUs", _PATIENCE_S)
            return
        (ready,) = found
        if ready in self._starting:
            self._take_in(ready, self._starting.pop(ready))
        else:
            self._take_result(ready, *self._at_work.pop(ready))
        self._send()

    def _take_in(self, ready: Any, actor: Any) -> None:
        try:
            self._ray.get(ready)
        except self._ends as error:
            self._ray.kill(actor)
            self._num_failed_starts += 1
            # Ray's message ends with the error itself, behind a traceback.
            reason = str(error).strip().splitlines()[-1].strip()
            where = self._machine_in(str(error))
            if getattr(error, "actor_init_failed", False):
                raise UserError(
                    f"a worker of Ray{where} cannot load its work ({reason}). Install the same version of this package "
                    "and of Python on every machine."
                ) from None
            if self._num_failed_starts > _MAX_FAILED_STARTS * self._num_workers:
                raise UserError(
                    f"workers of Ray end when they start, the last one{where} ({reason}); earlier results are kept"
                ) from None
        else:
            self._num_failed_starts = 0
            self._idle.append(actor)

    def _machine_in(self, message: str) -> str:
        """` on` the machine of a worker, which Ray's messages name by its address; empty if they do not."""
        if (found := _ADDRESS.search(message)) is None:
            return ""
        names = {node["NodeManagerAddress"]: node["NodeManagerHostname"] for node in self._ray.nodes()}
        return f" on {_machine(names.get(found[1], ''), found[1])}"

    def _take_result(self, ready: Any, actor: Any, job: _Job) -> None:
        try:
            job.result, job.is_done = self._ray.get(ready), True
            job.item = None
            self._idle.append(actor)
        except self._ends as error:
            self._lose(actor, job, first_line(error), self._machine_in(str(error)))
        except OSError as error:
            if isinstance(error, self._ray.exceptions.RayError):  # of the work
                raise
            raise UserError(
                f"the Ray node of this process is gone ({error}). Join another one, and run the same command again; "
                "earlier results are kept."
            ) from None

    def _lose(self, actor: Any, job: _Job, reason: str, where: str) -> None:
        self._engine.num_lost_workers += 1
        if self._engine.num_lost_workers <= _MAX_SHOWN:
            logger.warning("a worker of Ray%s ended in the middle of an item, which another gets: %s", where, reason)
        self._ray.kill(actor)  # it may only be out of reach
        # Idle ones may have ended with it, if it was a machine. This item must not be lost because it goes to them.
        self._starting |= {one.ready.remote(): one for one in self._idle}
        self._idle.clear()
        job.num_ends += 1
        if job.num_ends < _NUM_ATTEMPTS:
            self._waiting.appendleft(job)
            return
        job.result, job.is_done = Lost(reason), True

    def close(self) -> None:
        """End all actors: idle ones close their work, the others are killed."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.get([actor.close.remote() for actor in self._idle], timeout=_END_S)
        for actor in (*self._idle, *self._starting.values(), *(actor for actor, _ in self._at_work.values())):
            self._ray.kill(actor)
