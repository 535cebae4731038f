"""Frozen, typed settings for LAVIS's YAML; unknown keys get the nearest valid name, all errors are reported at once."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from lavis_emovit.errors import ConfigError

# pydantic's error types for a value that should be a mapping.
_NO_MAPPING = ("model_type", "model_attributes_type", "dict_type", "dict_attributes_type")

SettingsT = TypeVar("SettingsT", bound="Settings")


class Settings(BaseModel):
    """Base of all settings classes; only declared fields and finite numbers are accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


def nearest_name(name: str, valid: list[str]) -> str:
    """` (did you mean 'x'?)` with the valid name closest to `name`, or the list of valid names if none is close."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (valid: {', '.join(sorted(valid))})"


def parse_settings(cls: type[SettingsT], values: Mapping[str, Any], prefix: str) -> tuple[SettingsT | None, list[str]]:
    """Settings from plain values, or None, and one line per problem; `prefix` is their key (`datasets.emoset`)."""
    try:
        return cls.model_validate(dict(values)), []
    except ValidationError as error:
        found = error.errors()
        return None, [_problem_line(cls, prefix, item) for item in found if not _follows_from_others(item, found)]


def read_settings_file(cls: type[SettingsT], path: Path, prefix: str) -> SettingsT:
    """Settings from a JSON file. ConfigError lists all problems."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"cannot be read ({error.strerror})"], str(path)) from None
    except ValueError as error:
        raise ConfigError([f"not JSON ({error})"], str(path)) from None
    if not isinstance(content, dict):
        raise ConfigError([f"expected one JSON object with {', '.join(cls.model_fields)}"], str(path))
    settings, problems = parse_settings(cls, content, prefix)
    if settings is None:
        raise ConfigError(problems, str(path))
    return settings


def _follows_from_others(item: Any, found: list[Any]) -> bool:
    """Whether a list is reported as too short only because its invalid items were not counted."""
    place = item["loc"]
    return item["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in found
    )


def _problem_line(cls: type[BaseModel], prefix: str, item: Any) -> str:
    owner, location = _follow(cls, item["loc"])
    key = ".".join([prefix, *location])
    if item["type"] == "extra_forbidden":
        hint = nearest_name(location[-1], list(owner.model_fields)) if owner else ""
        return f"{key}: unknown key{hint}"
    if item["type"] == "missing":
        return f"{key}: missing, it has no default"
    if item["type"] in _NO_MAPPING:
        return f"{key}: expected a mapping of settings (got {item['input']!r})"
    if item["type"] == "union_tag_invalid":
        chosen, valid = str(item["ctx"]["tag"]), item["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"{key}.{item['ctx']['discriminator'].strip(chr(39))}: unknown '{chosen}'{nearest_name(chosen, valid)}"
    if item["type"] == "union_tag_not_found":
        return f"{key}.{item['ctx']['discriminator'].strip(chr(39))}: missing, it selects the settings"
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"] or (item["type"] == "value_error" and isinstance(item["input"], Mapping)):
        # A rule about several keys names them itself; the value of the whole node would hide it.
        return f"{key}: {message}"
    return f"{key}: {message} (got {item['input']!r})"


def _follow(cls: type[BaseModel], path: tuple[Any, ...]) -> tuple[type[BaseModel] | None, list[str]]:
    """The settings class with the last key of a path, and the path as the user writes it.

    In a discriminated union, pydantic's path also contains the name of the chosen class, which is removed.
    """
    owner: type[BaseModel] | None = cls
    holder = owner
    location: list[str] = []
    choices: Any = None
    for part in path:
        if choices is not None:
            owner, choices = _settings_in(choices, str(part)) or owner, None
            continue
        holder = owner
        location.append(str(part))
        field = owner.model_fields.get(str(part)) if owner is not None else None
        if field is not None:
            owner = _settings_in(field.annotation)
            choices = field.annotation if field.discriminator is not None else None
    return holder, location


def _settings_in(annotation: Any, name: str | None = None) -> type[BaseModel] | None:
    """The first settings class in a type; with a name, the first with that name as the default of a key."""
    # In Python 3.10 `isinstance(tuple[str, ...], type)` is true, but `issubclass` fails.
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fits = name is None or name in (field.default for field in annotation.model_fields.values())
        return annotation if fits else None
    for argument in getattr(annotation, "__args__", ()):
        found = _settings_in(argument, name)
        if found is not None:
            return found
    return None
