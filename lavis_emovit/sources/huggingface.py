"""Records of a Hugging Face `datasets` object, or of one that `save_to_disk` wrote. Nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.embedded import PictureFolder
from lavis_emovit.sources.problems import Notes
from lavis_emovit.sources.table import records_from_rows
from lavis_emovit.sources.table_files import Row, check_columns
from lavis_emovit.sources.table_settings import TableSettings

# Columns that are added to the rows.
_SPLIT, _ID = "split of the dataset", "number of the row"
_SPLIT_NAMES = {"validation": "val", "valid": "val", "dev": "val"}


def read_huggingface(
    dataset: Any,
    settings: TableSettings,
    *,
    source: str,
    extract_to: str | os.PathLike[str],
    notes: Notes | None = None,
) -> Iterator[EmotionRecord]:
    """Records of a `datasets.Dataset` or `datasets.DatasetDict`, pictures written below `extract_to/pictures`.

    Class numbers become the names that the dataset's features give them; without a label set, those names spell one
    out. A split called `validation` becomes `val`.

    Args:
        dataset: the object, or the folder of one.
        settings: which column is which field; `image` is a column of pictures, or of paths below `extract_to`.
        source: name of the dataset, also the first part of each id.
        extract_to: folder that the records' picture paths start from.
        notes: where rows that are left out are counted.

    Raises:
        DataError: not such an object, columns that are missing, or rows that cannot be used.
    """
    if isinstance(dataset, (str, os.PathLike)):
        dataset = _load(Path(dataset))
    parts = dict(dataset) if hasattr(dataset, "keys") else {None: dataset}
    for part in parts.values():
        if not hasattr(part, "features") or not hasattr(part, "__len__"):
            raise DataError(f"expected a datasets.Dataset or DatasetDict, got {type(part).__name__}")
        check_columns(Path(source), list(part.features), settings.named())
    emotion = settings.columns.emotion
    names = None
    if emotion is not None:
        names = getattr(next(iter(parts.values())).features[emotion], "names", None)
        if settings.label_set is None:
            if not names:
                raise DataError(f"column '{emotion}' has no class names; say which label set its values come from")
            spelt = f"labels:{', '.join(name.replace('_', ' ') for name in names)}"
            settings = settings.model_copy(update={"label_set": get_label_set(spelt).name})
    made = {
        "split": settings.columns.split or (_SPLIT if None not in parts else None),
        "id": settings.columns.id or _ID,
    }
    settings = settings.model_copy(update={"columns": settings.columns.model_copy(update=made)})
    pictures = PictureFolder(Path(extract_to))
    rows = _rows(parts, settings, names)
    return records_from_rows(
        rows, settings, source=source, root=Path(extract_to), place=source, notes=notes, pictures=pictures
    )


def _rows(parts: dict[Any, Any], settings: TableSettings, names: list[str] | None) -> Iterator[tuple[str, Row | str]]:
    columns = settings.columns
    for split, part in parts.items():
        reading = _undecoded(part, columns.image)
        for number, row in enumerate(reading):
            row = dict(row)
            if names is not None and columns.emotion is not None and isinstance(row[columns.emotion], int):
                code = row[columns.emotion]
                row[columns.emotion] = names[code] if 0 <= code < len(names) else str(code)
            place = f"{split}, row {number}" if split is not None else f"row {number}"
            if split is not None:
                row.setdefault(_SPLIT, _SPLIT_NAMES.get(str(split), str(split)))
            row[_ID] = f"{split}_{number:07d}" if split is not None else f"{number:07d}"
            yield place, row


def _undecoded(part: Any, column: str) -> Any:
    """The dataset with its pictures as bytes, so that files come out as they went in."""
    feature = part.features[column]
    if type(feature).__name__ == "Image" and hasattr(part, "cast_column"):
        return part.cast_column(column, type(feature)(decode=False))
    return part


def _load(path: Path) -> Any:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; expected one that `save_to_disk` wrote")
    try:
        import datasets
    except ImportError:
        raise DataError(f"{path}: needs the package datasets: pip install 'lavis-emovit[tables]'") from None
    try:
        return datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"{path}: not a dataset that `save_to_disk` wrote ({str(error).splitlines()[0]})") from None
