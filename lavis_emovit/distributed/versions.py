"""Versions of a run, for checkpoints, metrics and benchmarks."""

from __future__ import annotations

import platform
from importlib import metadata

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
