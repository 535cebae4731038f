"""Where things lie: configs shipped with the package, data, run output and, for tests, shared reference data."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE_ROOT = Path(__file__).resolve().parent
RECIPES = ("projects", "emovit")


def config_root() -> Path:
    """The folder `lavis_configs`, which stands beside the package in a checkout and in an installed wheel alike."""
    return PACKAGE_ROOT.parent / "lavis_configs"


def find_recipe(path: str | Path) -> Path | None:
    """The file of a run recipe.

    A path `projects/emovit/...` that does not exist under the working directory means the copy that ships with the
    package, so that the same command works in a checkout and with an installed wheel.

    Returns:
        the file, or None where there is none.
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
    """Where relative dataset paths start: `EMOVIT_DATA`, or `data` under the working directory."""
    return Path(os.environ.get("EMOVIT_DATA", "data")).expanduser().absolute()


def output_root() -> Path:
    """Where relative output paths start: the working directory, never LAVIS's own folder."""
    return Path.cwd()
