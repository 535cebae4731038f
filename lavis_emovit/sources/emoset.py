"""Reader of EmoSet in its published layout, and of anything written in that layout (the drawn sample set is).

    <root>/info.json                        vocabularies of emotion and attributes
    <root>/train.json, val.json, test.json  lists of entries
    <root>/annotation/<emotion>/<image id>.json
    <root>/image/<emotion>/<image id>.jpg

An entry of a split list has three fields, `[emotion, image path, annotation path]`, as the lists were released, or
four, with the image id second, as the dataset's documentation shows them. Every attribute may be absent.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_emovit.emotion.labels import LabelSet, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.sources.problems import Problems

logger = logging.getLogger(__name__)

EMOSET_SPLITS = ("train", "val", "test")
EMOSET_HOMEPAGE = "https://github.com/JingyuanYY/EmoSet"
_NUMBERS = ("brightness", "colorfulness")
_NAMES = ("scene", "facial_expression", "human_action")
_REMEDY = "Correct or remove these entries in the split lists, or unpack the dataset again."


def read_emoset(
    root: str | os.PathLike[str], *, source: str = "emoset", splits: Sequence[str] = EMOSET_SPLITS
) -> Iterator[EmotionRecord]:
    """Records of a folder in EmoSet's layout, split after split, in the order of the lists.

    Args:
        root: the folder that holds `info.json` and the split lists.
        source: name of the dataset, also the first part of each id (`emoset/awe_06628`).
        splits: which lists to read; each must be there.

    Returns:
        one record for every sound entry, as they are asked for.

    Raises:
        DataError: no such folder (at once) or list, or, after the sound ones, entries that cannot be used: of another
            length, with an unknown emotion, or whose annotation or picture is missing. File and entry are named.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder. Get EmoSet-118K at {EMOSET_HOMEPAGE}, unpack it, and give the folder that holds "
            "train.json, annotation/ and image/."
        )
    return _records(root, source, splits)


def _records(root: Path, source: str, splits: Sequence[str]) -> Iterator[EmotionRecord]:
    vocabulary = _read_vocabulary(root)
    problems = Problems(root, _REMEDY)
    strange: Counter[str] = Counter()
    seen: dict[str, str] = {}
    label_set = get_label_set("mikels8")
    for split in splits:
        for number, entry in enumerate(_read_list(root / f"{split}.json")):
            place = f"{split}.json, entry {number}"
            try:
                record = _read_entry(root, entry, place, split, source, label_set)
            except DataError as error:
                problems.add(str(error))
                continue
            first = seen.setdefault(record.id, place)
            if first != place:
                problems.add(f"{place}: '{record.image}' is in {first} already")
                continue
            strange.update(_strange_values(record, vocabulary))
            yield record
    problems.finish()
    if strange:
        examples = ", ".join(f"{name} ({count})" for name, count in strange.most_common(5))
        logger.warning("%s: attribute values that info.json does not list were kept: %s", root, examples)


def _read_entry(root: Path, entry: Any, place: str, split: str, source: str, label_set: LabelSet) -> EmotionRecord:
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
    emotion_text, image, annotation_path = str(entry[0]), str(entry[-2]), str(entry[-1])
    emotion = _canonical(label_set, emotion_text, place)
    image, annotation_path = _plain(image), _plain(annotation_path)
    if not (root / image).is_file():
        raise DataError(f"{place}: the picture {image} is missing")
    annotation = _read_annotation(root / annotation_path, f"{place}: {annotation_path}")
    stated = annotation.get("emotion")
    if stated is not None and _canonical(label_set, str(stated), f"{place}: {annotation_path}") != emotion:
        raise DataError(f"{place}: the list says '{emotion}', the annotation {annotation_path} says '{stated}'")
    return parse_record(
        json.dumps(
            {
                "id": f"{source}/{PurePosixPath(image).stem}",
                "image": image,
                "split": split,
                "source": source,
                "emotion": emotion,
                "label_set": label_set.name,
                "attributes": _attributes(annotation),
            }
        ),
        f"{place} ({annotation_path})",
    )


def _canonical(label_set: LabelSet, text: str, place: str) -> str:
    try:
        return label_set.canonical(text)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None


def _attributes(annotation: dict[str, Any]) -> dict[str, Any]:
    """The attributes that are there, names stripped (`info.json` itself has a `boxing ` with a blank behind it)."""
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
        names = [str(item).strip() for item in listed if str(item).strip()]
        if names:
            attributes["object"] = names
    return attributes


def _read_annotation(path: Path, place: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{place}: the annotation cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"{place}: the annotation is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{place}: the annotation must be a JSON object, got {type(content).__name__}")
    return content


def _read_list(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{path}: the split list cannot be read ({error.strerror}). The folder must hold the files of EmoSet-118K "
            f"as published ({EMOSET_HOMEPAGE}): info.json, {', '.join(f'{name}.json' for name in EMOSET_SPLITS)}, "
            "annotation/ and image/."
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: the split list is not JSON ({error}). Unpack the dataset again.") from None
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of entries, got {type(content).__name__}. Unpack the dataset again.")
    return content


def _read_vocabulary(root: Path) -> dict[str, set[str]]:
    """Known values of every attribute; empty where the folder has no `info.json`."""
    path = root / "info.json"
    if not path.is_file():
        logger.warning("%s: no info.json, attribute values are not checked against it", root)
        return {}
    try:
        content = json.loads(path.read_bytes())
        return {name: {label.strip() for label in content[name]["label2idx"]} for name in (*_NAMES, "object")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not EmoSet's info.json ({type(error).__name__}: {error}). Unpack it again.") from None


def _strange_values(record: EmotionRecord, vocabulary: dict[str, set[str]]) -> Iterator[str]:
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
