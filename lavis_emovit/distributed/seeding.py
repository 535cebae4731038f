"""Random numbers as a function of the position in a run, and the number of CPU threads."""

from __future__ import annotations

import hashlib
import os
import random

import numpy as np
import torch

from lavis_emovit.distributed.cores import usable_cpus


def seed_everything(*parts: int | str) -> None:
    """Seed Python, numpy and torch (all devices) from the parts, for example ("step", seed, step, rank).

    Every optimizer step does this, so a resumed run draws the same numbers, and checkpoints need no generator states.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    seed = int.from_bytes(digest[:8], "big") >> 1
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def limit_threads(num_threads: int | None, num_ranks: int = 1) -> int:
    """Set torch's CPU threads; None: one per usable core, divided by ranks, at most torch's default."""
    most = torch.get_num_threads()
    if num_ranks > 1 and os.environ.get("OMP_NUM_THREADS") == "1":
        most = usable_cpus()  # torchrun's default, which ignores the number of cores
    chosen = num_threads or max(1, min(most, usable_cpus() // num_ranks))
    torch.set_num_threads(chosen)
    return chosen
