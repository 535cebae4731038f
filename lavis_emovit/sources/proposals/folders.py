"""A folder of images: which part of the path is the label, the split, the person."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_emovit.emotion.label_set import spelling
from lavis_emovit.errors import DataError
from lavis_emovit.files import images_below, is_system_name
from lavis_emovit.sources.proposals.labels import NUMBERED_LABELS, choose_labels, known_labels, renamed_counts
from lavis_emovit.sources.proposals.proposal import Proposal, split_names, typed
from lavis_emovit.sources.readers.folder import FolderSettings

# Files that systems leave in folders; they are not worth a word.
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
_SEPARATORS = "_- ."
_MIN_GROUPS = 5
_SHOWN = 5
# Share of the groups that must have images of two labels, since a name that begins with the label is no person.
_SHARED = 0.8

NO_LABELS = (
    "training needs labels. Put the images into a folder for each label (happy/1.jpg, sad/2.jpg), or put a table "
    "beside them, for example labels.csv with the columns image and emotion (or valence and arousal)"
)


def propose_folder(root: Path, given: dict[str, Any], labels: str | None) -> Proposal:
    """How to read the images below a folder; `given` are settings of the layout that the user chose.

    DataError if there are no images, or nothing in their paths is a label.
    """
    root = root.resolve()
    images = [path.relative_to(root).as_posix() for path in images_below(root)]
    if not images:
        raise DataError(f"{root}: contains no images and no table with a column of images")
    reasons, warnings = [], []
    if "pattern" in given:
        pattern = typed(FolderSettings, {"pattern": given["pattern"]}).pattern
        reasons.append(f"layout: the pattern {pattern}, as given")
    else:
        below = _only_folder(images)
        root, images = root / below, [image.removeprefix(f"{below}/") for image in images if image.startswith(below)]
        pattern, why = _pattern(root, images)
        reasons.append(f"layout: {why} ({pattern})")
    fitting, _ = _matches(pattern, images)
    if not fitting:
        raise DataError(f"{root}: no image fits the pattern {pattern}; an existing image is {images[0]}")
    node: dict[str, Any] = {"pattern": pattern}
    named = Counter(parts["label"] for parts in fitting if "label" in parts)
    counts = renamed_counts(named, given.get("label_names", {}))
    if not counts:
        raise DataError(f"{root}: {len(images)} images without labels; {NO_LABELS}")
    try:
        choice = choose_labels(counts, labels or given.get("label_set"))
    except DataError as error:
        raise DataError(f"{root}: {error}. {NO_LABELS}" if len(counts) < 2 else f"{root}: {error}") from None
    node["label_set"] = choice.setting
    reasons.append(f"labels: {choice.reason}")
    splits = split_names(Counter(parts["split"] for parts in fitting if parts.get("split")))
    if splits:
        changed = {name: split for name, split in splits.items() if name != split}
        node |= {"split_names": changed} if changed else {}
    if any("group" in parts for parts in fitting):
        reasons.append(f"groups: {len({parts['group'] for parts in fitting})} beginnings of file names or folders")
    if all(name.strip().isdigit() for name in counts):
        warnings.append(NUMBERED_LABELS)
    if other := _other_files(root):
        most = sorted(other.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
        listed = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in most)
        warnings.append(f"{other.total()} other files are ignored: {listed}")
    node = {**node, **{key: value for key, value in given.items() if key != "label_set"}}
    return Proposal("folder", root, node, labels=choice.label_set, reasons=reasons, warnings=warnings)


def _only_folder(images: Sequence[str]) -> str:
    """The folder that all images in folders are in, as archives and downloads have; '' if there are several."""
    below = ""
    while True:
        inside = [image[len(below) :].lstrip("/") for image in images if image.startswith(below)]
        folders = {image.partition("/")[0] for image in inside if "/" in image}
        deeper = any(image.count("/") >= 2 for image in inside)
        if len(folders) != 1 or not deeper or any("/" not in image for image in inside):
            return below
        (name,) = folders
        if split_names({name: 1}):
            return below
        below = f"{below}/{name}".lstrip("/")


def _pattern(root: Path, images: Sequence[str]) -> tuple[str, str]:
    """The pattern of the paths, and what it means."""
    folders = [image.split("/")[:-1] for image in images]
    in_folders = [parts for parts in folders if parts]
    if len(in_folders) < len(images) / 2:
        return _pattern_of_names(root, images)
    start, what = "", "a folder for each label"
    if split_names(Counter(parts[0] for parts in in_folders)):
        start, what = "{split}/", "folders for the splits, and in them a folder for each label"
        in_folders = [parts[1:] for parts in in_folders if len(parts) > 1]
        if not in_folders:
            raise DataError(f"{root}: {len(images)} images in folders for splits, without labels; {NO_LABELS}")
    if _is_person_first(in_folders):
        return f"{start}{{group}}/{{label}}/{{name*}}", f"{what}, inside a folder for each person or session"
    for pattern in (f"{start}{{label}}/{{group}}{separator}{{name}}" for separator in _SEPARATORS):
        if _groups_fit(pattern, images):
            return pattern, f"{what}; file names begin with a person or session"
    if _groups_fit(pattern := f"{start}{{label}}/{{group}}", images):
        return pattern, f"{what}; images of the same name in several folders belong together"
    return f"{start}{{label}}/{{name*}}", what


def _pattern_of_names(root: Path, images: Sequence[str]) -> tuple[str, str]:
    """The pattern of images in one folder, if their names have labels of a published set."""
    for separator in _SEPARATORS:
        for pattern in (
            f"{{label}}{separator}{{name*}}",
            f"{{group}}{separator}{{label}}",
            f"{{name*}}{separator}{{label}}",
        ):
            fitting, strays = _matches(pattern, images)
            if strays or known_labels({parts["label"] for parts in fitting}) is None:
                continue
            if "group" in fitting[0] and not _groups_fit(pattern, images):
                continue
            return pattern, "labels in the names of the files"
    raise DataError(f"{root}: {len(images)} images without labels; {NO_LABELS}")


def _is_person_first(folders: Sequence[Sequence[str]]) -> bool:
    """Whether the first folders are people and the second ones labels: labels that most people have."""
    if not folders or any(len(parts) < 2 for parts in folders):
        return False
    people: dict[str, set[str]] = defaultdict(set)
    for parts in folders:
        people[parts[0]].add(parts[1])
    labels = Counter(name for names in people.values() for name in names)
    repeated = sum(count > 1 for count in labels.values())
    is_known = known_labels(set(labels)) is not None and known_labels(set(people)) is None
    return len(people) >= 2 and repeated >= _SHARED * len(labels) and (is_known or len(people) > 2 * len(labels))


def _groups_fit(pattern: str, images: Sequence[str]) -> bool:
    """Whether `{group}` of the pattern divides the images as people do: many groups, most with several labels."""
    fitting, strays = _matches(pattern, images)
    if not fitting or len(strays) > len(images) / 20:
        return False
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for parts in fitting:
        groups[unicodedata.normalize("NFC", parts["group"])][spelling(parts["label"])] += 1
    largest = max(counts.total() for counts in groups.values())
    shared = sum(len(counts) > 1 for counts in groups.values())
    return len(groups) >= _MIN_GROUPS and largest <= len(images) / _MIN_GROUPS and shared >= _SHARED * len(groups)


def _matches(pattern: str, images: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """The parts of every path that fits, and the other paths."""
    regex: re.Pattern[str] = FolderSettings(pattern=pattern).regex()
    fitting, strays = [], []
    for image in images:
        match = regex.fullmatch(image[: -len(PurePosixPath(image).suffix)])
        if match is None:
            strays.append(image)
        else:
            fitting.append({name: value or "" for name, value in match.groupdict().items()})
    return fitting, strays


def _other_files(root: Path) -> Counter[str]:
    """Suffix -> visible files that are not images."""
    found: Counter[str] = Counter()
    images = set(images_below(root))
    for directory, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not is_system_name(name)]
        for name in files:
            if not name.startswith(".") and name.lower() not in _SYSTEM_FILES and Path(directory, name) not in images:
                found[Path(name).suffix.lower()] += 1
    return found
