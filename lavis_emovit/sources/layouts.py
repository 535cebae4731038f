"""The layouts of published datasets, as settings and as readers; each is a module in `sources/readers/`."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, create_model, field_validator, model_validator

from lavis_emovit.errors import DataError
from lavis_emovit.files import file_sha256
from lavis_emovit.settings import Settings, nearest_name
from lavis_emovit.sources import readers
from lavis_emovit.sources.base import LAYOUTS, Reader

# Importing a reader registers it.
for _module in pkgutil.iter_modules(readers.__path__):
    importlib.import_module(f"{readers.__name__}.{_module.name}")

_fields: dict[str, Any] = {"source": (str, ...)}
for _name, _reader in LAYOUTS.items():
    if _reader.settings_class is not None:
        _fields[_name] = (_reader.settings_class, _reader.settings_class())
_Nodes: Any = create_model("_Nodes", __base__=Settings, **_fields)


class LayoutSettings(_Nodes):
    """The layout of a dataset: `source` is its name, and the key of that name has its settings."""

    other_sources: ClassVar[tuple[str, ...]] = ()
    # Other layouts in which the dataset is published; the first whose files are present is read.
    alternatives: tuple[LayoutSettings, ...] = Field(default=(), max_length=4)

    @field_validator("source")
    @classmethod
    def _source_is_known(cls, value: str) -> str:
        known = [*LAYOUTS, *cls.other_sources]
        if value not in known:
            raise ValueError(f"unknown layout{nearest_name(value, known)}")
        return value

    @model_validator(mode="after")
    def _nodes_fit_the_source(self) -> LayoutSettings:
        for name in self.model_fields_set & set(LAYOUTS) - {self.source}:
            raise ValueError(f"`{name}` belongs to source '{name}', this one is '{self.source}'")
        return self

    @property
    def node(self) -> Any:
        """The settings of the layout; None if it has none."""
        return getattr(self, self.source, None)

    def reader(self, root: Path, **options: Any) -> Reader:
        """A reader of a dataset in this layout; see `Reader` for the options."""
        return LAYOUTS[self.source](root, self.node, **options)


def open_dataset(root: str | os.PathLike[str], layout: LayoutSettings, **options: Any) -> Reader:
    """The reader of a dataset, in the first of its layouts that is present; see `Reader` for the options.

    DataError if there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; pass the folder of the unpacked dataset")
    return present_layout(root, layout).reader(root, **options)


def present_layout(root: Path, layout: LayoutSettings) -> LayoutSettings:
    """The layout, or the first of its alternatives whose files are present; if none is, the layout itself."""
    candidates = (layout, *layout.alternatives)
    return next((candidate for candidate in candidates if candidate.reader(root).is_present()), layout)


def list_files(root: Path, layout: LayoutSettings) -> list[Path]:
    """The files that describe the dataset; none for a layout of folders only."""
    return present_layout(root, layout).reader(root).files()


def fingerprint(root: Path, layout: LayoutSettings, also: Sequence[Path] = ()) -> str | None:
    """Hash of the files that describe the dataset, `also` of others, and of the paths and sizes of `Reader.listed`.

    None if there are no such files.
    """
    reader = present_layout(root, layout).reader(root)
    found: dict[str, str | int | None] = {
        (path.relative_to(root) if path.is_relative_to(root) else path).as_posix(): file_sha256(path)
        for path in (*reader.files(), *also)
        if path.is_file()
    }
    # Thousands of files: `Path.relative_to` takes longer than the file system.
    start = len(os.path.join(root, ""))  # noqa: PTH118
    found |= {str(path)[start:].replace(os.sep, "/"): _size_bytes(path) for path in reader.listed()}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest() if found else None


def annotation_fingerprint(root: Path, layout: LayoutSettings) -> str | None:
    """Hash of the paths and the content of `Reader.annotations`; None if there are none."""
    digest, is_empty = hashlib.sha256(), True
    start = len(os.path.join(root, ""))  # noqa: PTH118
    for path in present_layout(root, layout).reader(root).annotations():
        is_empty = False
        digest.update(f"{str(path)[start:].replace(os.sep, '/')}\0".encode())
        digest.update(bytes.fromhex(file_sha256(path)))
    return None if is_empty else digest.hexdigest()


def _size_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
