"""Reader of EMOTIC (Kosti et al., CVPR 2017 and TPAMI 2019): people in scenes, each with categories and a box.

    <root>/Annotations/Annotations.mat      MATLAB structures `train`, `val`, `test`
    <root>/emotic/<folder>/<filename>       the pictures, `folder` as the structures name it (`mscoco/images`)

A structure entry is a picture with `filename`, `folder` and `person`, one or several. A person has `body_bbox`
(x1 y1 x2 y2), `annotations_categories.categories` and `annotations_continuous` with valence, arousal and dominance on a
scale from 1 to 10. In `val` and `test` several annotators saw each person; `combined_categories` and
`combined_continuous` hold what they agreed on. One record is made for each person.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.settings import Settings
from lavis_emovit.sources.problems import Notes, Problems

_SPLITS = ("train", "val", "test")
_LOWEST, _HIGHEST = 1.0, 10.0
_REMEDY = "Unpack the dataset again, or correct these entries."


class EmoticSettings(Settings):
    """Files of EMOTIC below the root: the structures, and the folder that their `folder` starts from."""

    annotations: str = "Annotations/Annotations.mat"
    images: str = "emotic"


def read_emotic(
    root: str | os.PathLike[str], settings: EmoticSettings, *, source: str, notes: Notes | None = None
) -> Iterator[EmotionRecord]:
    """One record for every person: several `labels`, valence, arousal and dominance in [-1, 1], and the `box`.

    Raises:
        DataError: no such file, or not EMOTIC's (at once), or, after the sound ones, entries that cannot be used.
    """
    root = Path(root)
    path = root / settings.annotations
    if not path.is_file():
        raise DataError(f"{path}: no such file; EMOTIC's annotations are {EmoticSettings().annotations}")
    # Slow to import, and needed by this dataset only.
    import scipy.io

    try:
        content = scipy.io.loadmat(str(path), squeeze_me=True, struct_as_record=False)
    except Exception as error:
        raise DataError(f"{path}: not a MATLAB file ({str(error).splitlines()[0]})") from None
    if not any(split in content for split in _SPLITS):
        raise DataError(f"{path}: it holds none of the structures {', '.join(_SPLITS)}")
    return _records(root, settings, source, path, content, notes or Notes())


def _records(
    root: Path, settings: EmoticSettings, source: str, path: Path, content: dict[str, Any], notes: Notes
) -> Iterator[EmotionRecord]:
    problems = Problems(path, _REMEDY)
    seen: set[str] = set()
    for split in _SPLITS:
        for number, entry in enumerate(_several(content.get(split))):
            for person_number, person in enumerate(_several(getattr(entry, "person", None))):
                place = f"{split}, entry {number}, person {person_number}"
                try:
                    record = _read_person(root, settings, source, split, entry, person, person_number, place)
                    if record.id in seen:
                        raise DataError(f"{place}: id '{record.id}' repeats")
                except DataError as error:
                    problems.add(str(error))
                    continue
                if not record.labels:
                    notes.leave_out("people without a category", expected=True)
                    continue
                seen.add(record.id)
                yield record
    problems.finish()


def _read_person(
    root: Path, settings: EmoticSettings, source: str, split: str, entry: Any, person: Any, number: int, place: str
) -> EmotionRecord:
    try:
        folder, name = str(entry.folder), str(entry.filename)
        box = [float(value) for value in person.body_bbox]
        categories = getattr(person, "combined_categories", None)
        if categories is None:
            categories = person.annotations_categories.categories
        rated = getattr(person, "combined_continuous", None)
        if rated is None:
            rated = person.annotations_continuous
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{place}: not an entry of EMOTIC ({error})") from None
    image = "/".join(part for part in (settings.images, folder.strip("/"), name) if part)
    if not (root / image).is_file():
        raise DataError(f"{place}: the picture {image} is missing below {root}")
    labels = get_label_set("emotic26")
    try:
        chosen = sorted({labels.canonical(str(category)) for category in _several(categories)})
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    extra = {key: str(getattr(person, key)) for key in ("gender", "age") if isinstance(getattr(person, key, None), str)}
    values = {
        "id": f"{source}/{folder.strip('/')}/{Path(name).stem}#{number}",
        "image": image,
        "split": split,
        "source": source,
        "labels": chosen,
        "label_set": labels.name,
        "box": box,
        "extra": {**extra, "person": number},
        **{field: _scaled(rated, field, place) for field in ("valence", "arousal", "dominance")},
    }
    return parse_record(json.dumps(values), place)


def _scaled(rated: Any, field: str, place: str) -> float | None:
    """A rating on 1 to 10 as a number in [-1, 1]; several annotators' are averaged."""
    numbers = [float(getattr(one, field)) for one in _several(rated) if getattr(one, field, None) is not None]
    numbers = [number for number in numbers if not math.isnan(number)]
    if not numbers:
        return None
    mean = sum(numbers) / len(numbers)
    if not _LOWEST <= mean <= _HIGHEST:
        raise DataError(f"{place}: {field} {mean:g} is outside the scale {_LOWEST:g} to {_HIGHEST:g}")
    return 2 * (mean - _LOWEST) / (_HIGHEST - _LOWEST) - 1


def _several(value: Any) -> list[Any]:
    """What MATLAB squeezed, as a list again: nothing, one thing or an array of them."""
    if value is None:
        return []
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return [value]
    return list(value)
