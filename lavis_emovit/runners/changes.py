"""Settings that differ between a run and the start that resumes it: refused unless `run.allow_changed` names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lavis_emovit.errors import ConfigError
from lavis_emovit.recipes import flatten
from lavis_emovit.runners.config import Config, identity_of
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import nearest_name

MISSING = "(not set)"

# Setting -> its value in the earlier run and now.
Changes = dict[str, tuple[Any, Any]]


def allowed_changes(place: str, before: Mapping[str, Any], config: Config, advice: str) -> Changes:
    """What differs between the settings of an earlier run (`before`) and a recipe.

    Args:
        place: of the earlier run, for the message.
        advice: what to do besides changing the recipe, for the message.

    Raises:
        ConfigError: a setting differs that `run.allow_changed` does not name, or `run.drop_samples` changes the order.
    """
    _check_order(place, before, config)
    changes = find_changes(before, config.to_dict())
    allowed = config.run.allow_changed
    refused = {key: values for key, values in changes.items() if not any(_is_in(key, name) for name in allowed)}
    if refused:
        # With other trained parts no run resumes: a checkpoint has only the trained weights.
        others = [key for key in refused if key != "model.trained_parts"]
        names = ",".join([*allowed, *others]) if others else ""
        raise ConfigError(
            [
                f"{place} belongs to a run with other settings. Restore its settings, "
                f"{f'allow the changes with run.allow_changed={names}, ' if names else ''}or {advice}. "
                f"Changed:{listed(refused)}"
            ],
            config.source,
        )
    return changes


def _check_order(place: str, before: Mapping[str, Any], config: Config) -> None:
    """ConfigError if only one of the two draws by ratio, because of `run.drop_samples`: their orders differ.

    With several datasets, or with `run.epoch_size`, both do.
    """
    run, earlier = config.run, before.get("run") or {}
    trained = [name for name in config.datasets if run.trains_on(name)]
    if run.evaluate or len(trained) > 1 or run.epoch_size is not None or earlier.get("epoch_size") is not None:
        return
    if (run.drop_samples is None) != (earlier.get("drop_samples") is None):
        verb, fix = ("removed", "Restore it") if run.drop_samples is None else ("added", "Remove it")
        raise ConfigError(
            [
                f"run.drop_samples: {place} belongs to a run of one dataset without run.epoch_size, in which it cannot "
                f"be {verb}: the images would come in another order. {fix}, or start a new run from the weights of "
                "that one: another run.output_dir, model.load_finetuned=true and model.finetuned=<its checkpoint>."
            ],
            config.source,
        )


def find_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """What differs among the settings that decide what a run computes; `run.init_lr` -> (0.001, 0.002).

    A setting of `run` that is missing in one of the two, because an older version wrote it, has its default.
    """
    old, new = {**_defaults(), **identity_of(before)}, {**_defaults(), **identity_of(now)}
    return {
        key: (old.get(key, MISSING), new.get(key, MISSING))
        for key in sorted(old.keys() | new.keys())
        if old.get(key, MISSING) != new.get(key, MISSING)
    }


def _defaults() -> dict[str, Any]:
    least = RunSettings.model_validate({"output_dir": "none", "evaluate": True}).model_dump(mode="json")
    return identity_of({"run": {key: value for key, value in least.items() if key not in ("output_dir", "evaluate")}})


def _is_in(key: str, node: str) -> bool:
    """Whether a setting is a node or below it."""
    return key == node or key.startswith(f"{node}.")


def unknown_names(allowed: Sequence[str], *trees: Mapping[str, Any]) -> list[str]:
    """A line for each allowed name that is not in any of the trees."""
    keys = sorted({key for tree in trees for key in flatten(tree)})
    return [
        f"run.allow_changed: no setting '{name}'{nearest_name(name, keys)}"
        for name in allowed
        if not any(_is_in(key, name) for key in keys)
    ]


def listed(changes: Changes) -> str:
    """A line for each change: `run.init_lr: 0.001 -> 0.002`."""
    return "".join(f"\n      {key}: {old} -> {new}" for key, (old, new) in changes.items())
