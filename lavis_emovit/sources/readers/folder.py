"""Reader of images whose paths have the labels: a folder per class, a prefix in the file name, ..."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field, field_validator

from lavis_emovit.clips.video import VIDEO_FILE_SUFFIXES
from lavis_emovit.emotion.labels import CUSTOM_PREFIX, LabelSet, get_label_set, joined_labels
from lavis_emovit.errors import DataError
from lavis_emovit.files import files_below, images_below
from lavis_emovit.images import readable_suffixes
from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.base import FRAMES, SPLIT_NAMES, LabelSettings, Reader
from lavis_emovit.sources.clip_files import ClipFiles, name_of

_PLACEHOLDER = re.compile(r"\{([a-z_]+)(\*?)\}")


class FolderSettings(LabelSettings):
    """How an image's path gives the fields of its record; without `label_set`, folder names are the labels."""

    # Path below the root, without suffix, with names in braces for its parts: `{label}`, `{split}`, `{group}` and
    # `{name}`; any other name becomes an `extra` of the record. `{name*}` may span folders.
    pattern: str = "{label}/{name*}"
    id_from: str = Field(default="path", pattern="^(path|name)$")  # `path`, or the file's `name` if that is unique
    clips: ClipFiles | None = None  # the paths are those of clips, as here; null: of images

    @field_validator("pattern")
    @classmethod
    def _pattern_has_names(cls, value: str) -> str:
        names = [match.group(1) for match in _PLACEHOLDER.finditer(value)]
        if not {"name", "group"} & set(names) or len(set(names)) != len(names):
            raise ValueError("must contain {name} or {group}, and no name twice, as in '{split}/{label}/{name}'")
        return value

    def regex(self) -> re.Pattern[str]:
        """The pattern as a regular expression on a path without the suffix of a file."""
        parts, last = [], 0
        for match in _PLACEHOLDER.finditer(self.pattern):
            parts.append(re.escape(self.pattern[last : match.start()]))
            parts.append(f"(?P<{match.group(1)}>{'.+' if match.group(2) else '[^/]+?'})")
            last = match.end()
        return re.compile("".join(parts) + re.escape(self.pattern[last:]))

    def start(self) -> str:
        """The folder that contains all images: the part of the pattern before the first name."""
        return self.pattern.partition("{")[0].rpartition("/")[0]


class FolderReader(Reader, layout="folder"):
    """One record per image or clip whose path fits the pattern, in the order of the paths."""

    settings_class = FolderSettings
    remedy = "Rename or remove these folders, or name their label in `label_names` (null skips them)."
    imported_from = "folder"
    settings: FolderSettings

    @property
    def _start(self) -> Path:
        return self.root / self.settings.start()

    def listed(self) -> Iterator[Path]:
        is_video = self.settings.clips is not None and self.settings.clips.stored_as == "videos"
        return files_below(self._start, VIDEO_FILE_SUFFIXES) if is_video else images_below(self._start)

    def _paths(self) -> Iterator[tuple[str, str]]:
        """The path of each image or clip, and the part of it that the pattern is for."""
        if self.settings.clips is not None and self.settings.clips.stored_as == "frames":
            for folder in dict.fromkeys(path.parent for path in self.listed()):
                self.notes.num_rows += 1
                yield self.relative(folder), self.relative(folder)
            return
        readable = readable_suffixes() | VIDEO_FILE_SUFFIXES
        for path in self.listed():
            self.notes.num_rows += 1
            if (suffix := path.suffix.lower()) not in readable:
                self.notes.skip(f"images of type {suffix}, which Pillow cannot read here (docs/datasets.md)")
                continue
            image = self.relative(path)
            yield image, image[: -len(path.suffix)]

    def is_present(self) -> bool:
        return self._start.is_dir() and any(self._start.iterdir())

    def check(self) -> None:
        start, clips = self._start, self.settings.clips
        what = clips.what if clips is not None else "image"
        pattern = self.settings.pattern + ("" if what == FRAMES else ".<suffix>")
        if not start.is_dir():
            raise DataError(f"{start}: no such folder. Each {what} is expected at {pattern} below {self.root}.")
        self._regex = self.settings.regex()
        self._fitting: list[tuple[str, dict[str, str]]] = []  # path, and its parts
        named: set[str] = set()  # labels in the paths
        strays = []
        for path, stem in self._paths():
            match = self._regex.fullmatch(stem)
            if match is None:
                strays.append(path)
            else:
                self._fitting.append((path, match.groupdict()))
                named |= {match.groupdict().get("label", "")}
        if not self._fitting:
            example = f"; an existing {what} is {strays[0]}" if strays else ", and there are none at all"
            raise DataError(f"{start}: no {what} fits {pattern}{example}")
        if strays:
            plural = what.replace("folder", "folders") if what == FRAMES else f"{what}s"
            self.notes.skip(
                f"{plural} that don't fit {self.settings.pattern}, for example {strays[0]}", count=len(strays)
            )
        self._labels = self._label_set(named) if "label" in self._regex.groupindex else None

    def _label_set(self, found: set[str]) -> LabelSet:
        """The label set of the settings, or one with the names in the paths."""
        if self.settings.label_set is not None:
            return get_label_set(self.settings.label_set)
        named = {self.settings.label_names.get(label, label) for label in found}
        labels = sorted({" ".join(name.replace("_", " ").split()) for name in named if name is not None})
        if labels and all(label.casefold() in SPLIT_NAMES for label in labels):
            raise DataError(
                f"{self._start}: its folders {', '.join(labels)} look like splits, not labels. Name the parts of the "
                "paths (`--set 'pattern={split}/{label}/{name}'`), or the labels (`--label-set`)."
            )
        if len(labels) < 2:
            raise DataError(
                f"{self._start}: only {len(labels)} class ({', '.join(labels)}); pass the folder above the classes"
            )
        try:
            return get_label_set(f"{CUSTOM_PREFIX}{joined_labels(labels)}")
        except DataError as error:
            raise DataError(f"{self._start}: its folders cannot be labels: {error}, or set `label_names`") from None

    def records(self) -> Iterator[EmotionRecord]:
        unknown: set[str] = set()
        seen: dict[str, str] = {}
        clips = self.settings.clips
        for path, found in self._fitting:
            parts: dict[str, Any] = dict(found)
            split = parts.pop("split", None) or self.settings.default_split
            values: dict[str, Any] = {"split": self.settings.split_names.get(split, split)}
            named = parts.pop("label", None)
            with self.collect_faults(path):
                if named is not None and self._labels is not None:
                    if named in unknown:
                        continue
                    try:
                        label = self.label_fields(named, self._labels)
                    except DataError:
                        # One fault for the folder, not one for each of its images.
                        unknown.add(named)
                        raise
                    if label is None:
                        continue
                    values |= label
                parts.pop("name", None)
                record_id = self._unique_id(path, seen)
                values |= {"image": path} if clips is None else clips.fields(self.root, path)
                yield self.record("record", id=record_id, **values, group=parts.pop("group", None), extra=parts)
        if self._labels is not None and self.labels_found:
            for missing in self._labels.labels:
                if missing not in self.labels_found:
                    self.notes.add(f"no image of '{missing}': its folder is empty or missing")

    def _unique_id(self, image: str, seen: dict[str, str]) -> str:
        by_name = self.settings.id_from == "name"
        record_id = name_of(image, self.settings.clips, by_name=by_name)
        first = seen.setdefault(record_id, image)
        if first != image:
            # Two files that differ only in their suffix are two images.
            record_id = PurePosixPath(image).name if by_name else image
            if seen.setdefault(record_id, image) != image:
                raise DataError(f"its id '{self.source}/{record_id}' is also that of {first}; take ids from paths")
        return record_id
