"""Folders of shipped configs, recipes, data and run output."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE_ROOT = Path(__file__).resolve().parent
RECIPES = ("projects", "emovit")


def config_root() -> Path:
    """The folder `lavis_configs`, beside the package in a checkout and in an installed wheel."""
    return PACKAGE_ROOT.parent / "lavis_configs"


def find_recipe(path: str | Path) -> Path | None:
    """The file of a run recipe, or None.

    A path `projects/emovit/...` that does not exist in the working directory means the copy shipped with the package,
    so that the same command works in a checkout and with an installed wheel.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if path.parts[: len(RECIPES)] != RECIPES:
        return None
    inside = Path(*path.parts[len(RECIPES) :])
    for root in (PACKAGE_ROOT / "recipes", PACKAGE_ROOT.parent.joinpath(*RECIPES)):
        if (root / inside).is_file():
            return root / inside
    return None


def data_root() -> Path:
    """The folder that dataset paths are relative to: `EMOVIT_DATA`, or `data` in the working directory."""
    return Path(os.environ.get("EMOVIT_DATA", "data")).expanduser().absolute()


def output_root() -> Path:
    """The folder that output paths are relative to: the working directory, never LAVIS's own folder."""
    return Path.cwd()
