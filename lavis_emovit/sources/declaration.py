"""What a dataset's YAML says under `build_info`, as far as it can be checked without LAVIS: places, splits, layout.

The whole node `datasets.<name>` belongs to `lavis_emovit.datasets.settings`, which builds on these classes.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from lavis_emovit.settings import Settings
from lavis_emovit.sources.layouts import LayoutSettings


class StorageSettings(Settings):
    """A path; a relative one starts at the data folder (`EMOVIT_DATA`, or `data` under the working directory)."""

    storage: str = Field(min_length=1)


class SplitSettings(Settings):
    """The shard index of every split that the dataset has."""

    train: StorageSettings | None = None
    val: StorageSettings | None = None
    test: StorageSettings | None = None

    def indexes(self) -> dict[str, str]:
        """Split -> storage of its index, for the splits that there are."""
        found = {"train": self.train, "val": self.val, "test": self.test}
        return {name: place.storage for name, place in found.items() if place is not None}


class FractionSettings(Settings):
    """Share of the groups (people, sessions) that each split gets."""

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
    """The layout of a published dataset, and the splits that are drawn of it.

    Attributes:
        root: folder of the published dataset; a relative path starts at the working directory. An import is given its
            own.
        split_seed: draw new splits, group by group, with this seed; null keeps the dataset's own.
        fractions: shares of the splits. With the dataset's own splits, `val` is held out of `train` where it has none.
        stratify: give every new split its share of every label.
        skip_bad: leave pictures that cannot be opened out, instead of refusing them.
        draw, instructions, shards: for what makes shards; an import does not look into them.
    """

    root: str | None = None
    split_seed: int | None = None
    fractions: FractionSettings | None = None
    stratify: bool = False
    skip_bad: bool = False
    draw: Any = None
    instructions: Any = None
    shards: Any = None

    @model_validator(mode="after")
    def _splits_fit_together(self) -> DeclaredPreparation:
        if self.split_seed is not None and self.fractions is None:
            raise ValueError("`split_seed` draws new splits, so `fractions` must say how large they are")
        if self.stratify and self.split_seed is None:
            raise ValueError("`stratify` is a way to draw new splits, so it needs `split_seed`")
        return self


class DeclaredBuildInfo(Settings):
    """Where the shards of a dataset lie, and what they are made of."""

    annotations: SplitSettings
    images: StorageSettings
    prepare: DeclaredPreparation
