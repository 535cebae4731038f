"""Facts that every benchmark result contains, and the function that writes a result."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def environment_info(*sources: str, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Date, commit, versions and machine of a measurement.

    Args:
        sources: paths in the repository. The commit gets the suffix `+changes` if one of them has uncommitted changes.
        packages: more packages whose versions the result contains.
    """
    # Imported here because scripts that measure imports or memory load this module first.
    from lavis_emovit.distributed.versions import package_versions

    is_changed = bool(sources) and bool(_git(ROOT, "status", "--porcelain", "--", *sources))
    return {
        "date": date.today().isoformat(),
        "commit": commit_of(ROOT) + ("+changes" if is_changed else ""),
        "versions": {**package_versions(), **{package: version(package) for package in packages}},
        "machine": machine_facts(),
    }


def machine_facts() -> dict[str, Any]:
    """Processor, usable cores, memory and GPUs of this machine; no names of hosts or people."""
    import psutil
    import torch

    from lavis_emovit.distributed.cores import usable_cpus

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


def commit_of(checkout: Path) -> str:
    """Full hash of the commit of a checkout; empty outside Git."""
    return _git(checkout, "rev-parse", "HEAD")


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, and create its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _git(checkout: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=False).stdout.strip()
