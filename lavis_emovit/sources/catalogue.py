"""The catalogue of datasets: every `lavis_configs/datasets/<name>/defaults.yaml`, and custom ones.

A dataset is one YAML file in LAVIS's layout. `build_info.prepare` has its layout on disk and its splits, `about` where
to get it, its licence and its published counts. Custom datasets are found in the folders in `EMOVIT_DATASETS`
(separated as in `PATH`); they need no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, model_validator

from lavis_emovit.errors import ConfigError
from lavis_emovit.files import regular_file
from lavis_emovit.progress import progress
from lavis_emovit.records import EmotionRecord, RecordStore
from lavis_emovit.registered import dataset_files
from lavis_emovit.settings import Settings, parse_settings, plain_values
from lavis_emovit.sources.layouts import LayoutSettings
from lavis_emovit.sources.split_lists import SplitList, split_by_lists
from lavis_emovit.sources.splits import resplit, split_by_fold
from lavis_emovit.sources.statistics import PublishedCounts

if TYPE_CHECKING:
    from lavis_emovit.sources.checks import ImageFacts

DATASET_NAME = re.compile(r"[A-Za-z0-9_-]+")
DRAWN = ("sketch", "clip_sketch")
"""Sources that are drawn, not published."""


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
    # New splits also keep images together whose perceptual hashes differ in at most this many bits of 64, as
    # `emovit data split --near`; null: images are not compared.
    near_bits: int | None = Field(default=None, ge=0, le=16)
    # Of a dataset with folds, which records have as `extra.fold`: the one that is tested; all others are for training.
    test_fold: int | None = None
    # Split -> file that lists its images, for official splits; instead of new ones.
    split_lists: dict[str, SplitList] | None = None
    skip_bad: bool = False  # skip images that cannot be opened, instead of refusing them
    # draw, instructions, shards: how shards are built; an import does not check them.
    draw: Any = None
    instructions: Any = None
    shards: Any = None

    @model_validator(mode="after")
    def _splits_fit_together(self) -> DeclaredPreparation:
        if self.split_seed is not None and self.fractions is None:
            raise ValueError("`split_seed` draws new splits, so `fractions` must give their sizes")
        if self.split_lists is not None and not set(self.split_lists) <= {"train", "val", "test"}:
            raise ValueError(f"`split_lists` has files for train, val and test, not {', '.join(self.split_lists)}")
        if self.split_lists is not None and not self.split_lists:
            raise ValueError("`split_lists` names no file; remove it to keep the other splits")
        if self.stratify and self.split_seed is None:
            raise ValueError("`stratify` applies to new splits, so it needs `split_seed`")
        if self.test_fold is not None and self.redraws_splits:
            raise ValueError("`test_fold` gives the splits, so remove `split_seed` and `split_lists`")
        if self.near_bits is not None and self.fractions is None:
            raise ValueError("`near_bits` applies to new splits, so it needs `fractions`")
        return self

    @property
    def redraws_splits(self) -> bool:
        """Whether the splits of the layout itself do not matter."""
        return self.split_seed is not None or self.split_lists is not None

    def resplit(
        self,
        records: Iterable[EmotionRecord],
        image_root: Path,
        facts: Mapping[str, ImageFacts] | None = None,
        *,
        root: Path | None = None,
    ) -> Sequence[EmotionRecord]:
        """The records with the splits of these settings; `facts` of the images, if they are known, by their path.

        `split_lists` are below `root`, the folder of the dataset, or else `image_root`.
        """
        if self.test_fold is not None:
            records = split_by_fold(records, self.test_fold)
        if self.split_lists is not None:
            lists = {split: file.below(root or image_root) for split, file in self.split_lists.items()}
            return split_by_lists(records, lists, skip_missing=self.skip_bad)
        fractions = self.fractions.model_dump() if self.fractions is not None else None
        joined = None
        if self.near_bits is not None:
            # Loads numpy, which listing the catalogue does not need.
            from lavis_emovit.sources.checks import CheckedFile, num_decoders
            from lavis_emovit.sources.duplicates import join_groups

            records = records if isinstance(records, Sequence) else RecordStore(records)
            file = CheckedFile("", records, image_root)
            with progress("comparing images", every=1000) as line:
                joined, _ = join_groups(file, self.near_bits, num_decoders(len(records)), line.update, facts)
        return resplit(records, fractions, self.split_seed, self.stratify, joined)


class DeclaredBuildInfo(Settings):
    """Where the shards of a dataset are, and how they are built."""

    annotations: SplitSettings
    images: StorageSettings
    prepare: DeclaredPreparation | None = None  # null: the shards exist


class AboutSettings(Settings):
    """What a user must know about a dataset before using it."""

    where_to_get: str = Field(min_length=1)  # one sentence: where to get it, and the expected contents of its folder
    licence: str = Field(min_length=1)  # what its terms allow, or whom to ask
    # `verified` with a real copy, or `documented`: known only from documentation and public code.
    layout_status: Literal["documented", "verified"]
    layout_note: str = ""  # what is uncertain about it
    published: PublishedCounts = PublishedCounts()  # counts to compare an import with


class DeclaredDataset(Settings):
    """One node `datasets.<name>`, as far as an import needs it; `datasets.settings.DatasetSettings` has the rest."""

    about: AboutSettings
    build_info: DeclaredBuildInfo
    data_type: Literal["images"] = "images"
    # Keys that only training and evaluation read; their values are not checked here.
    type: Any = None
    vis_processor: Any = None
    text_processor: Any = None
    kinds: Any = None
    max_pairs: Any = None
    label_set: Any = None
    eval_wording: Any = None
    seed: Any = None
    verify_hashes: Any = None
    faults: Any = None
    window_shards: Any = None
    length_buckets: Any = None
    share: Any = None
    share_seed: Any = None


@dataclass(frozen=True)
class CatalogueEntry:
    """A dataset as its YAML declares it; LAVIS has a builder of the same name."""

    name: str
    path: Path
    layout: DeclaredPreparation
    about: AboutSettings


def find_entry(name: str) -> CatalogueEntry | None:
    """A dataset by its name or YAML file, or None if there is nothing to import: it is drawn, or only has shards.

    ConfigError lists all problems of the file.
    """
    if name.endswith((".yaml", ".yml")):
        return _read_entry(Path(name))
    path = dataset_files().get(name)
    return _declared_entry(name, path) if path is not None else None


def all_entries() -> tuple[dict[str, CatalogueEntry], list[str]]:
    """Name -> entry of every published dataset, sorted by name, and the problems of files that cannot be read."""
    entries: dict[str, CatalogueEntry] = {}
    problems: list[str] = []
    for name, path in sorted(dataset_files().items()):
        try:
            entry = _declared_entry(name, path)
        except ConfigError as error:
            problems += [f"{path}: {problem}" for problem in error.problems]
            continue
        if entry is not None:
            entries[name] = entry
    return entries, problems


def _declared_entry(name: str, path: Path) -> CatalogueEntry | None:
    entry = _read_entry(path)
    if entry is not None and entry.name != name:
        problem = f"the dataset is called '{entry.name}' and its folder '{name}'; both need the same name"
        raise ConfigError([problem], str(path))
    return entry


def _read_entry(path: Path) -> CatalogueEntry | None:
    try:
        content: Any = OmegaConf.load(regular_file(path))
        node = content["datasets"]
        ((name, dataset),) = node.items()
        values = plain_values(dataset)
        prepare = (values.get("build_info") or {}).get("prepare") or {}
        is_drawn = prepare.get("source") in DRAWN
    except OSError as error:
        raise ConfigError([f"cannot be read ({error.strerror})"], str(path)) from None
    except (OmegaConfBaseException, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"not a dataset in LAVIS's layout, `datasets: <name>: build_info: prepare:` ({error})"
        raise ConfigError([problem], str(path)) from None
    except Exception as error:  # PyYAML's own errors share no base with the others
        raise ConfigError([f"not YAML ({error})"], str(path)) from None
    if is_drawn:
        return None
    problems = []
    if not DATASET_NAME.fullmatch(str(name)):
        problems.append(f"datasets: '{name}' is not a valid name; a name consists of letters, digits, _ and -")
    # With an empty `about`, each of its missing keys is reported separately.
    declared, more = parse_settings(DeclaredDataset, {"about": {}, **values}, f"datasets.{name}")
    if problems or declared is None:
        raise ConfigError([*problems, *more], str(path))
    if declared.build_info.prepare is None:
        return None
    return CatalogueEntry(str(name), path, declared.build_info.prepare, declared.about)
