"""The node `build_info` of a dataset's YAML: paths, splits, layout. It can be checked without LAVIS.

`lavis_emovit.datasets.settings` has the whole node `datasets.<name>` and builds on these classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field, model_validator

from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.layouts import LayoutSettings
from lavis_emovit.sources.splits import resplit


class StorageSettings(Settings):
    """A path, relative to the data folder (`EMOVIT_DATA`, or `data` in the working directory)."""

    storage: str = Field(min_length=1)


class SplitSettings(Settings):
    """The shard index of every split of the dataset."""

    train: StorageSettings | None = None
    val: StorageSettings | None = None
    test: StorageSettings | None = None

    def indexes(self) -> dict[str, str]:
        """Split -> storage of its index."""
        found = {"train": self.train, "val": self.val, "test": self.test}
        return {name: place.storage for name, place in found.items() if place is not None}


class FractionSettings(Settings):
    """Share of the groups (people, sessions) in each split."""

    train: float = Field(ge=0.0, le=1.0)
    val: float = Field(default=0.0, ge=0.0, le=1.0)
    test: float = Field(default=0.0, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _sum_is_one(self) -> FractionSettings:
        total = self.train + self.val + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"train, val and test must sum to 1, they sum to {total:g}")
        return self


class DeclaredPreparation(LayoutSettings):
    """The layout of a published dataset, and its splits."""

    # Folder of the published dataset, relative to the working directory; `emovit data import` ignores it.
    root: str | None = None
    split_seed: int | None = None  # draw new splits, group by group, with this seed; null: keep the published splits
    # Shares of the splits. Without `split_seed`, `val` is held out of `train` if it is not published.
    fractions: FractionSettings | None = None
    stratify: bool = False  # give every new split its share of every label
    skip_bad: bool = False  # skip images that cannot be opened, instead of refusing them
    # draw, instructions, shards: how shards are built; an import does not check them.
    draw: Any = None
    instructions: Any = None
    shards: Any = None

    @model_validator(mode="after")
    def _splits_fit_together(self) -> DeclaredPreparation:
        if self.split_seed is not None and self.fractions is None:
            raise ValueError("`split_seed` draws new splits, so `fractions` must give their sizes")
        if self.stratify and self.split_seed is None:
            raise ValueError("`stratify` applies to new splits, so it needs `split_seed`")
        return self

    def resplit(self, records: Iterable[EmotionRecord]) -> Iterable[EmotionRecord]:
        """The records with the splits of these settings."""
        fractions = self.fractions.model_dump() if self.fractions is not None else None
        return resplit(records, fractions, self.split_seed, self.stratify)


class DeclaredBuildInfo(Settings):
    """Where the shards of a dataset are, and how they are built."""

    annotations: SplitSettings
    images: StorageSettings
    prepare: DeclaredPreparation
