"""The CPU cores that this process may use; does not import torch."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cpus() -> int:
    """Cores that this process may use: its affinity, and the quota of its container if any."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()[:2]
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return count
