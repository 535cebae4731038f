"""Frozen, typed settings for LAVIS's YAML; unknown keys get the nearest valid name, all errors are reported at once."""

from __future__ import annotations

import copy
import difflib
import hashlib
import inspect
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lavis_emovit.errors import ConfigError
from lavis_emovit.files import load_yaml, read_file, regular_file
from lavis_emovit.own_files import checked_json

# pydantic's error types for a value that should be a mapping.
_NO_MAPPING = ("model_type", "model_attributes_type", "dict_type", "dict_attributes_type")

# Environment variables that `${oc.env:NAME}` in a recipe may read; a recipe of another person could otherwise ask for a
# password and get it into a report.
_ALLOWED_VARIABLE = re.compile(r"EMOVIT_\w+|SLURM_\w+|HOME|USER|TMPDIR|SCRATCH")
ALLOW_VARIABLES = "EMOVIT_RECIPE_VARIABLES"  # names further allowed variables, separated by commas
_VARIABLES_LINE = "# Environment variables of the recipe: "
_LEAST_CHARACTERS = 8  # of a variable that is also replaced inside other values


class Origin(NamedTuple):
    """A value of a recipe that comes from environment variables: its text in the recipe, itself, and their names."""

    text: str
    value: str
    names: tuple[str, ...]


# By the path of the value.
Origins = dict[tuple[str, ...], Origin]

# Names in other libraries, or for short -> ours.
_OTHER_NAMES = {
    **dict.fromkeys(("learning_rate", "lr", "base_lr", "max_lr"), "init_lr"),
    **dict.fromkeys(("epochs", "num_epochs", "num_train_epochs", "max_epochs"), "max_epoch"),
    **dict.fromkeys(("batch_size", "train_batch_size", "bsz"), "global_batch_size"),
    **dict.fromkeys(("per_device_train_batch_size",), "micro_batch_size"),
    **dict.fromkeys(("lr_scheduler_type", "scheduler", "lr_schedule"), "lr_sched"),
    **dict.fromkeys(("max_norm", "grad_clip", "clip_grad_norm"), "max_grad_norm"),
    **dict.fromkeys(("r", "lora_r", "lora_rank"), "rank"),
    **dict.fromkeys(("lora_alpha",), "alpha"),
    **dict.fromkeys(("acc", "accuracy_score", "top1"), "accuracy"),
    **dict.fromkeys(("f1", "f1_macro", "f1_score"), "macro_f1"),
    **dict.fromkeys(("save_steps",), "save_every_steps"),
    **dict.fromkeys(("eval_steps",), "eval_every_steps"),
    **dict.fromkeys(("logging_steps",), "log_every_steps"),
    **dict.fromkeys(("rate", "fps"), "rate_fps"),
}

SettingsT = TypeVar("SettingsT", bound="Settings")

Text = Annotated[str, StringConstraints(pattern=r"\S")]
"""A text that is not blank."""
Number = Annotated[float, Field(strict=True)]
"""A number; pydantic would also read `true` as 1 and "0.5" as 0.5."""


def each_once(values: Any) -> Any:
    """The values of a list of choices; ValueError if one is repeated. None stays."""
    if values is not None and (repeated := [value for value in values if values.count(value) > 1]):
        raise ValueError(f"names the same choice twice ({repeated[0]})")
    return values


EachOnce = AfterValidator(each_once)
"""For the type of a list of choices."""


class FrozenModel(BaseModel):
    """Base of settings and of records; only declared fields and finite numbers are accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


def added_field(default: Any, **options: Any) -> Any:
    """A field that earlier versions did not have: a dump has it only if it is not the default.

    So fingerprints of what was made before, by runs or shards without the field, stay valid.
    """
    return Field(default, exclude_if=lambda value: value == default, **options)


class Settings(FrozenModel):
    """Base of all settings classes. Records are read too often for its check, and have no whole numbers."""

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        """pydantic reads `true`, which is also YAML's `yes` and `on`, as the number 1; as a text it is refused."""
        if not isinstance(values, Mapping) or not any(isinstance(value, bool) for value in values.values()):
            return values
        return {name: str(value).lower() if cls._is_no_number(name, value) else value for name, value in values.items()}

    @classmethod
    def _is_no_number(cls, name: str, value: Any) -> bool:
        """Whether a value is true or false, and that of a field for numbers only."""
        if not isinstance(value, bool) or name not in cls.model_fields:
            return False
        annotation = cls.model_fields[name].annotation
        types = {annotation, *get_args(annotation)}
        return not types.isdisjoint((int, float)) and types.isdisjoint((bool, str))

    @model_validator(mode="after")
    def _integers_fit(self: SettingsT) -> SettingsT:
        """Python's integers have no end, but those of torch and numpy have 64 bits."""
        for name, value in self:
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError(f"{name} is out of range; use a whole number below 2^63")
        return self


def nearest_name(name: str, valid: list[str]) -> str:
    """` (did you mean 'x'?)` with the valid name closest to `name`, or the list of valid names if none is close.

    Empty if there are no valid names.
    """
    meant = _OTHER_NAMES.get(name)
    if meant in valid:
        return f" (did you mean '{meant}'?)"
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (valid: {', '.join(sorted(valid))})" if valid else ""


def unknown_key(key: str, valid: Sequence[str], node: str, cls: type[Settings]) -> str:
    """The problem of an unknown key at the top of a recipe; it may belong into the node with these settings."""
    meant = _OTHER_NAMES.get(key, key)
    if meant in cls.model_fields:
        return f"{key}: unknown key (did you mean '{node}.{meant}'?)"
    return f"{key}: unknown key{nearest_name(key, list(valid))}"


def parse_settings(cls: type[SettingsT], values: Mapping[str, Any], prefix: str) -> tuple[SettingsT | None, list[str]]:
    """Settings from plain values, or None, and one line per problem; `prefix` is their key (`datasets.emoset`)."""
    try:
        return cls.model_validate(dict(values)), []
    except ValidationError as error:
        found = error.errors()
        return None, [_problem_line(cls, prefix, item) for item in found if not _follows_from_others(item, found)]


def valid_settings(cls: type[SettingsT], values: Mapping[str, Any], prefix: str, source: str) -> SettingsT:
    """Settings from plain values. ConfigError lists all problems; `source` names where the values are."""
    settings, problems = parse_settings(cls, values, prefix)
    if settings is None:
        raise ConfigError(problems, source)
    return settings


def read_settings_file(cls: type[SettingsT], path: Path, prefix: str) -> SettingsT:
    """Settings from a JSON file. ConfigError lists all problems."""
    try:
        content = checked_json(read_file(path))
    except OSError as error:
        raise ConfigError([f"cannot be read ({error.strerror})"], str(path)) from None
    except ValueError as error:
        raise ConfigError([str(error)], str(path)) from None
    if not isinstance(content, dict):
        raise ConfigError([f"expected one JSON object with {', '.join(cls.model_fields)}"], str(path))
    return valid_settings(cls, content, prefix, str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; `${...}` stays as it is written. ConfigError for any other file.

    Repeated keys are refused, of which YAML's own loader keeps only the last.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(regular_file(path)))
    # ValueError: not UTF-8, or what looks like a date or a number and is none, such as 2024-02-30.
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError([f"cannot be read as YAML ({' '.join(str(error).split())})"], str(path)) from None
    if not isinstance(content, dict):
        raise ConfigError([f"expected a mapping of settings (got {type(content).__name__})"], str(path))
    return content


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


def plain_values(config: Any, origins: Origins | None = None, changed: Collection[str] = ()) -> Any:
    """An OmegaConf tree as plain values, its interpolations resolved.

    Args:
        origins: gets the values that come from environment variables; see `with_variables`.
        changed: variables whose value is not known any more.

    Raises:
        ConfigError: a value is missing (`???`), an interpolation cannot be resolved, or reads a variable that recipes
            may not read.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with _environment(changed) as used:
        try:
            if missing := sorted(OmegaConf.missing_keys(config)):
                raise ConfigError([f"{key}: '???' is the mark of a missing value; set it" for key in missing])
            values = OmegaConf.to_container(config, resolve=True)
            if origins is not None:
                _note_origins(config, OmegaConf.to_container(config), (), used, origins)
        except OmegaConfBaseException as error:
            raise ConfigError([str(error).splitlines()[0]]) from None
    return values


def merge_settings(base: Any, given: Any, place: str = "") -> Any:
    """OmegaConf trees merged; ConfigError for a list over a mapping or the reverse, with `place` before its key.

    A mapping whose `name` is another one, as of a processor, takes the place of the whole mapping.
    """
    from omegaconf import OmegaConf

    try:
        return OmegaConf.merge(_without_renamed(base, given), given)
    except TypeError:
        problems = list(_clashes(OmegaConf.to_container(base), OmegaConf.to_container(given), place))
        if not problems:
            raise
        raise ConfigError(problems) from None


def _without_renamed(base: Any, given: Any) -> Any:
    """A copy of `base` in which mappings are empty whose `name` differs in `given`."""
    from omegaconf import DictConfig, OmegaConf

    if not isinstance(base, DictConfig) or not isinstance(given, DictConfig):
        return base
    own, other = (OmegaConf.to_container(tree) for tree in (base, given))
    places = list(_renamed(own, other, ()))
    if not places:
        return base
    base = copy.deepcopy(base)
    for *path, last in places:
        node = base
        for key in path:
            node = node[key]
        node[last] = {}
    return base


def _renamed(own: Any, given: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not isinstance(own, dict) or not isinstance(given, dict):
        return
    if path and {"name"} <= own.keys() & given.keys() and own["name"] != given["name"]:
        yield path
        return
    for key in own.keys() & given.keys():
        yield from _renamed(own[key], given[key], (*path, key))


def _clashes(base: Any, given: Any, key: str) -> Iterator[str]:
    if isinstance(base, dict) and isinstance(given, dict):
        for name in (name for name in given if name in base):
            yield from _clashes(base[name], given[name], f"{key}.{name}" if key else str(name))
    elif isinstance(base, dict | list) and isinstance(given, dict | list) and type(base) is not type(given):
        yield f"{key}: expected a {'list' if isinstance(base, list) else 'mapping'} (got {given!r})"


def with_variables(values: Any, origins: Origins, path: tuple[str, ...] = ()) -> Any:
    """The values with `${oc.env:NAME}` instead of what these variables contain, for files that others may read."""
    if isinstance(values, Mapping):
        return {key: with_variables(value, origins, (*path, str(key))) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [with_variables(value, origins, (*path, str(place))) for place, value in enumerate(values)]
    if not isinstance(values, str):
        return values
    if path in origins and origins[path].value == values:
        return origins[path].text
    for name in {name for one in origins.values() for name in one.names}:
        content = os.environ.get(name, "")
        if len(content) >= _LEAST_CHARACTERS:
            values = values.replace(content, f"${{oc.env:{name}}}")
    return values


def variables_line(origins: Origins) -> str:
    """A comment for a file of settings: a short hash of each variable, by which a later start notices a new value."""
    words = (f"{name}={digest}" for name, digest in variable_hashes(origins).items())
    return f"{_VARIABLES_LINE}{' '.join(words)}\n" if origins else ""


def variable_hashes(origins: Origins) -> dict[str, str]:
    """A short hash of the content of each variable."""
    return {name: _short_hash(name) for name in sorted({name for one in origins.values() for name in one.names})}


def written_values(text: str) -> Any:
    """The values of a file of settings that `with_variables` wrote; ValueError as `plain_values` and `load_yaml`."""
    from omegaconf import OmegaConf

    values = load_yaml(text)
    line = next((line for line in text.splitlines() if line.startswith(_VARIABLES_LINE)), "")
    hashes = dict(word.split("=", 1) for word in line.removeprefix(_VARIABLES_LINE).split() if "=" in word)
    changed = [name for name, digest in hashes.items() if _short_hash(name) != digest]
    return plain_values(OmegaConf.create(values), changed=changed) if isinstance(values, dict) and hashes else values


@contextmanager
def _environment(changed: Collection[str]) -> Iterator[list[str]]:
    """OmegaConf reads allowed variables only; the list gets the names of those that are set."""
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    used: list[str] = []

    def read(name: str, *default: Any) -> Any:
        allowed = [one.strip() for one in os.environ.get(ALLOW_VARIABLES, "").split(",")]
        if not _ALLOWED_VARIABLE.fullmatch(name) and name not in allowed:
            raise ValueError(
                f"a recipe may not read the environment variable '{name}'. If the recipe is yours, set "
                f"{ALLOW_VARIABLES}={name}."
            )
        if name in os.environ:
            used.append(name)
        return f"(another value of {name})" if name in changed else oc.env(name, *default)

    # OmegaConf 2.4 renames the function to a name that older versions use for another one.
    is_new = "replace" in inspect.signature(getattr(OmegaConf, "register_resolver", oc.env)).parameters
    register: Any = getattr(OmegaConf, "register_resolver" if is_new else "register_new_resolver")
    register("oc.env", read, replace=True)
    try:
        yield used
    finally:
        register("oc.env", oc.env, replace=True)


def _note_origins(config: Any, texts: Any, path: tuple[str, ...], used: list[str], origins: Origins) -> None:
    for key, text in texts.items() if isinstance(texts, dict) else enumerate(texts):
        place = (*path, str(key))
        if isinstance(text, dict | list):
            _note_origins(config[key], text, place, used, origins)
        elif isinstance(text, str) and "${" in text:
            used.clear()
            value = config[key]
            if used and isinstance(value, str):
                origins[place] = Origin(text, value, tuple(used))


def _short_hash(name: str) -> str:
    return hashlib.sha256(os.environ.get(name, "").encode()).hexdigest()[:8]
