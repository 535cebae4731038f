"""What a path is: shards, a published dataset, records, a saved dataset, tables, or a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.files import load_json
from lavis_emovit.records import find_image_root
from lavis_emovit.sources.base import LAYOUTS, SPLIT_NAMES
from lavis_emovit.sources.layouts import LayoutSettings
from lavis_emovit.sources.proposals.folders import propose_folder
from lavis_emovit.sources.proposals.proposal import Proposal, split_in_path, typed
from lavis_emovit.sources.proposals.records import propose_records
from lavis_emovit.sources.proposals.saved import propose_saved
from lavis_emovit.sources.proposals.tables import image_columns, propose_table
from lavis_emovit.sources.readers.huggingface import is_saved

# Layouts of single datasets that their files or folders identify -> what their records answer.
_PUBLISHED = {
    "emoset": "emotion",
    "affectnet": "emotion",
    "ck_plus": "emotion",
    "aff_wild2": "emotion",
    "emotic": "valence_arousal",
}
_TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt", ".json"}
_MAX_TABLES = 200


def propose(path: Path, given: dict[str, Any], labels: str | None) -> Proposal:
    """How to read the data at a path.

    Args:
        path: a folder, or the file of a table or of records.
        given: settings of the layout that the user chose, such as `pattern` or `columns`.
        labels: the label set that the user chose.

    Raises:
        DataError: nothing there can be used; says what is needed.
    """
    if path.is_file():
        if _is_records(path):
            return propose_records(path, find_image_root(path))
        return propose_table([path], path.parent, given, labels)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder or file")
    if is_saved(path):
        return propose_saved(path, given, labels)
    for layout, kind in _PUBLISHED.items():
        if LAYOUTS[layout](path, source=layout).is_present():
            reasons = [f"layout: the published files of {layout}"]
            return Proposal(layout, path.resolve(), dict(given), kind=kind, reasons=reasons)
    tables = [] if "pattern" in given else _tables_of(path)
    if tables:
        return propose_table(tables, path, given, labels)
    return propose_folder(path, given, labels)


def check_proposal(proposal: Proposal) -> LayoutSettings:
    """The typed layout of a proposal; ConfigError with all wrong settings, which the user gave with --set."""
    return typed(LayoutSettings, proposal.layout())


def _is_records(path: Path) -> bool:
    if path.suffix.lower() != ".jsonl":
        return False
    with path.open("rb") as file:
        line = file.readline()
    try:
        return {"id", "image", "split", "source"} <= set(load_json(line))
    except (ValueError, TypeError):
        return False


def _tables_of(folder: Path) -> Sequence[Path]:
    """The table of a folder that names its images, or one for each split; none if there is no such table."""
    places = [folder, *(one for one in sorted(folder.iterdir()) if one.is_dir() and not one.name.startswith("."))]
    found = []
    for place in places[:_MAX_TABLES]:
        is_inside = place == folder or place.name.casefold() in SPLIT_NAMES or place.name == "data"
        for file in sorted(place.iterdir()) if is_inside else ():
            is_table = file.suffix.lower() in _TABLES and file.is_file() and not file.name.startswith(".")
            if is_table and not file.name.endswith(".summary.json") and image_columns(file, place):
                found.append(file)
    splits = [split_in_path(PurePosixPath(file.relative_to(folder).as_posix())) for file in found]
    if len(found) > 1 and None in splits:
        listed = ", ".join(str(file) for file in found)
        raise DataError(f"{folder}: contains several tables with images ({listed}); pass one of them")
    return found
