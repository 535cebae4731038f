"""Reader of AffectNet's release of 2021, with a NumPy file per image and value.

    <root>/train_set/images/0.jpg
    <root>/train_set/annotations/0_exp.npy, 0_val.npy, 0_aro.npy      expression 0 to 7, valence, arousal
    <root>/val_set/                                                   the same

The earlier release has tables; the reader `table` reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lavis_emovit.errors import DataError, first_line
from lavis_emovit.files import find_files
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Reader
from lavis_emovit.sources.frames import frames_in

VALUES = ("exp", "val", "aro")
EXPRESSIONS = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")


class AffectNetSettings(Settings):
    """Folders of the release: folder -> split. Published results are reported on `val_set`."""

    folders: dict[str, str] = {"train_set": "train", "val_set": "test"}  # noqa: RUF012


class AffectNetReader(Reader, layout="affectnet"):
    """One record per image with an expression."""

    settings_class = AffectNetSettings
    remedy = "Unpack the dataset again, or remove these images."
    settings: AffectNetSettings

    def listed(self) -> Iterator[Path]:
        for folder in self.settings.folders:
            yield from find_files(self.root / folder, "images/*")

    def annotations(self) -> Iterator[Path]:
        ends = tuple(f"_{name}.npy" for name in VALUES)
        for folder in self.settings.folders:
            yield from self._annotated(folder, ends)

    def _annotated(self, folder: str, ends: tuple[str, ...]) -> Iterator[Path]:
        """The annotation files of a folder whose names end so."""
        # Nearly a million files: a glob pattern takes longer.
        place = self.root / folder / "annotations"
        names = sorted(entry.name for entry in os.scandir(place)) if place.is_dir() else ()
        return (place / name for name in names if name.endswith(ends) and not name.startswith("."))

    def is_present(self) -> bool:
        return all((self.root / folder).is_dir() for folder in self.settings.folders)

    def check(self) -> None:
        for folder in self.settings.folders:
            if not (self.root / folder / "images").is_dir():
                raise DataError(
                    f"{self.root / folder / 'images'}: no such folder; AffectNet has train_set/ and val_set/"
                )

    def records(self) -> Iterator[EmotionRecord]:
        for folder, split in self.settings.folders.items():
            annotations = self.root / folder / "annotations"
            images = frames_in(self.root / folder / "images")
            others = sum(path.is_file() for path in find_files(self.root / folder, "images/*")) - len(images)
            self.notes.num_rows += len(images) + others
            if others:
                self.notes.skip("files that are no numbered images", count=others)
            stems = {image.stem for image in images.values()}
            for path in self._annotated(folder, ("_exp.npy",)):
                if path.name.removesuffix("_exp.npy") not in stems:
                    self.notes.num_rows += 1
                    self.notes.skip("annotations without an image", example=self.relative(path))
            for number, image in sorted(images.items()):
                with self.collect_faults():
                    code = _number(annotations / f"{image.stem}_exp.npy")
                    if code not in range(len(EXPRESSIONS)):
                        raise DataError(f"{annotations / image.stem}_exp.npy: expression {code:g} is not in 0 to 7")
                    yield self.record(
                        self.relative(image),
                        id=f"{split}/{number}",
                        image=self.relative(image),
                        split=split,
                        emotion=EXPRESSIONS[int(code)],
                        label_set="expressions8",
                        valence=_number(annotations / f"{image.stem}_val.npy"),
                        arousal=_number(annotations / f"{image.stem}_aro.npy"),
                    )


def _number(path: Path) -> float:
    """The single number in a NumPy file, stored as a number or as text."""
    import numpy

    try:
        return float(numpy.load(path, allow_pickle=False).item())
    # Of another type, or with a size that no memory has.
    except (OSError, ValueError, EOFError, TypeError, AttributeError, MemoryError) as error:
        raise DataError(f"{path}: cannot be read as one number ({first_line(error)})") from None
