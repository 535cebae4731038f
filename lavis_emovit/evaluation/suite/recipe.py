"""Reading the recipe of a suite. Neither torch nor a module of LAVIS is loaded for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_emovit.errors import ConfigError
from lavis_emovit.evaluation.adapters.base import adapters
from lavis_emovit.evaluation.benchmarks import ALL_SPLITS
from lavis_emovit.evaluation.suite_settings import SuiteSettings
from lavis_emovit.paths import expand_home, find_recipe
from lavis_emovit.recipes import is_dataset, read_user_tree, resolve_dataset, resolve_model
from lavis_emovit.settings import nearest_name, parse_settings, unknown_key
from lavis_emovit.sources.split_lists import read_lists


def load_suite(cfg_path: str | Path, options: Sequence[str] = (), *, check_names: bool = False) -> SuiteSettings | None:
    """The suite of a recipe, or None for a recipe without the node `suite`.

    Args:
        cfg_path: the file, or `projects/emovit/...` for one that ships with the package.
        options: of the form `a.b=c`.
        check_names: also check the models and datasets that the suite names, and their `config`.

    Raises:
        ConfigError: lists everything that is wrong with it.
    """
    path = find_recipe(cfg_path)
    if path is None:
        raise ConfigError([f"{cfg_path}: no such recipe file; check the path of --cfg-path"], "the command line")
    tree, problems, origins = read_user_tree(path, options, ())
    if "suite" not in tree:
        return None
    problems += [unknown_key(key, ["suite"], "suite", SuiteSettings) for key in tree if key != "suite"]
    node = tree["suite"]
    if not isinstance(node, Mapping):
        raise ConfigError([*problems, f"suite: expected a mapping (got {node!r})"], str(path))
    settings, found = parse_settings(SuiteSettings, node, "suite")
    # pydantic puts the name of the adapter into the path of a key.
    adapter = re.compile(rf"^(suite\.models\.[^.:]+)\.(?:{'|'.join(map(re.escape, adapters()))})(?=[.:])")
    problems += [adapter.sub(r"\1", problem) for problem in found]
    if check_names:
        problems += _problems_of_models(node)
        problems += _problems_of_datasets(node)
    if settings is None or problems:
        raise ConfigError(problems, str(path))
    settings.origins.update(origins)
    return settings


def _problems_of_models(node: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    for name, entry in _entries(node, "models"):
        config = entry.get("config") or {}
        if entry.get("adapter") != "lavis" or not isinstance(config, Mapping):
            continue
        keys = {key: entry[key] for key in ("arch", "model_type") if entry.get(key) is not None}
        if "arch" in keys:
            resolve_model({**config, **keys}, problems, f"suite.models.{name}.config")
    # These two are keys of the entry itself.
    return [re.sub(r"\.config\.(arch|model_type):", r".\1:", problem) for problem in problems]


def _problems_of_datasets(node: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    for name, entry in _entries(node, "benchmarks"):
        dataset = entry.get("dataset")
        if isinstance(dataset, str) and (is_dataset(dataset) or node.get("missing") != "skip"):
            place = f"suite.benchmarks.{name}"
            _, settings = resolve_dataset(dataset, entry.get("config"), problems, f"{place}.config")
            problems += _problems_of_splits(entry, dataset, settings, place)
    return [problem.replace(".config: no dataset", ".dataset: no dataset") for problem in problems]


def _problems_of_splits(entry: Mapping[str, Any], dataset: str, settings: Any, place: str) -> list[str]:
    """The splits that the dataset does not have, as far as its settings alone say which it has."""
    build = getattr(settings, "build_info", None)
    if build is None:
        return []
    known = list(build.split_names)
    problems = []
    for key, default in (("split", "test"), ("train_split", "train")):
        split = entry.get(key, default)
        is_optional = key == "train_split" and (split == default or entry.get("split") == ALL_SPLITS)
        if isinstance(split, str) and split not in known and split != ALL_SPLITS and not is_optional:
            whole = f"; '{ALL_SPLITS}' takes all of them" if key == "split" else ""
            hint = nearest_name(split, [*known, *([ALL_SPLITS] if whole else [])])
            problems.append(f"{place}.{key}: '{dataset}' has no split '{split}'{hint}{whole}")
    prepare = build.prepare
    if prepare is not None and prepare.split_lists is not None and prepare.root is not None:
        root = expand_home(prepare.root)
        if root.is_dir():  # else the benchmark is reported as missing
            lists = {split: file.below(root) for split, file in prepare.split_lists.items()}
            problems += [f"{place}.config.build_info.prepare.split_lists: {one}" for one in read_lists(lists)[1]]
    return problems


def _entries(node: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The entries that are mappings; the settings report the others."""
    entries = node.get(key)
    items = entries.items() if isinstance(entries, Mapping) else ()
    return [(name, entry) for name, entry in items if isinstance(entry, Mapping)]
