"""A proposal: how to read the user's data, and what there is to say about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from lavis_emovit.emotion.label_set import LabelSet
from lavis_emovit.errors import ConfigError
from lavis_emovit.settings import Settings, parse_settings
from lavis_emovit.sources.base import SPLIT_NAMES

SettingsT = TypeVar("SettingsT", bound=Settings)


@dataclass
class Proposal:
    """How to read a dataset.

    Attributes:
        source: name of the layout.
        root: the folder that the layout starts at, absolute.
        node: settings of the layout.
        kind: what the data answer: the label of an image, or its valence and arousal.
        labels: the label set of the emotions; None without labels.
        reasons: what was chosen and why, one sentence each.
        warnings: what the user should look at, one sentence each.
    """

    source: str
    root: Path
    node: dict[str, Any]
    kind: str = "emotion"
    labels: LabelSet | None = None
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def layout(self) -> dict[str, Any]:
        """The keys of `prepare` that describe the layout."""
        return {"source": self.source, **({self.source: self.node} if self.node else {})}


def typed(settings_class: type[SettingsT], values: Mapping[str, Any]) -> SettingsT:
    """Settings that the user gave with --set; ConfigError lists all problems."""
    settings, problems = parse_settings(settings_class, values, "--set")
    if settings is None:
        raise ConfigError(problems, "the command line")
    return settings


def split_in_path(path: PurePosixPath) -> str | None:
    """The name of a split in a path like `train-00000.parquet` or `validation/metadata.csv`; None without one."""
    words = [*re.split(r"[-_.]", path.name), *reversed(path.parts[:-1])]
    return next((word for word in words if word.casefold() in SPLIT_NAMES), None)


def split_names(found: Mapping[str, int]) -> dict[str, str] | None:
    """Name of a split -> ours, for names that are all splits; None if one is something else.

    Without a split called test, `val` becomes `test`: results are reported on images that no choice was made with.
    """
    names = {name: SPLIT_NAMES.get(name.strip().casefold()) for name in found}
    if not names or None in names.values():
        return None
    ours = {name: split for name, split in names.items() if split is not None}
    if "test" not in ours.values() and "train" in ours.values():
        ours = {name: "test" if split == "val" else split for name, split in ours.items()}
    return ours
