"""Reader of EMOTIC (Kosti et al., CVPR 2017 and TPAMI 2019): people in scenes, each with categories and a box.

    <root>/Annotations/Annotations.mat      MATLAB structures `train`, `val`, `test`
    <root>/emotic/<folder>/<filename>       the images, with `folder` from the structures (`mscoco/images`)

An entry of a structure is an image with `filename`, `folder` and one or several `person`. A person has `body_bbox`
(x1 y1 x2 y2), `annotations_categories.categories` and `annotations_continuous` with valence, arousal and dominance on a
scale from 1 to 10. In `val` and `test` several annotators saw each person; `combined_categories` and
`combined_continuous` hold their agreement. Each person becomes one record.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError, first_line
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Reader

_SPLITS = ("train", "val", "test")
_LOWEST, _HIGHEST = 1.0, 10.0


class EmoticSettings(Settings):
    """Files of EMOTIC below the root: the structures, and the folder that their `folder` is relative to."""

    annotations: str = "Annotations/Annotations.mat"
    images: str = "emotic"


class EmoticReader(Reader, layout="emotic"):
    """One record per person: several `labels`, valence, arousal and dominance in [-1, 1], and the `box`."""

    settings_class = EmoticSettings
    remedy = "Unpack the dataset again, or correct these entries."
    settings: EmoticSettings

    @property
    def place(self) -> Path:
        return self.root / self.settings.annotations

    def files(self) -> list[Path]:
        return [self.place]

    def check(self) -> None:
        if not self.place.is_file():
            raise DataError(f"{self.place}: no such file; EMOTIC's annotations are {EmoticSettings().annotations}")
        # Slow to import, and only this dataset needs it.
        import scipy.io

        try:
            self._content = scipy.io.loadmat(str(self.place), squeeze_me=True, struct_as_record=False)
        except Exception as error:
            raise DataError(f"{self.place}: not a MATLAB file ({first_line(error)})") from None
        if not any(split in self._content for split in _SPLITS):
            raise DataError(f"{self.place}: it has none of the structures {', '.join(_SPLITS)}")

    def records(self) -> Iterator[EmotionRecord]:
        seen: set[str] = set()
        for split in _SPLITS:
            for number, entry in enumerate(_several(self._content.get(split))):
                people = _several(getattr(entry, "person", None))
                if not people:
                    self.notes.num_rows += 1
                    self.notes.skip("entries without a person", example=f"{split}, entry {number}")
                for person_number, person in enumerate(people):
                    place = f"{split}, entry {number}, person {person_number}"
                    self.notes.num_rows += 1
                    with self.collect_faults(place):
                        record = self._person(split, entry, person, person_number)
                        if record.id in seen:
                            raise DataError(f"duplicate id '{record.id}'")
                        if not record.labels:
                            self.notes.skip("people without a category", expected=True)
                            continue
                        seen.add(record.id)
                        yield record

    def _person(self, split: str, entry: Any, person: Any, number: int) -> EmotionRecord:
        try:
            # MATLAB's empty text is an empty matrix.
            folder = entry.folder.strip("/") if isinstance(entry.folder, str) else ""
            name = str(entry.filename)
            box = [float(value) for value in person.body_bbox]
            categories = getattr(person, "combined_categories", None)
            if categories is None:
                categories = person.annotations_categories.categories
            rated = getattr(person, "combined_continuous", None)
            if rated is None:
                rated = person.annotations_continuous
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(f"not an entry of EMOTIC ({error})") from None
        labels = get_label_set("emotic26")
        known = {key: getattr(person, key, None) for key in ("gender", "age")}
        return self.record(
            "record",
            id=f"{folder}/{Path(name).stem}#{number}",
            image=self.require_image("/".join(part for part in (self.settings.images, folder, name) if part)),
            split=split,
            labels=sorted({labels.canonical(str(category)) for category in _several(categories)}),
            label_set=labels.name,
            box=box,
            extra={**{key: str(value) for key, value in known.items() if isinstance(value, str)}, "person": number},
            **{field: _scaled(rated, field) for field in ("valence", "arousal", "dominance")},
        )


def _scaled(rated: Any, field: str) -> float | None:
    """A rating from 1 to 10 as a number in [-1, 1], averaged over annotators."""
    given = [value for one in _several(rated) if (value := getattr(one, field, None)) is not None]
    try:
        # MATLAB's empty matrix stands for a rating that nobody gave.
        numbers = [float(value) for value in given if not (hasattr(value, "__len__") and len(value) == 0)]
    except (TypeError, ValueError):
        raise DataError(f"{field} is not a number ({reprlib.repr(given)})") from None
    numbers = [number for number in numbers if not math.isnan(number)]
    if not numbers:
        return None
    mean = sum(numbers) / len(numbers)
    if not _LOWEST <= mean <= _HIGHEST:
        raise DataError(f"{field} {mean:g} is outside the scale {_LOWEST:g} to {_HIGHEST:g}")
    return 2 * (mean - _LOWEST) / (_HIGHEST - _LOWEST) - 1


def _several(value: Any) -> list[Any]:
    """A list again, where MATLAB's `squeeze` left nothing, one item or an array."""
    if value is None:
        return []
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return [value]
    return list(value)
