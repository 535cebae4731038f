"""The one list of layouts: how a published dataset lies on disk, as settings, and the reader of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.action_units import ActionUnitSettings, read_action_units
from lavis_emovit.sources.aff_wild2 import AffWild2Settings, read_aff_wild2
from lavis_emovit.sources.affectnet import AffectNetSettings, read_affectnet
from lavis_emovit.sources.ck_plus import CkPlusSettings, read_ck_plus
from lavis_emovit.sources.conversations import ConversationSettings, read_conversations
from lavis_emovit.sources.emoset import EMOSET_SPLITS, read_emoset
from lavis_emovit.sources.emotic import EmoticSettings, read_emotic
from lavis_emovit.sources.folder import FolderSettings, read_folder
from lavis_emovit.sources.problems import Notes
from lavis_emovit.sources.table import TableSettings, extracts_pictures, read_tables

LayoutName = Literal[
    "emoset", "table", "folder", "conversations", "ck_plus", "action_units", "aff_wild2", "affectnet", "emotic"
]


class LayoutSettings(Settings):
    """How a dataset lies on disk: `source` names the layout, the node of that name says the rest.

    Attributes:
        alternatives: other layouts that the dataset is also published in; the first one whose files are there is read.
    """

    source: LayoutName
    table: TableSettings = TableSettings()
    folder: FolderSettings = FolderSettings()
    conversations: ConversationSettings = ConversationSettings()
    ck_plus: CkPlusSettings = CkPlusSettings()
    action_units: ActionUnitSettings = ActionUnitSettings()
    aff_wild2: AffWild2Settings = AffWild2Settings()
    affectnet: AffectNetSettings = AffectNetSettings()
    emotic: EmoticSettings = EmoticSettings()
    alternatives: tuple[LayoutSettings, ...] = Field(default=(), max_length=4)

    @model_validator(mode="after")
    def _nodes_fit_the_source(self) -> LayoutSettings:
        for name in LAYOUT_NODES:
            if name in self.model_fields_set and self.source != name:
                raise ValueError(f"`{name}` belongs to source '{name}', this one is '{self.source}'")
        return self


LAYOUT_NODES = ("table", "folder", "conversations", "ck_plus", "action_units", "aff_wild2", "affectnet", "emotic")


@dataclass(frozen=True)
class OpenDataset:
    """A dataset that is being read: its records, as they are asked for, and where their picture paths start."""

    records: Iterator[EmotionRecord]
    image_root: Path


def open_dataset(
    root: str | os.PathLike[str],
    layout: LayoutSettings,
    *,
    source: str,
    notes: Notes | None = None,
    extract_to: str | os.PathLike[str] | None = None,
    splits: tuple[str, ...] = EMOSET_SPLITS,
) -> OpenDataset:
    """Start to read a dataset in one of its layouts.

    Args:
        root: folder of the dataset as it was unpacked.
        layout: how it lies there.
        source: name of the dataset, also the first part of each record's id.
        notes: where is noted what the reader leaves out.
        extract_to: folder for the pictures of a dataset that holds them in its tables.
        splits: the lists to read of a dataset in EmoSet's layout.

    Raises:
        DataError: the folder or its files are missing (at once), or what the reader says while it goes.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder of the dataset as it was unpacked")
    layout = present_layout(root, layout)
    notes = notes if notes is not None else Notes()
    if layout.source == "table":
        inside = extracts_pictures(root, layout.table)
        records = read_tables(root, layout.table, source=source, notes=notes, extract_to=extract_to)
        return OpenDataset(records, Path(extract_to) if inside and extract_to is not None else root)
    if layout.source == "emoset":
        return OpenDataset(read_emoset(root, source=source, splits=splits), root)
    readers: dict[str, Any] = {
        "folder": read_folder,
        "conversations": read_conversations,
        "ck_plus": read_ck_plus,
        "action_units": read_action_units,
        "aff_wild2": read_aff_wild2,
        "affectnet": read_affectnet,
        "emotic": read_emotic,
    }
    settings = getattr(layout, layout.source)
    return OpenDataset(readers[layout.source](root, settings, source=source, notes=notes), root)


def present_layout(root: Path, layout: LayoutSettings) -> LayoutSettings:
    """The layout, or the first of its alternatives whose files are there; the layout itself where none are."""
    for candidate in (layout, *layout.alternatives):
        if _is_present(root, candidate):
            return candidate
    return layout


def list_files(root: Path, layout: LayoutSettings) -> list[Path]:
    """The files that say what the dataset holds, for a fingerprint of it; none for a layout of folders only."""
    return _files_of(root, present_layout(root, layout))


def _files_of(root: Path, layout: LayoutSettings) -> list[Path]:
    if layout.source == "table":
        return [root / table.path for table in layout.table.tables()]
    if layout.source == "emoset":
        return [root / f"{split}.json" for split in EMOSET_SPLITS]
    if layout.source == "conversations":
        return [root / layout.conversations.file]
    if layout.source == "emotic":
        return [root / layout.emotic.annotations]
    return []


def _is_present(root: Path, layout: LayoutSettings) -> bool:
    files = _files_of(root, layout)
    if files:
        return all(path.is_file() for path in files)
    if layout.source == "folder":
        start = root / layout.folder.start()
        return start.is_dir() and any(start.iterdir())
    if layout.source == "ck_plus":
        return (root / layout.ck_plus.emotions).is_dir()
    if layout.source == "affectnet":
        return all((root / folder).is_dir() for folder in layout.affectnet.folders)
    if layout.source == "aff_wild2":
        return (root / layout.aff_wild2.annotations).is_dir()
    return True
