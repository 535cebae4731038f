"""The catalogue of datasets: every `lavis_configs/datasets/<name>/defaults.yaml`, and those of one's own.

A dataset is one YAML file in LAVIS's layout. `build_info.prepare` says how it lies on disk and how it is split, `about`
where to get it, under which licence, and what its publisher counts. Folders named in `EMOVIT_DATASETS` (separated as in
`PATH`) are searched as well, so a dataset of one's own needs a file and no code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field

from lavis_emovit.errors import ConfigError, DataError
from lavis_emovit.registered import dataset_files
from lavis_emovit.settings import Settings, nearest_name, parse_settings
from lavis_emovit.sources.declaration import DeclaredBuildInfo
from lavis_emovit.sources.layouts import LayoutSettings

DATASET_NAME = re.compile(r"[A-Za-z0-9_-]+")


class PublishedCounts(Settings):
    """What the publisher, or the paper, says the dataset holds; `reference` says where that stands."""

    total: int | None = None
    splits: dict[str, int] = Field(default_factory=dict)
    labels: dict[str, int] = Field(default_factory=dict)
    groups: int | None = None
    reference: str = ""


class AboutSettings(Settings):
    """What a person must know about a dataset before using it.

    Attributes:
        where_to_get: one sentence: where it is to be had, and how its folder must look.
        licence: what its terms allow, or who must be asked.
        layout_status: `verified`, the layout was read on a real copy; `documented`, it is known from documentation and
            public code only, and nobody here has seen the files.
        layout_note: what is uncertain about it.
        published: counts to compare an import with.
    """

    where_to_get: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    layout_status: Literal["documented", "verified"]
    layout_note: str = ""
    published: PublishedCounts = PublishedCounts()


class DeclaredDataset(Settings):
    """One node `datasets.<name>`, as far as an import needs it; `datasets.settings.DatasetSettings` knows the rest.

    Attributes:
        about: what a person must know.
        build_info: where the shards lie, the layout and the splits.
    """

    about: AboutSettings
    build_info: DeclaredBuildInfo
    data_type: Literal["images"] = "images"
    # What only training and evaluation read: the keys are known here, their values are not looked at.
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
    """A dataset as its YAML declares it.

    Attributes:
        name: name of its folder and of its builder in LAVIS.
        path: the YAML file.
        layout: how it lies on disk.
        about: where to get it, its licence, its counts.
        fractions, split_seed, stratify: the splits that its settings ask for.
    """

    name: str
    path: Path
    layout: LayoutSettings
    about: AboutSettings
    fractions: dict[str, float] | None
    split_seed: int | None
    stratify: bool


def find_entry(name: str) -> CatalogueEntry | None:
    """A dataset by its name or by the path of its YAML file; None for one that is no published dataset.

    Raises:
        ConfigError: the file is not such a YAML; all that is wrong is told.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else dataset_files().get(name)
    return _read_entry(path) if path is not None else None


def known_names() -> list[str]:
    """Names of all datasets that `find_entry` gives an entry for."""
    return sorted(name for name, path in dataset_files().items() if _read_entry(path) is not None)


def unknown_dataset(name: str, also: list[str]) -> DataError:
    """The error for a name that is neither a dataset nor one of the general layouts `also`."""
    return DataError(f"unknown dataset '{name}'{nearest_name(name, [*known_names(), *also])}")


def _read_entry(path: Path) -> CatalogueEntry | None:
    try:
        content: Any = OmegaConf.load(path)
        node = content["datasets"]
        ((name, dataset),) = node.items()
        values: Any = OmegaConf.to_container(dataset, resolve=True)
        is_sketch = values["build_info"]["prepare"].get("source") == "sketch"
    except OSError as error:
        raise ConfigError([f"cannot be read ({error.strerror})"], str(path)) from None
    except (OmegaConfBaseException, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"not a dataset in LAVIS's layout, `datasets: <name>: build_info: prepare:` ({error})"
        raise ConfigError([problem], str(path)) from None
    except Exception as error:  # PyYAML's own errors share no base with the others
        raise ConfigError([f"not YAML ({error})"], str(path)) from None
    if is_sketch:
        return None
    problems = []
    if not DATASET_NAME.fullmatch(str(name)):
        problems.append(f"datasets: '{name}' is no name of a dataset; names are letters, digits, _ and -")
    # Without `about`, each of its keys is told as missing.
    declared, more = parse_settings(DeclaredDataset, {"about": {}, **values}, f"datasets.{name}")
    if problems or declared is None:
        raise ConfigError([*problems, *more], str(path))
    prepare = declared.build_info.prepare
    return CatalogueEntry(
        name=str(name),
        path=path,
        layout=prepare,
        about=declared.about,
        fractions=prepare.fractions.model_dump() if prepare.fractions is not None else None,
        split_seed=prepare.split_seed,
        stratify=prepare.stratify,
    )
