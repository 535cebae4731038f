"""Reader of EmoSet in its published layout, and of other sets in that layout, such as the drawn sample set.

    <root>/info.json                        vocabularies of emotion and attributes
    <root>/train.json, val.json, test.json  lists of entries
    <root>/annotation/<emotion>/<image id>.json
    <root>/image/<emotion>/<image id>.jpg

An entry of a split list has three fields, `[emotion, image path, annotation path]`, as in the released lists, or four,
with the image id second, as in the dataset's documentation. Every attribute may be absent.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.base import Reader, read_json

logger = logging.getLogger(__name__)

EMOSET_SPLITS = ("train", "val", "test")
EMOSET_HOMEPAGE = "https://github.com/JingyuanYY/EmoSet"
_NUMBERS = ("brightness", "colorfulness")
_NAMES = ("scene", "facial_expression", "human_action")
_LABELS = get_label_set("mikels8")


def read_emoset(
    root: str | os.PathLike[str], *, source: str = "emoset", splits: Sequence[str] | None = None
) -> Iterator[EmotionRecord]:
    """Records of a folder in EmoSet's layout; see `Reader`."""
    return EmosetReader(root, source=source, splits=splits).read()


class EmosetReader(Reader, layout="emoset"):
    """One record per entry, split after split, in the order of the lists; ids have the form `emoset/awe_06628`."""

    remedy = "Correct or remove these entries in the split lists, or unpack the dataset again."

    def files(self) -> list[Path]:
        return [self.root / f"{split}.json" for split in EMOSET_SPLITS]

    def check(self) -> None:
        if not self.root.is_dir():
            raise DataError(
                f"{self.root}: no such folder. Get EmoSet-118K at {EMOSET_HOMEPAGE}, unpack it, and pass the folder "
                "that has train.json, annotation/ and image/."
            )

    def records(self) -> Iterator[EmotionRecord]:
        vocabulary = self._vocabulary()
        unknown: Counter[str] = Counter()
        seen: dict[str, str] = {}
        for split in self.splits if self.splits is not None else EMOSET_SPLITS:
            for number, entry in enumerate(self._split_list(split)):
                place = f"{split}.json, entry {number}"
                self.notes.num_rows += 1
                with self.collect_faults():
                    record = self._entry(entry, place, split)
                    first = seen.setdefault(record.id, place)
                    if first != place:
                        raise DataError(f"{place}: '{record.image}' is already in {first}")
                    unknown.update(_unknown_values(record, vocabulary))
                    yield record
        if unknown:
            examples = ", ".join(f"{name} ({count})" for name, count in unknown.most_common(5))
            logger.warning("%s: kept attribute values that info.json does not list: %s", self.root, examples)

    def _entry(self, entry: Any, place: str, split: str) -> EmotionRecord:
        if (
            not isinstance(entry, list)
            or len(entry) not in (3, 4)
            or not all(isinstance(item, (str, int)) for item in entry)
        ):
            length = f" of {len(entry)} fields" if isinstance(entry, list) else ""
            raise DataError(
                f"{place}: expected [emotion, image, annotation], or four fields with the image id second, "
                f"got {type(entry).__name__}{length}: {json.dumps(entry)[:120]}"
            )
        emotion = _canonical(str(entry[0]), place)
        named, annotation_path = _plain(str(entry[-2])), _plain(str(entry[-1]))
        image = self.find_image(named)
        if image is None:
            raise DataError(f"{place}: the image {named} is missing")
        annotation_place = f"{place}: {annotation_path}"
        annotation = read_json(self.root / annotation_path, dict, annotation_place)
        stated = annotation.get("emotion")
        if stated is not None and _canonical(str(stated), annotation_place) != emotion:
            raise DataError(f"{place}: '{emotion}' in the list, but '{stated}' in the annotation {annotation_path}")
        return self.record(
            f"{place} ({annotation_path})",
            id=PurePosixPath(image).stem,
            image=image,
            split=split,
            emotion=emotion,
            label_set=_LABELS.name,
            attributes=_attributes(annotation),
        )

    def _split_list(self, split: str) -> list[Any]:
        try:
            return read_json(self.root / f"{split}.json", list)
        except DataError as error:
            lists = ", ".join(path.name for path in self.files())
            raise DataError(
                f"{error}. The folder must have the files of EmoSet-118K as published ({EMOSET_HOMEPAGE}): info.json, "
                f"{lists}, annotation/ and image/."
            ) from None

    def _vocabulary(self) -> dict[str, set[str]]:
        """Known values of every attribute; empty if the folder has no `info.json`."""
        path = self.root / "info.json"
        if not path.is_file():
            logger.warning("%s: no info.json, attribute values are not checked against it", self.root)
            return {}
        content = read_json(path, dict)
        try:
            return {name: {label.strip() for label in content[name]["label2idx"]} for name in (*_NAMES, "object")}
        except (KeyError, TypeError, AttributeError) as error:
            text = f"{type(error).__name__}: {error}"
            raise DataError(f"{path}: not EmoSet's info.json ({text}). Unpack it again.") from None


def _canonical(text: str, place: str) -> str:
    try:
        return _LABELS.canonical(text)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None


def _attributes(annotation: dict[str, Any]) -> dict[str, Any]:
    """The attributes of an annotation, names stripped (`info.json` itself has `boxing ` with a trailing space)."""
    attributes: dict[str, Any] = {}
    for name in _NUMBERS:
        if annotation.get(name) is not None:
            attributes[name] = annotation[name]
    for name in _NAMES:
        value = annotation.get(name)
        if value is not None and str(value).strip():
            attributes[name] = str(value).strip()
    objects = annotation.get("object")
    if objects is not None:
        listed = [objects] if isinstance(objects, str) else objects
        names = [name for item in listed if item is not None and (name := str(item).strip())]
        if names:
            attributes["object"] = names
    return attributes


def _unknown_values(record: EmotionRecord, vocabulary: dict[str, set[str]]) -> Iterator[str]:
    if not vocabulary:
        return
    for name in _NAMES:
        value = getattr(record.attributes, name)
        if value is not None and value not in vocabulary[name]:
            yield f"{name} '{value}'"
    for value in record.attributes.object or ():
        if value not in vocabulary["object"]:
            yield f"object '{value}'"


def _plain(path: str) -> str:
    """A path of the list as a relative one with forward slashes."""
    return str(PurePosixPath(path.strip().replace("\\", "/")))
