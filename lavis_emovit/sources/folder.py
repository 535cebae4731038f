"""Reader of pictures whose paths say what they show: a folder for each class, a prefix in the file name, ..."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field, field_validator

from lavis_emovit.emotion.labels import LabelSetName, coarser_label, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.settings import Settings
from lavis_emovit.sources.problems import Notes, Problems

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
_FIELDS = ("label", "split", "group", "name")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)(\*?)\}")
_REMEDY = "Rename or remove these folders, or name their label in `label_names` (null leaves it out)."


class FolderSettings(Settings):
    """Where a picture's path says what.

    Attributes:
        pattern: path below the root, without suffix, with names in braces for parts of it: `{label}`, `{split}`,
            `{group}` and `{name}` are known; any other name becomes an `extra` of the record. `{name*}` may span
            folders.
        label_set: label set of `{label}`; left out, the folders' own names are the labels.
        label_names: name in the path -> label; `null` leaves such pictures out.
        split_names: name in the path -> split.
        default_split: split of pictures whose path names none.
        coarsen_to: a coarser label set to bring the labels to.
        id_from: `path`, or the file's `name` where that is unique.
    """

    pattern: str = "{label}/{name*}"
    label_set: LabelSetName | None = None
    label_names: dict[str, str | None] = Field(default_factory=dict)
    split_names: dict[str, str] = Field(default_factory=dict)
    default_split: str = "train"
    coarsen_to: LabelSetName | None = None
    id_from: str = Field(default="path", pattern="^(path|name)$")

    @field_validator("pattern")
    @classmethod
    def _pattern_is_one(cls, value: str) -> str:
        names = [match.group(1) for match in _PLACEHOLDER.finditer(value)]
        if "name" not in names or len(set(names)) != len(names):
            raise ValueError("must hold {name}, and no name twice, as in '{split}/{label}/{name}'")
        return value

    def regex(self) -> re.Pattern[str]:
        """The pattern as a regular expression on a path without its suffix."""
        parts, last = [], 0
        for match in _PLACEHOLDER.finditer(self.pattern):
            parts.append(re.escape(self.pattern[last : match.start()]))
            parts.append(f"(?P<{match.group(1)}>{'.+' if match.group(2) else '[^/]+?'})")
            last = match.end()
        return re.compile("".join(parts) + re.escape(self.pattern[last:]))

    def start(self) -> str:
        """The folder that every picture lies below: what stands before the first name."""
        return self.pattern.partition("{")[0].rpartition("/")[0]


def read_folder(
    root: str | os.PathLike[str], settings: FolderSettings, *, source: str, notes: Notes | None = None
) -> Iterator[EmotionRecord]:
    """Records of all pictures below a folder whose paths fit the pattern, in the order of their paths.

    Args:
        root: the folder.
        settings: what the paths say.
        source: name of the dataset, also the first part of each id.
        notes: where classes without pictures and pictures off the pattern are noted.

    Returns:
        one record for every picture, as they are asked for.

    Raises:
        DataError: no such folder or no picture that fits (at once), or, after the sound ones, unknown labels and ids
            that repeat; each unknown label is told once.
    """
    root = Path(root)
    start = root / settings.start()
    if not start.is_dir():
        raise DataError(f"{start}: no such folder. Pictures are expected at {settings.pattern}.<suffix> below {root}.")
    regex = settings.regex()
    fitting, strays = [], []
    for path in _pictures_below(start):
        inside = path.relative_to(root).as_posix()
        match = regex.fullmatch(inside[: -len(path.suffix)])
        if match is None:
            strays.append(inside)
        else:
            fitting.append((inside, match.groupdict()))
    if not fitting:
        example = f"; there is, for example, {strays[0]}" if strays else ", and there are no pictures at all"
        raise DataError(f"{start}: no picture fits {settings.pattern}.<suffix>{example}")
    notes = notes or Notes()
    if strays:
        notes.leave_out(f"pictures that don't fit {settings.pattern}, for example {strays[0]}", count=len(strays))
    if "label" in regex.groupindex and settings.label_set is None:
        settings = settings.model_copy(update={"label_set": _own_labels(start, fitting, settings)})
    return _records(root, fitting, settings, source, notes)


def _pictures_below(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for directory, folders, files in os.walk(folder, followlinks=True):
        # A link may lead to a folder above it; each folder is walked once.
        if (real := os.path.realpath(directory)) in seen:
            folders.clear()
            continue
        seen.add(real)
        # Sorted, so that every machine gives the same order; hidden folders hold thumbnails and the like.
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES:
                yield Path(directory, name)


def _own_labels(start: Path, fitting: list[tuple[str, dict[str, str]]], settings: FolderSettings) -> str:
    """A label set that is spelt out, from the names in the paths."""
    named = {settings.label_names.get(parts["label"], parts["label"]) for _, parts in fitting}
    labels = sorted({" ".join(name.replace("_", " ").split()) for name in named if name is not None})
    if len(labels) < 2:
        raise DataError(f"{start}: {len(labels)} class only ({', '.join(labels)}); give the folder above the classes")
    return f"labels:{', '.join(labels)}"


def _records(
    root: Path,
    fitting: list[tuple[str, dict[str, str]]],
    settings: FolderSettings,
    source: str,
    notes: Notes,
) -> Iterator[EmotionRecord]:
    labels = get_label_set(settings.label_set) if settings.label_set is not None else None
    problems = Problems(root, _REMEDY)
    unknown: set[str] = set()
    found: set[str] = set()
    seen: dict[str, str] = {}
    for image, parts in fitting:
        split = parts.pop("split", None) or settings.default_split
        values: dict[str, Any] = {"image": image, "source": source, "split": settings.split_names.get(split, split)}
        named = parts.pop("label", None)
        try:
            if named is not None and labels is not None:
                label = settings.label_names.get(named, named)
                if label is None:
                    notes.leave_out(f"labelled '{named}'", expected=True)
                    continue
                if named in unknown:
                    continue
                try:
                    values |= {"emotion": labels.canonical(label), "label_set": labels.name}
                except DataError:
                    unknown.add(named)
                    raise
                found.add(values["emotion"])
                if settings.coarsen_to is not None:
                    coarse = coarser_label(values["emotion"], labels.name, settings.coarsen_to)
                    if coarse is None:
                        notes.leave_out(f"'{values['emotion']}' has no place in {settings.coarsen_to}", expected=True)
                        continue
                    values |= {"emotion": coarse, "label_set": settings.coarsen_to}
            path = PurePosixPath(image).with_suffix("")
            values["id"] = f"{source}/{path.name if settings.id_from == 'name' else path}"
            parts.pop("name")
            values |= {"group": parts.pop("group", None), "extra": parts}
            first = seen.setdefault(values["id"], image)
            if first != image:
                # Two suffixes of one name are two pictures.
                values["id"] = f"{source}/{PurePosixPath(image).name if settings.id_from == 'name' else image}"
                if seen.setdefault(values["id"], image) != image:
                    raise DataError(f"its id '{values['id']}' is that of {first} too; take ids from paths")
            record = parse_record(json.dumps(values), "record")
        except DataError as error:
            problems.add(f"{image}: {error}")
            continue
        yield record
    problems.finish()
    if labels is not None and found:
        for label in labels.labels:
            if label not in found:
                notes.add(f"no picture of '{label}': its folder is empty or missing")
