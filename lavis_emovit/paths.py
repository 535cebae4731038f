"""Where things lie: configs shipped with the package, data, run output and, for tests, shared reference data."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE_ROOT = Path(__file__).resolve().parent


def config_root() -> Path:
    """The folder `lavis_configs`, which stands beside the package in a checkout and in an installed wheel alike."""
    return PACKAGE_ROOT.parent / "lavis_configs"


def data_root() -> Path:
    """Where relative dataset paths start: `EMOVIT_DATA`, or `data` under the working directory."""
    return Path(os.environ.get("EMOVIT_DATA", "data")).expanduser().absolute()


def output_root() -> Path:
    """Where relative output paths start: the working directory, never LAVIS's own folder."""
    return Path.cwd()
