"""Versions and hardware of a run, for checkpoints, metrics and benchmarks."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from lavis_emovit.distributed.seeding import usable_cpus

PACKAGES = ("lavis-emovit", "torch", "transformers", "salesforce-lavis", "numpy")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that determine results."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def machine_facts() -> dict[str, Any]:
    """Processor, usable cores, memory and GPUs of this machine; no names of hosts or people."""
    import psutil
    import torch

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor_name(),
        "usable_cores": usable_cpus(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
