"""Reading recipes: LAVIS's YAML with the options of the command line over it, and the defaults that it refers to.

Defaults of the model and of each dataset come from the files that their registered classes name, as in LAVIS; the
recipe goes over them and `--options` over the recipe.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lavis_emovit.errors import ConfigError
from lavis_emovit.settings import Settings, nearest_name, parse_settings

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


def read_user_tree(path: Path, options: Sequence[str], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The recipe with the options over it, as plain values, and what is wrong with either."""
    dotlist, problems = _dotlist(options)
    try:
        recipe = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: not a YAML file that can be read: {error}"], str(path)) from None
    if not isinstance(recipe, DictConfig):
        raise ConfigError([f"{path}: expected a mapping with the keys {', '.join(ROOT_KEYS)}"], str(path))
    try:
        merged = OmegaConf.merge(recipe, OmegaConf.from_dotlist([*dotlist, *overrides]))
        values = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError([*problems, str(error).splitlines()[0]], str(path)) from None
    return values, problems  # type: ignore[return-value]


def _dotlist(options: Sequence[str]) -> tuple[list[str], list[str]]:
    if not options:
        return [], []
    if "=" not in options[0]:
        if len(options) % 2:
            return [], [f"--options: '{options[-1]}' has no value; write key=value, or keys and values in turn"]
        return [f"{key}={value}" for key, value in zip(options[0::2], options[1::2])], []
    problems = [f"--options: '{option}' has no '='; write key=value" for option in options if "=" not in option]
    return [option for option in options if "=" in option], problems


def mapping_at(tree: Mapping[str, Any], key: str, problems: list[str]) -> dict[str, Any]:
    node = tree.get(key)
    if node is None:
        problems.append(f"{key}: missing, a recipe has the keys {', '.join(ROOT_KEYS)}")
        return {}
    if not isinstance(node, Mapping):
        problems.append(f"{key}: expected a mapping (got {node!r})")
        return {}
    return dict(node)


def resolve_model(
    node: dict[str, Any], problems: list[str], place: str = "model"
) -> tuple[dict[str, Any], Settings | None]:
    """A model's node over the defaults of its type, as plain values and typed; what is wrong goes to `problems`.

    Args:
        place: where the node stands, for the messages.
    """
    from lavis.common.registry import registry

    from lavis_emovit.models.instructblip.settings import ModelSettings

    if not node:
        return {}, None
    arch = node.get("arch")
    if arch is None:
        problems.append(f"{place}.arch: missing, for example emovit_tiny")
        return {}, None
    model_class = registry.get_model_class(arch)
    if model_class is None:
        problems.append(f"{place}.arch: no model '{arch}' is registered{near(arch, registry.list_models())}")
        return {}, None
    settings_class = getattr(model_class, "settings_class", ModelSettings)
    if not hasattr(model_class, "trained_state_dict"):
        ours = sorted(name for name in registry.list_models() if name.startswith("emovit_"))
        problems.append(f"{place}.arch: '{arch}' is no model of this plugin; those are {', '.join(ours)}")
        return {}, None
    types = model_class.PRETRAINED_MODEL_CONFIG_DICT
    model_type = node.get("model_type") or getattr(model_class, "DEFAULT_MODEL_TYPE", None)
    if model_type not in types:
        problems.append(
            f"{place}.model_type: '{arch}' has no type '{model_type}'{nearest_name(str(model_type), list(types))}"
        )
        return {}, None
    merged = _over_defaults(model_class.default_config_path(model_type), ("model",), {**node, "model_type": model_type})
    settings, found = parse_settings(settings_class, merged, place)
    problems += found
    return merged, settings


def resolve_datasets(node: dict[str, Any], problems: list[str]) -> tuple[dict[str, Any], dict[str, Settings]]:
    from lavis.common.registry import registry

    trees: dict[str, Any] = {}
    parsed: dict[str, Settings] = {}
    for name, given in node.items():
        builder = registry.get_builder_class(name)
        if builder is None:
            problems.append(f"datasets.{name}: no dataset '{name}' is registered{near(name, registry.list_datasets())}")
            continue
        if given is not None and not isinstance(given, Mapping):
            problems.append(f"datasets.{name}: expected a mapping (got {given!r})")
            continue
        given = dict(given or {})
        types = builder.DATASET_CONFIG_DICT
        config_type = given.get("type", "default")
        if config_type not in types:
            problems.append(
                f"datasets.{name}.type: no type '{config_type}'{nearest_name(str(config_type), list(types))}"
            )
            continue
        trees[name] = _over_defaults(builder.default_config_path(config_type), ("datasets", name), given)
        settings_class = getattr(builder, "settings_class", None)
        if settings_class is None:
            ours = [key for key, value in _builders().items() if hasattr(value, "settings_class")]
            problems.append(
                f"datasets.{name}: runner_emovit reads shards of records; it takes {', '.join(sorted(ours))}"
            )
            continue
        settings, found = parse_settings(settings_class, trees[name], f"datasets.{name}")
        problems += found
        if settings is not None:
            parsed[name] = settings
    return trees, parsed


def _over_defaults(default_path: str, keys: tuple[str, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """The node of a LAVIS default file with `given` over it."""
    default: Any = OmegaConf.load(default_path)
    for key in keys:
        default = default[key]
    return OmegaConf.to_container(OmegaConf.merge(default, OmegaConf.create(dict(given))), resolve=True)  # type: ignore


def _builders() -> dict[str, Any]:
    from lavis.common.registry import registry

    return registry.mapping["builder_name_mapping"]


def near(name: str, valid: Sequence[str]) -> str:
    """The nearest registered name, or those of this plugin: LAVIS registers dozens of its own."""
    if difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.6):
        return nearest_name(str(name), list(valid))
    ours = sorted(entry for entry in valid if entry.startswith(("emo", "london")))
    return f" (this plugin's: {', '.join(ours)})" if ours else ""
