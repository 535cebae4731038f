"""Reader of a Hugging Face dataset: a `datasets` object, what `save_to_disk` wrote, or Parquet files of the hub.

Nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lavis_emovit.emotion.labels import CUSTOM_PREFIX, get_label_set, joined_labels
from lavis_emovit.errors import DataError, first_line
from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.base import Notes, read_json
from lavis_emovit.sources.readers.table import TableReader
from lavis_emovit.sources.table_files import Row, check_columns, open_parquet, parquet_rows, unused_columns
from lavis_emovit.sources.table_settings import TableFile, TableSettings

# Columns that are added to the rows.
_SPLIT, _ID = "split of the dataset", "number of the row"
_README = "README.md"
_SPLIT_NAMES = {"validation": "val", "valid": "val", "dev": "val"}


def read_huggingface(
    dataset: Any,
    settings: TableSettings,
    *,
    source: str,
    extract_to: str | os.PathLike[str],
    notes: Notes | None = None,
) -> Iterator[EmotionRecord]:
    """Records of a `datasets.Dataset` or `DatasetDict`, or of its folder; images go below `extract_to/pictures`.

    The column `image` has images, or paths below `extract_to`. DataError for another object, missing columns, or rows
    that cannot be used.
    """
    is_folder = isinstance(dataset, (str, os.PathLike))
    root = dataset if is_folder else extract_to
    reader = HuggingFaceReader(root, settings, source=source, extract_to=extract_to, notes=notes)
    reader.dataset = None if is_folder else dataset
    return reader.read()


class HuggingFaceReader(TableReader, layout="huggingface"):
    """Class numbers become the names in the dataset's features; without a label set, these names form one.

    A split called `validation` becomes `val`.
    """

    imported_from = "folder"
    dataset: Any = None

    def files(self) -> list[Path]:
        return sorted(self.root.rglob("state.json"))

    def listed(self) -> Iterator[Path]:
        if not is_saved(self.root):
            return iter(sorted(self.root.rglob("*.parquet")))
        # `datasets` caches the results of its methods here.
        return (path for path in self.root.rglob("*.arrow") if not path.name.startswith("cache-"))

    @property
    def place(self) -> Path:
        return Path(self.source)

    @property
    def image_root(self) -> Path:
        return self.extract_to if self.extract_to is not None else self.root

    @property
    def _extracts(self) -> bool:  # type: ignore[override]
        return True

    def check(self) -> None:
        if self.dataset is not None:
            dataset = self.dataset
        elif is_saved(self.root) or not any(self.root.rglob("*.parquet")):
            dataset = load_saved(self.root, self.notes)
        else:
            dataset = hub_parts(self.root)
        self._parts: dict[Any, Any] = dict(dataset) if hasattr(dataset, "keys") else {None: dataset}
        for part in self._parts.values():
            if not hasattr(part, "features") or not hasattr(part, "__len__"):
                raise DataError(f"expected a datasets.Dataset or DatasetDict, got {type(part).__name__}")
            check_columns(self.place, list(part.features), self.settings.named())
            self.notes.unused |= unused_columns(part.features, self.settings.named(), self.settings)
        changes: dict[str, Any] = {}
        emotion = self.settings.columns.emotion
        if emotion is not None and self.settings.label_set is None:
            # Parts may order their classes differently.
            found = dict.fromkeys(n for part in self._parts.values() for n in _class_names(part.features[emotion]))
            if not found:
                raise DataError(f"column '{emotion}' has no class names; pass the label set of its values")
            names = joined_labels(name.replace("_", " ") for name in found)
            changes["label_set"] = get_label_set(f"{CUSTOM_PREFIX}{names}").name
        added = {
            "split": self.settings.columns.split or (_SPLIT if None not in self._parts else None),
            "id": self.settings.columns.id or _ID,
        }
        changes["columns"] = self.settings.columns.model_copy(update=added)
        self.settings = self.settings.model_copy(update=changes)

    def rows(self) -> Iterator[tuple[str, Row | str, TableFile]]:
        columns, table = self.settings.columns, TableFile(path=self.source)
        for split, part in self._parts.items():
            names = {column: names for column in self._coded() if (names := _class_names(part.features[column]))}
            is_hub = isinstance(part, HubPart)
            items = part.rows(self.settings.named()) if is_hub else _undecoded(part, columns.image)
            for number, item in enumerate(items):
                row = dict(item)
                for column in names:
                    row[column] = _named(row[column], names[column])
                row[_ID] = f"{split}_{number:07d}" if split is not None else f"{number:07d}"
                if split is not None:
                    row.setdefault(_SPLIT, _SPLIT_NAMES.get(str(split), str(split)))
                yield f"{split}, row {number}" if split is not None else f"row {number}", row, table

    def _image_folders(self, table: TableFile) -> tuple[Path, ...]:
        # An object created from files has their paths until it is saved.
        return () if self.dataset is not None else super()._image_folders(table)

    def _coded(self) -> list[str]:
        """Columns whose class codes become names: labels and splits, and others if the names differ between parts."""
        columns, parts = self.settings.columns, list(self._parts.values())
        texts = {columns.emotion, columns.labels, columns.split}
        present = [name for name in self.settings.named() if all(name in part.features for part in parts)]
        names = {name: {tuple(_class_names(part.features[name])) for part in parts} for name in present}
        return [name for name in present if name in texts or len(names[name]) > 1]


def _class_names(feature: Any) -> list[str]:
    """Names behind the codes of a column of classes, or of lists of classes; none for other columns."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    return getattr(inner, "names", None) or []


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    if not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else str(value)


def _undecoded(part: Any, column: str) -> Any:
    """The dataset with its images as bytes, so that files stay byte for byte as they were, and with all columns."""
    if getattr(part, "format", {}).get("type", "custom") != "custom":
        part = part.with_format(None)
    feature = part.features[column]
    if type(feature).__name__ == "Image" and hasattr(part, "cast_column"):
        return part.cast_column(column, type(feature)(decode=False))
    return part


class HubPart:
    """A split in the Parquet files of the hub, read in place; `datasets` would copy them to its cache first."""

    def __init__(self, files: Sequence[Path]):
        import datasets

        self.files = files
        schemas = {path: open_parquet(path).read_schema(path) for path in files}
        first = schemas[files[0]]
        for path, schema in schemas.items():
            if schema.names != first.names:
                raise DataError(f"{path}: has other columns ({', '.join(schema.names)}) than {files[0]}")
        features = {path: datasets.Features.from_arrow_schema(schema) for path, schema in schemas.items()}
        self.features = features[files[0]]
        for path, of_file in features.items():
            # The codes of a file have the names of this file, and only one list of names is used.
            if other := [name for name in first.names if _class_names(of_file[name]) != self._names(name)]:
                listed = ", ".join(_class_names(of_file[other[0]])) or "none"
                raise DataError(
                    f"{path}: column '{other[0]}' has other class names ({listed}) than in {files[0]} "
                    f"({', '.join(self._names(other[0])) or 'none'}); import each file from a folder of its own"
                )

    def _names(self, column: str) -> list[str]:
        return _class_names(self.features[column])

    def __len__(self) -> int:
        return sum(open_parquet(path).read_metadata(path).num_rows for path in self.files)

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        for path in self.files:
            yield from parquet_rows(path, columns)


def hub_parts(root: Path) -> dict[str, HubPart]:
    """The splits of a folder that was downloaded from the hub: by its README, else by the names of files.

    DataError for several datasets.
    """
    try:
        from datasets.data_files import DataFilesDict, get_data_patterns
    except ImportError:
        raise _needs_datasets(root) from None
    listed = _listed_patterns(root)
    patterns = get_data_patterns(str(root)) if listed is None else listed
    try:
        found = DataFilesDict.from_patterns(patterns, base_path=str(root))
    except FileNotFoundError as error:
        raise DataError(f"{root / _README}: lists files that are not here ({first_line(error)})") from None
    files = {
        str(split): sorted(Path(name) for name in names if name.endswith(".parquet")) for split, names in found.items()
    }
    # A dataset of several configurations has the same splits in several folders.
    used = {path.resolve() for paths in files.values() for path in paths}
    left = sorted(path for path in root.rglob("*.parquet") if path.resolve() not in used)
    folders = {path.parent for paths in files.values() for path in paths}
    if left or (listed is None and any(len({path.parent for path in paths}) > 1 for paths in files.values())):
        names = ", ".join(sorted(str(path) for path in folders | {path.parent for path in left}))
        raise DataError(f"{root}: has Parquet files of several datasets ({names}); import one of these folders")
    return {split: HubPart(paths) for split, paths in files.items() if paths}


def _listed_patterns(root: Path) -> dict[str, Any] | None:
    """Split -> patterns of files, as the dataset's README lists them; None without a list. DataError for several."""
    from datasets.data_files import sanitize_patterns
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    path = root / _README
    if not path.is_file():
        return None
    try:
        configs = MetadataConfigs.from_dataset_card_data(DatasetCard.load(path).data)
        listed = {name: sanitize_patterns(one["data_files"]) for name, one in configs.items() if "data_files" in one}
    except Exception as error:  # whatever YAML and the two packages raise
        raise DataError(f"{path}: the list of its files cannot be read ({first_line(error)}); correct it") from None
    if len(listed) > 1:
        raise DataError(
            f"{path}: lists several datasets ({', '.join(listed)}); pass a folder with the files of one alone"
        )
    return next(iter(listed.values()), None)


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def load_saved(path: Path, notes: Notes | None = None) -> Any:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; expected one that `save_to_disk` wrote, or the hub's Parquet files")
    try:
        import datasets
    except ImportError:
        raise _needs_datasets(path) from None
    try:
        # `datasets` saves a split without rows, but cannot load it.
        listing = path / "dataset_dict.json"
        parts = read_json(listing, dict)["splits"] if listing.is_file() else [""]
        empty = [part for part in parts if _is_empty(path / part)]
        if not empty:
            return datasets.load_from_disk(str(path))
        kept = {part: datasets.load_from_disk(str(path / part)) for part in parts if part not in empty}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path}: not a dataset that `save_to_disk` wrote ({first_line(error)})") from None
    if not kept:
        raise DataError(f"{path}: has no rows")
    if notes is not None:
        notes.add(f"splits without rows: {', '.join(empty)}", expected=True)
    return datasets.DatasetDict(kept)


def _needs_datasets(path: Path) -> DataError:
    return DataError(f"{path}: needs the package datasets: pip install 'lavis-emovit[tables]'")


def _is_empty(part: Path) -> bool:
    return (part / "state.json").is_file() and read_json(part / "state.json", dict).get("_data_files") == []
