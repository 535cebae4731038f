"""Folders of shipped configs, recipes, data, run output and checkpoints."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from lavis_emovit.errors import UserError

PACKAGE_ROOT = Path(__file__).resolve().parent
RECIPES = ("projects", "emovit")
MANIFEST_NAME = "MANIFEST.json"  # in every checkpoint folder
RECORDS_NAME = "records.jsonl"  # in every folder of records
EXPORT_FILE = "emovit.json"  # in an exported folder: what loads it, and the questions
ARCHIVE_SUFFIX = ".emovit"
CHECKPOINT_NAME = re.compile(r"ckpt-(\d+)")


def each_once(folders: Iterable[Path]) -> list[Path]:
    """The folders as they are named, without further names of one that is there already."""
    return list({folder.resolve(): folder for folder in folders}.values())


def expand_home(path: str | os.PathLike[str]) -> Path:
    """A path as a user writes it, with the home folder in place of `~` or `~name`.

    UserError if there is no such home folder, unless a file has this very name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        if os.path.lexists(path):
            return Path(path)
        raise UserError(
            f"{os.fspath(path)}: there is no such home folder; set HOME, or write the path without ~"
        ) from None


def config_root() -> Path:
    """The folder `lavis_configs`, beside the package in a checkout and in an installed wheel."""
    return PACKAGE_ROOT.parent / "lavis_configs"


def find_recipe(path: str | Path) -> Path | None:
    """The file of a run recipe, or None.

    A path `projects/emovit/...` that does not exist in the working directory means the copy shipped with the package,
    so that the same command works in a checkout and with an installed wheel.
    """
    path = expand_home(path)
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
    return expand_home(os.environ.get("EMOVIT_DATA", "data")).absolute()


def cache_root() -> Path:
    """The folder of what is built once for all projects: `EMOVIT_CACHE`, or `emovit` in the user's cache folder."""
    if os.environ.get("EMOVIT_CACHE"):
        return expand_home(os.environ["EMOVIT_CACHE"]).absolute()
    return expand_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache").absolute() / "emovit"


def output_root() -> Path:
    """The folder that output paths are relative to: the working directory, never LAVIS's own folder."""
    return Path.cwd()


def list_checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders under `root`, oldest step first, verified or not."""
    if not root.is_dir():
        return []
    found = [(int(match[1]), path) for path in root.iterdir() if (match := CHECKPOINT_NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def find_checkpoint(folder: Path) -> Path | None:
    """The folder itself if it is a checkpoint of a run, else the newest below the run's folder; None without one."""
    if (folder / MANIFEST_NAME).is_file():
        return folder
    found = [*list_checkpoints(folder / "checkpoints"), *list_checkpoints(folder)]
    return found[-1] if found else None


def is_tuned(location: str | Path) -> bool:
    """Whether a tuned model may be there: a run, a checkpoint, an exported folder or an archive. Nothing is read."""
    path = expand_home(location)
    if path.suffix == ARCHIVE_SUFFIX and not path.is_dir():
        return path.is_file()
    return any((path / name).exists() for name in (MANIFEST_NAME, EXPORT_FILE, "checkpoints"))
