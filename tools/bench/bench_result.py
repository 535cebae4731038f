"""Facts that every benchmark result contains, and the function that writes a result."""

from __future__ import annotations

import json
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
    from lavis_emovit.distributed.machine import machine_facts, package_versions

    is_changed = bool(sources) and bool(_git(ROOT, "status", "--porcelain", "--", *sources))
    return {
        "date": date.today().isoformat(),
        "commit": commit_of(ROOT) + ("+changes" if is_changed else ""),
        "versions": {**package_versions(), **{package: version(package) for package in packages}},
        "machine": machine_facts(),
    }


def commit_of(checkout: Path) -> str:
    """Full hash of the commit of a checkout; empty outside Git."""
    return _git(checkout, "rev-parse", "HEAD")


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, and create its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _git(checkout: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=False).stdout.strip()
