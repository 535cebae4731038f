"""Joins the other processes of a run."""

from __future__ import annotations

import logging
from typing import Any

from lavis_emovit.distributed import heartbeat, processes
from lavis_emovit.distributed.devices import choose_device

logger = logging.getLogger(__name__)


def join_ranks(launch: Any, run: Any) -> None:
    """Join the process group of the run, and start the heartbeat."""
    if launch.is_alone or processes.world_size() > 1:
        return
    with heartbeat.joining(launch.rank, launch.world_size, run.timeout_s + 10.0):
        # The heartbeat knows which rank is late, so it must report before a collective times out.
        device = choose_device(run.device, launch)
        processes.start(launch, device=device, timeout_s=run.timeout_s + 60.0, join_timeout_s=run.timeout_s)
    heartbeat.begin(processes.store("heartbeat"), launch.rank, launch.world_size, run.timeout_s)
    heartbeat.note("starting", long=True)
    if launch.rank:
        _name_rank(launch.rank)
    logger.info("%d processes (%s), device %s", launch.world_size, launch.launcher, run.device)
    if not run.evaluate and run.global_batch_size < launch.world_size:
        logger.warning(
            "run.global_batch_size is %d for all processes together, so %d of them get no samples; increase it",
            run.global_batch_size,
            launch.world_size - run.global_batch_size,
        )


def _name_rank(rank: int) -> None:
    """Log on other ranks than 0 only errors and warnings about their data, with the rank in each line."""
    logging.getLogger("lavis_emovit").setLevel(logging.ERROR)
    logging.getLogger("lavis_emovit.datasets").setLevel(logging.WARNING)
    for handler in logging.getLogger("lavis_emovit").handlers:
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s rank {rank}: %(message)s", "%H:%M:%S"))
