"""Settings that differ between a run and the start that would go on with it: listed, and refused unless allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lavis_emovit.runners.config import flatten, identity_of
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import nearest_name

ABSENT = "(not set)"

# Setting -> its value in the earlier run and now.
Changes = dict[str, tuple[Any, Any]]


def find_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """What differs of the settings that decide what a run computes; `run.init_lr` -> (0.001, 0.002).

    A setting of `run` that the earlier run does not know, because an older version wrote it, had its default then.
    """
    old, new = {**_defaults(), **identity_of(before)}, {**_defaults(), **identity_of(now)}
    return {
        key: (old.get(key, ABSENT), new.get(key, ABSENT))
        for key in sorted(old.keys() | new.keys())
        if old.get(key, ABSENT) != new.get(key, ABSENT)
    }


def _defaults() -> dict[str, Any]:
    """Defaults of the settings of `run` that decide what a run computes, as they are written down."""
    least = RunSettings.model_validate({"output_dir": "none", "evaluate": True}).model_dump(mode="json")
    return identity_of({"run": {key: value for key, value in least.items() if key not in ("output_dir", "evaluate")}})


def refused_changes(changes: Changes, allowed: Sequence[str]) -> Changes:
    """Those changes that neither their own name nor that of a node above them allows."""
    return {
        key: values
        for key, values in changes.items()
        if not any(key == name or key.startswith(f"{name}.") for name in allowed)
    }


def unknown_names(allowed: Sequence[str], *trees: Mapping[str, Any]) -> list[str]:
    """A line for each allowed name that is neither a setting nor a node of any of the trees."""
    keys = sorted({key for tree in trees for key in flatten(tree)})
    return [
        f"run.allow_changed: no setting '{name}'{nearest_name(name, keys)}"
        for name in allowed
        if not any(key == name or key.startswith(f"{name}.") for key in keys)
    ]


def listed(changes: Changes) -> str:
    """A line for each change: `run.init_lr: 0.001 -> 0.002`."""
    return "".join(f"\n      {key}: {old} -> {new}" for key, (old, new) in changes.items())


def how_to_allow(changes: Changes) -> str:
    """The option that allows them all."""
    return f"run.allow_changed={','.join(changes)}"
