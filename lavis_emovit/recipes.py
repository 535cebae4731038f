"""Reading recipes: LAVIS's YAML, the command line's options over it, and the defaults under it.

Defaults of the model and of each dataset come from the files that their registered classes name, as in LAVIS. Neither
torch nor a module of LAVIS is loaded for the names of this plugin; any other name is looked up in LAVIS's registry.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lavis_emovit.boxes import BoxSettings
from lavis_emovit.errors import ConfigError
from lavis_emovit.files import regular_file
from lavis_emovit.models.catalogue import declared_models
from lavis_emovit.registered import ADD_DATASET, DATASET_SETTINGS, dataset_files, registered_names, search_beside
from lavis_emovit.settings import Origins, Settings, merge_settings, nearest_name, parse_settings, plain_values

ROOT_KEYS = ("model", "datasets", "run")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, its keys joined with dots; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def read_user_tree(
    path: Path, options: Sequence[str], overrides: Sequence[str]
) -> tuple[dict[str, Any], list[str], Origins]:
    """The recipe with the options applied, as plain values, a line for each problem with the options, and origins."""
    dotlist, problems = _dotlist(options)
    search_beside(path)
    try:
        recipe = OmegaConf.load(regular_file(path))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        raise ConfigError([f"{path}: not a YAML file that can be read: {error}"], str(path)) from None
    if not isinstance(recipe, DictConfig):
        raise ConfigError([f"{path}: expected a mapping with the keys {', '.join(ROOT_KEYS)}"], str(path))
    names = OmegaConf.to_container(recipe)
    dotlist = [_with_brackets(option, names) for option in dotlist]
    try:
        merged = merge_settings(recipe, OmegaConf.from_dotlist([*dotlist, *overrides]))
        origins: Origins = {}
        return plain_values(merged, origins), problems, origins
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems], str(path)) from None
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise ConfigError([*problems, str(error).splitlines()[0]], str(path)) from None


def _dotlist(options: Sequence[str]) -> tuple[list[str], list[str]]:
    if not options:
        return [], []
    if "=" not in options[0]:
        if len(options) % 2:
            return [], [f"--options: '{options[-1]}' has no value; write key=value, or keys and values in turn"]
        return [f"{key}={value}" for key, value in zip(options[0::2], options[1::2])], []
    problems = [f"--options: '{option}' has no '='; write key=value" for option in options if "=" not in option]
    return [option for option in options if "=" in option], problems


def _with_brackets(option: str, tree: Any) -> str:
    """The option with brackets around the recipe's own keys that have dots, such as a model `llava-1.5`."""
    key, equals, value = option.partition("=")
    parts, written = key.split("."), ""
    while parts:
        keys = tree if isinstance(tree, dict) else {}
        count = next((n for n in range(len(parts), 1, -1) if ".".join(parts[:n]) in keys), 1)
        name = ".".join(parts[:count])
        written += f"[{name}]" if count > 1 else f".{name}" if written else name
        tree, parts = keys.get(name), parts[count:]
    return f"{written}{equals}{value}"


def mapping_at(tree: Mapping[str, Any], key: str, problems: list[str]) -> dict[str, Any]:
    node = tree.get(key)
    if node is None:
        problems.append(f"{key}: missing, a recipe has the keys {', '.join(ROOT_KEYS)}")
        return {}
    if not isinstance(node, Mapping):
        problems.append(f"{key}: expected a mapping (got {node!r})")
        return {}
    return dict(node)


def is_name(value: Any, key: str, problems: list[str]) -> bool:
    """Whether a value can name something; adds to `problems` for a list, a mapping or nothing."""
    if is_wrong := value is None or isinstance(value, (list, Mapping)):
        problems.append(f"{key}: expected one name (got {value!r})")
    return not is_wrong


def resolve_model(
    node: dict[str, Any], problems: list[str], place: str = "model", origins: Origins | None = None
) -> tuple[dict[str, Any], Settings | None]:
    """A model's node over the defaults of its type, as plain values and typed; adds to `problems`."""
    if not node:
        return {}, None
    arch = node.get("arch")
    if arch is None:
        problems.append(f"{place}.arch: missing, for example emovit_tiny")
        return {}, None
    if not is_name(arch, f"{place}.arch", problems):
        return {}, None
    declared = _find_model(arch, problems, place)
    if declared is None:
        return {}, None
    model_type = node.get("model_type") or declared.default_type
    if not is_name(model_type, f"{place}.model_type", problems):
        return {}, None
    if model_type not in declared.configs:
        valid = nearest_name(str(model_type), list(declared.configs))
        problems.append(f"{place}.model_type: '{arch}' has no type '{model_type}'{valid}")
        return {}, None
    return _resolve(declared, model_type, ("model",), {**node, "model_type": model_type}, problems, place, origins)


def resolve_datasets(
    node: dict[str, Any], problems: list[str], origins: Origins | None = None
) -> tuple[dict[str, Any], dict[str, Settings]]:
    """The nodes of all datasets over their defaults, as plain values and typed; problems as for `resolve_model`."""
    trees: dict[str, Any] = {}
    parsed: dict[str, Settings] = {}
    for name, given in node.items():
        tree, settings = resolve_dataset(name, given, problems, f"datasets.{name}", origins)
        if tree is not None:
            trees[name] = tree
        if settings is not None:
            parsed[name] = settings
    return trees, parsed


def resolve_dataset(
    name: str, given: Any, problems: list[str], place: str, origins: Origins | None = None
) -> tuple[dict[str, Any] | None, Settings | None]:
    """The node of one dataset over its defaults, as plain values and typed; problems as for `resolve_model`."""
    declared = _find_dataset(name, problems, place)
    if declared is None:
        return None, None
    if given is not None and not isinstance(given, Mapping):
        problems.append(f"{place}: expected a mapping (got {given!r})")
        return None, None
    given = dict(given or {})
    config_type = given.get("type", declared.default_type)
    if not is_name(config_type, f"{place}.type", problems):
        return None, None
    if config_type not in declared.configs:
        valid = nearest_name(str(config_type), list(declared.configs))
        problems.append(f"{place}.type: no type '{config_type}'{valid}")
        return None, None
    return _resolve(declared, config_type, ("datasets", name), given, problems, place, origins)


@dataclass(frozen=True)
class Declared:
    """What a recipe needs to know about a model or a dataset."""

    configs: Mapping[Any, str | Path]  # type -> file of its defaults
    default_type: str | None  # the type of a node that names none
    settings_class: type[Settings]  # class of its node


def _find_model(arch: str, problems: list[str], place: str) -> Declared | None:
    """A model of ours from its YAML file, without loading torch or LAVIS, or one that another package registers."""
    declared = declared_models().get(arch)
    if declared is not None:
        return Declared({declared.model_type: declared.path}, declared.model_type, declared.settings_class())
    from lavis.common.registry import registry

    model_class = registry.get_model_class(arch)
    if model_class is None:
        problems.append(f"{place}.arch: no model '{arch}' is registered{near(arch, registry.list_models())}")
        return None
    if not hasattr(model_class, "trained_state_dict"):
        ours = ", ".join(sorted(registered_names()["model"]))
        problems.append(f"{place}.arch: '{arch}' is not a model of this plugin; those are {ours}")
        return None
    configs = {name: model_class.default_config_path(name) for name in model_class.PRETRAINED_MODEL_CONFIG_DICT}
    return Declared(configs, getattr(model_class, "DEFAULT_MODEL_TYPE", None), model_class.settings_class)


def _find_dataset(name: str, problems: list[str], place: str) -> Declared | None:
    """A dataset of the catalogue, without loading torch or LAVIS, or one that another package registers."""
    path = dataset_files().get(name)
    if path is not None:
        module, class_name = DATASET_SETTINGS
        return Declared({"default": path}, "default", getattr(importlib.import_module(module), class_name))
    from lavis.common.registry import registry

    builder = registry.get_builder_class(name)
    if builder is None:
        problems.append(
            f"{place}: no dataset '{name}' is registered{near(name, registry.list_datasets())}. {ADD_DATASET}"
        )
        return None
    if not hasattr(builder, "settings_class"):
        ours = ", ".join(sorted(registered_names()["builder"]))
        problems.append(f"{place}: runner_emovit reads shards of records; it takes {ours}")
        return None
    configs = {key: builder.default_config_path(key) for key in builder.DATASET_CONFIG_DICT}
    return Declared(configs, "default", builder.settings_class)


def is_dataset(name: str) -> bool:
    """Whether a dataset of this name is registered."""
    if name in dataset_files():
        return True
    from lavis.common.registry import registry

    return name in registry.list_datasets()


def _resolve(
    declared: Declared,
    config_type: Any,
    keys: tuple[str, ...],
    given: Mapping[str, Any],
    problems: list[str],
    place: str,
    origins: Origins | None,
) -> tuple[dict[str, Any], Settings | None]:
    """The node at `keys` of a LAVIS default file with `given` over it, as plain values and typed; adds to `origins`."""
    default_path = declared.configs[config_type]
    default: Any = OmegaConf.load(default_path)
    for key in keys:
        default = default[key]
    found: Origins = {}
    try:
        merged = merge_settings(default, OmegaConf.create(dict(given)), place)
    except ConfigError as error:
        problems += error.problems
        return {}, None
    try:
        values = plain_values(merged, found)
    except ConfigError as error:
        raise ConfigError(error.problems, str(default_path)) from None
    if origins is not None:
        origins.update({(*keys, *path): origin for path, origin in found.items()})
    settings, lines = parse_settings(declared.settings_class, values, place)
    problems += lines
    return values, settings


def box_of(dataset: Any, split: str = "eval") -> BoxSettings | None:
    """What the settings of a dataset show of records with a box, in `train` or `eval`; None: they do not say it."""
    processor = getattr(getattr(dataset, "vis_processor", None), split, None)
    show: BoxSettings | None = getattr(processor, "box", None)
    return show


def near(name: str, valid: Sequence[str]) -> str:
    """The nearest registered name, or those of this plugin: LAVIS registers dozens of its own."""
    if difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.6):
        return nearest_name(str(name), list(valid))
    known = {ours for names in registered_names(custom=False).values() for ours in names}
    ours = sorted(known & set(valid))
    return f" (this plugin's: {', '.join(ours)})" if ours else ""
