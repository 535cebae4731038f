"""The names that this package registers in LAVIS, read from its files without importing them.

A decorator `@registry.register_task("name")` at the start of a line registers a class, and so does every YAML file
of the catalogues of models and datasets.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import re
from pathlib import Path

from lavis_emovit.errors import DataError
from lavis_emovit.paths import PACKAGE_ROOT, config_root, expand_home

CONFIG_NAME = "defaults.yaml"
SEARCH_VARIABLE = "EMOVIT_DATASETS"
SEARCH_FOLDER = "emovit_datasets"
ADD_DATASET = (
    f"`emovit init` declares a custom dataset. It is a file <name>/{CONFIG_NAME} in the folder {SEARCH_FOLDER} beside "
    f"the recipe or in the working directory, or in a folder that the environment variable {SEARCH_VARIABLE} names "
    "(docs/datasets.md)."
)
DECLARED_MODELS = "lavis_emovit.models.declared"
DECLARED_DATASETS = "lavis_emovit.datasets.builders.declared"

# The settings of a dataset's node, as module and class: recipes are checked before torch is loaded.
DATASET_SETTINGS = ("lavis_emovit.datasets.settings", "DatasetSettings")

# Folders whose files register classes.
REGISTERING_FOLDERS = ("processors", "datasets/builders", "tasks", "runners")

_REGISTRATION = re.compile(r"""^@registry\.register_(\w+)\(["']([^"']+)["']\)""", re.MULTILINE)


def registered_names(*, custom: bool = True) -> dict[str, dict[str, str]]:
    """Kind (`model`, `builder`, `processor`, `task`, `runner`) -> name -> module that registers it."""
    names: dict[str, dict[str, str]] = {}
    for folder in REGISTERING_FOLDERS:
        for path in sorted((PACKAGE_ROOT / folder).glob("*.py")):
            module = ".".join([PACKAGE_ROOT.name, *folder.split("/"), path.stem])
            for kind, name in _REGISTRATION.findall(path.read_text(encoding="utf-8")):
                names.setdefault(kind, {})[name] = module
    names["model"] = dict.fromkeys(model_files(), DECLARED_MODELS)
    for name in dataset_files(custom=custom):
        names.setdefault("builder", {}).setdefault(name, DECLARED_DATASETS)
    return names


@functools.cache
def import_modules(package: str) -> None:
    """Import every module of a package in alphabetical order, so that each has registered what it defines."""
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    for name in sorted(module.name for module in found):
        importlib.import_module(f"{package}.{name}")


def model_files() -> dict[str, Path]:
    """Name -> YAML file of every declared model."""
    return {path.stem: path for path in sorted((config_root() / "models" / "emovit").glob("*.yaml"))}


# Folders of datasets beside the recipes that this process has read, in that order.
_beside_recipes: list[Path] = []


def search_beside(recipe: Path) -> None:
    """Let `dataset_files` also find the datasets in the folder `emovit_datasets` beside a recipe."""
    folder = expand_home(recipe).resolve().parent / SEARCH_FOLDER
    if folder.is_dir():
        if folder in _beside_recipes:
            _beside_recipes.remove(folder)
        _beside_recipes.append(folder)


def dataset_files(*, custom: bool = True) -> dict[str, Path]:
    """Name -> YAML file of every declared dataset, ours first; a later one replaces an earlier one of the same name.

    Custom ones are in the folder `emovit_datasets` of the working directory, in that beside a recipe, and in the
    folders that `EMOVIT_DATASETS` names; DataError if one of the latter does not exist.
    """
    found = _configs_in(config_root() / "datasets")
    for folder in (Path(SEARCH_FOLDER).absolute(), *_beside_recipes) if custom else ():
        found |= _configs_in(folder)
    named = os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep) if custom else []
    for item in filter(None, named):
        # Absolute, since LAVIS looks for relative paths below its own package.
        folder = expand_home(item).resolve()
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder, but {SEARCH_VARIABLE} names it")
        files = _configs_in(folder)
        if not files:
            raise DataError(f"{folder}: {SEARCH_VARIABLE} names it, but it contains no <name>/{CONFIG_NAME}")
        found |= files
    return found


def _configs_in(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path for path in sorted(folder.glob(f"*/{CONFIG_NAME}"))}
