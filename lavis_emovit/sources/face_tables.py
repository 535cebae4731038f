"""What the layouts share that read tables of programs which find action units: OpenFace, py-feat, LibreFace.

A row describes a face in an image. It finds its image by name, or by its frame number in the folder of a video.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from lavis_emovit.emotion.labels_faces import EXPRESSIONS8
from lavis_emovit.errors import DataError
from lavis_emovit.files import find_files, images_below
from lavis_emovit.images import displayed_size_px, open_strictly
from lavis_emovit.records import OCCURRENCE_THRESHOLD, EmotionRecord, image_root_of, read_records
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import LAYOUTS, Notes, Reader
from lavis_emovit.sources.face_rows import Box, Face, cell_text, number_in
from lavis_emovit.sources.image_index import ImageIndex
from lavis_emovit.sources.table_files import Row, read_rows
from lavis_emovit.sources.table_settings import TableSettings

ACTIVE_FROM = 1.0
"""Intensity from which a unit counts as active where the two columns of a table are compared, as in records."""
_TOP_INTENSITY = 5.0
# Regressions may leave their scale a little; a larger excess is another scale.
_ALLOWED_EXCESS = 0.1
_BATCH = "{name}"

FaceLevel = Literal["units", "expression", "affect"]


class FaceTableSettings(Settings):
    """The tables, and the images that they describe."""

    file: str = "*.csv"  # the table, or a pattern of several, below the root
    # Folder of the images, below the root, the working directory or absolute; `{name}` is the name of the table or
    # video without its ending. With `records`, below the folder of their images.
    images: str = "."
    records: str | None = None  # records file that gets the values of the tables; null: new records
    # How a frame number finds its image: by the `number` at the end of the image's name, or by their `order`.
    frames: Literal["number", "order"] = "number"
    # Number of an image minus the frame number in the table. Null: found from the first image, if that is 0 or 1.
    frame_offset: int | None = None
    min_confidence: float = Field(default=0.75, ge=0.0, le=1.0)  # rows of a lower confidence are skipped
    # Which value counts for a unit that has both.
    prefer: Literal["intensity", "presence"] = "intensity"
    # What to import: `units`, `expression`, `affect` (valence and arousal).
    levels: tuple[FaceLevel, ...] = ("units",)
    default_split: str = "train"  # split of new records

    @field_validator("images")
    @classmethod
    def _name_is_in_a_folder(cls, value: str) -> str:
        if value.count(_BATCH) > 1 or re.search(r"[{}]", value.replace(_BATCH, "")):
            raise ValueError("may contain {name} once, as in 'frames/{name}'")
        return value


class FaceTableReader(Reader, layout=None):
    """One record per face with its box, or the records of a file with the units of their faces.

    Values are those of a program, not of people: `extra` names it under `units_by` (`expression_by`, `affect_by`), and
    the scale of its units under `units_scale`: `intensity` (0 to 5), `probability` or `presence` (1 and 0). Units
    without an intensity are also listed under `occurrence_only`.
    """

    settings_class = FaceTableSettings
    remedy = "Correct these rows or settings."
    imported_from: ClassVar[Literal["file", "folder"] | None] = "file"
    file_of_folder = "*.csv"
    settings: FaceTableSettings

    # A layout defines the following.

    first_frame: ClassVar[int]  # its number of the first frame of a video
    intensity_column: ClassVar[re.Pattern[str] | None] = None  # its group is the number of the unit; 0 to 5
    presence_column: ClassVar[re.Pattern[str]]  # the same for a probability, or 1 and 0
    presence_scale: ClassVar[Literal["probability", "presence"]] = "presence"
    confidence_column: ClassVar[str | None] = None

    @abstractmethod
    def place_of(self, cells: Mapping[str, str], table: str) -> tuple[str, int | None]:
        """Name of the video and frame number of a row, or path of the image and None. `table`: name of the file."""

    def failure(self, cells: Mapping[str, str]) -> str | None:
        """Why the program found no face; None if it did."""
        return None

    def face_number(self, cells: Mapping[str, str]) -> int:
        return 0

    def box(self, cells: Mapping[str, str]) -> Box | None:
        """Left, top, right, bottom of the face in pixels; None if the table does not have it."""
        return None

    def expression(self, cells: Mapping[str, str]) -> str | None:
        """One of `expressions8`; None if the table does not have it."""
        return None

    def affect(self, cells: Mapping[str, str]) -> tuple[float, float] | None:
        """Valence and arousal from -1 to 1; None if the table does not have them."""
        return None

    # Callers use the following.

    @property
    def _records_file(self) -> Path | None:
        return None if self.settings.records is None else self._given(self.settings.records)

    def _given(self, path: str) -> Path:
        """A path of the settings: below the root, or else relative to the working directory."""
        return self.root / path if (self.root / path).exists() or not Path(path).exists() else Path(path)

    @property
    def image_root(self) -> Path:
        records = self._records_file
        return image_root_of(records) if records is not None else self._given(self._image_folders[0])

    @property
    def _image_folders(self) -> tuple[str, str]:
        """The folder above all images, and the folder of a video below it, which may contain `{name}`."""
        if self._records_file is not None:
            return ".", self.settings.images
        parts = PurePosixPath(self.settings.images).parts
        first = next((number for number, part in enumerate(parts) if _BATCH in part), len(parts))
        return str(PurePosixPath(*parts[:first])), str(PurePosixPath(*parts[first:]))

    def _tables(self) -> list[Path]:
        one = self.root / self.settings.file
        return [one] if one.is_file() else find_files(self.root, self.settings.file)

    def files(self) -> list[Path]:
        return [*self._tables(), *([] if self._records_file is None else [self._records_file])]

    def is_present(self) -> bool:
        return bool(self._tables())

    def check(self) -> None:
        if not self._tables():
            raise DataError(f"{self.root / self.settings.file}: no such table")
        if not self.image_root.is_dir():
            raise DataError(
                f"{self.image_root}: no such folder of images; name it with `images` (`--set images=DIR`, or "
                "`--set images=DIR/{name}` for a folder of frames for each video)"
            )

    @cached_property
    def _joined(self) -> list[EmotionRecord] | None:
        return None if self._records_file is None else list(read_records(self._records_file))

    @cached_property
    def _images(self) -> ImageIndex:
        root = self.image_root
        if self._joined is not None:
            return ImageIndex(record.image for record in self._joined)
        return ImageIndex(path.relative_to(root).as_posix() for path in images_below(root))

    def records(self) -> Iterator[EmotionRecord]:
        self._disagreements: Counter[int] = Counter()
        self._num_compared = self._num_clipped = 0
        faces: dict[str, list[Face]] = {}
        for face in (face for table in self._tables() for face in self._faces(table)):
            found = faces.setdefault(face.image, [])
            if found and found[0].table != face.table:
                raise DataError(
                    f"{self.root}: {found[0].table} and {face.table} both have rows of {face.image}. Name the folder "
                    "of each video in `images`, as in 'frames/{name}', or import the tables one by one."
                )
            found.append(face)
        self._note_units()
        for level, name in (("expression", "emotion"), ("affect", "valence")):
            if level in self.settings.levels and not any(
                name in face.fields for all_ in faces.values() for face in all_
            ):
                self.notes.add(f"no row has a value for the level '{level}'")
        if self._joined is not None:
            yield from self._with_faces(self._joined, faces)
            return
        for image, shown in faces.items():
            yield from self._new_records(image, shown)
        for image in self._images.paths:
            if image not in faces:
                self.notes.num_rows += 1
                self.notes.skip("images without a usable row", example=image)

    def _faces(self, table: Path) -> Iterator[Face]:
        """The faces of a table whose images exist; counts all of its rows."""
        place = self.relative(table)
        notes = Notes()  # without the hundreds of columns that no field takes
        columns: tuple[dict[int, str], dict[int, str]] | None = None
        for line, row in read_rows(table, TableSettings(format="csv"), (), notes):
            self.notes.num_rows += 1
            if columns is None and isinstance(row, dict):
                columns = self._unit_columns(row, table)
            with self.collect_faults(f"{place}, {line}"):
                if not isinstance(row, dict) or columns is None:
                    raise DataError(str(row))
                face = self._face({name: cell_text(cell) for name, cell in row.items()}, *columns, table)
                if face is not None:
                    yield face
        for text in notes.lines:
            self.notes.add(text)
        if columns is None:
            self.notes.add(f"{place}: has no rows")

    def _unit_columns(self, row: Row, table: Path) -> tuple[dict[int, str], dict[int, str]]:
        """Unit -> column of its intensity, and of its presence. DataError if the table has none."""
        found = []
        for pattern in (self.intensity_column, self.presence_column):
            matches = [pattern.fullmatch(name) for name in row] if pattern is not None else []
            found.append({int(match[1]): match[0] for match in matches if match is not None})
        if not any(found):
            other = next((name for name, reader in LAYOUTS.items() if _fits(reader, row)), None)
            hint = f"; it looks like a table of {other}: `emovit data import {other}`" if other is not None else ""
            raise DataError(f"{table}: no column of action units as {self.layout} writes them{hint}")
        return found[0], found[1]

    def _face(
        self, cells: dict[str, str], intensities: dict[int, str], presences: dict[int, str], table: Path
    ) -> Face | None:
        column = self.confidence_column if self.confidence_column in cells else None
        confidence = number_in(cells, column) if column is not None else None
        reason = self.failure(cells)
        if reason is None and column is not None:
            if confidence is None:
                reason = f"no value of {column}"
            elif confidence < self.settings.min_confidence:
                reason = f"confidence below {self.settings.min_confidence:g}"
        if reason is not None:
            self.notes.skip(reason, expected=True)
            return None
        name, frame = self.place_of(cells, table.stem)
        number = self.face_number(cells)
        image, is_aligned = self._find(name, frame, number)
        if image is None:
            example = name if frame is None else f"{name} frame {frame}"
            self.notes.skip("rows whose image is missing", example=example)
            return None
        units, only = self._units(cells, intensities, presences)
        fields: dict[str, Any] = {}
        if "expression" in self.settings.levels and (expression := self.expression(cells)) is not None:
            fields |= {"emotion": expression, "label_set": EXPRESSIONS8.name}
        if "affect" in self.settings.levels and (point := self.affect(cells)) is not None:
            fields |= {"valence": point[0], "arousal": point[1]}
        if not units and not fields:
            self.notes.skip("rows without a value")
            return None
        box = None if is_aligned else self.box(cells)
        if box is not None and (box := self._clipped(box, image)) is None:
            return None
        video = None if frame is None else name
        return Face(image, table.name, units, only, box, confidence, video, frame, fields)

    def _find(self, name: str, frame: int | None, face: int) -> tuple[str | None, bool]:
        """The image of a row, if it exists, and whether it is the aligned face alone."""
        if frame is None:
            return self._images.named(name), False
        folder = str(PurePosixPath(self._image_folders[1].replace(_BATCH, name)))
        if self.settings.frames == "order":
            place, inside = frame - self.first_frame, self._images.inside(folder)
            return (inside[place] if 0 <= place < len(inside) else None), False
        if aligned := self._images.aligned(folder):
            return aligned.get((frame, face)), True
        frames = self._images.frames(folder)
        return frames.get(frame + self._offset(folder, frames)), False

    def _offset(self, folder: str, frames: Collection[int]) -> int:
        if self.settings.frame_offset is not None or not frames:
            return self.settings.frame_offset or 0
        first = next((number for number in (0, 1) if number in frames), None)
        if first is None:
            zero, one = -self.first_frame, 1 - self.first_frame
            raise DataError(
                f"the first image in {folder} has the number {min(frames)}, so its frames may count from 0 or from 1. "
                f"Set frame_offset to {zero} or {one} (`--set frame_offset={zero}`)"
            )
        return first - self.first_frame

    def _units(
        self, cells: Mapping[str, str], intensities: dict[int, str], presences: dict[int, str]
    ) -> tuple[dict[int, float], tuple[int, ...]]:
        """Unit -> value, and the units whose value is no intensity."""
        if "units" not in self.settings.levels:
            return {}, ()
        graded = self._values(cells, intensities, _TOP_INTENSITY)
        seen = self._values(cells, presences, 1.0)
        for unit in graded.keys() & seen.keys():
            self._num_compared += 1
            is_active = seen[unit] >= OCCURRENCE_THRESHOLD
            self._disagreements[unit] += is_active != (graded[unit] >= ACTIVE_FROM)
        preferred, others = (graded, seen) if self.settings.prefer == "intensity" else (seen, graded)
        units = {**others, **preferred}
        only = seen.keys() - (graded.keys() if preferred is graded else set())
        return dict(sorted(units.items())), tuple(sorted(only))

    def _values(self, cells: Mapping[str, str], columns: dict[int, str], top: float) -> dict[int, float]:
        """Unit -> value from 0 to `top`, without empty cells."""
        found = {}
        for unit, column in columns.items():
            value = number_in(cells, column)
            if value is None:
                continue
            if not -_ALLOWED_EXCESS * top <= value <= (1 + _ALLOWED_EXCESS) * top:
                raise DataError(f"column '{column}': {value:g} is not within 0 and {top:g}, the scale of {self.layout}")
            found[unit] = min(top, max(0.0, value))
            self._num_clipped += found[unit] != value
        return found

    def _clipped(self, box: Box, image: str) -> Box | None:
        """The part of a box that is inside the image, whose edges detectors cross; None for a row to skip."""
        try:
            with open_strictly(self.image_root / image) as opened:
                width, height = displayed_size_px(opened)
        # Pillow's decoders raise many kinds of exceptions.
        except Exception as error:
            self.notes.skip(f"the image cannot be opened ({type(error).__name__})", example=image)
            return None
        left, top, right, bottom = box
        inside = (max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom))
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            self.notes.skip("the box of the face is outside of its image", example=image)
            return None
        return inside

    def _note_units(self) -> None:
        if self._disagreements.total():
            listed = ", ".join(f"AU{unit} {count}" for unit, count in sorted(self._disagreements.items()) if count)
            self.notes.add(
                f"presence and intensity (active from {ACTIVE_FROM:g}) disagree in {self._disagreements.total()} of "
                f"{self._num_compared} values ({listed}); the {self.settings.prefer} counts",
                expected=True,
            )
        if self._num_clipped:
            self.notes.add(f"{self._num_clipped} values slightly outside their scale are set to its end", expected=True)

    def _new_records(self, image: str, faces: Sequence[Face]) -> Iterator[EmotionRecord]:
        if len(faces) > 1 and any(face.box is None for face in faces):
            self.notes.skip("further faces of an image, without boxes to tell them apart", count=len(faces) - 1)
            faces = [max(faces, key=lambda face: face.confidence or 0.0)]
        stem = str(PurePosixPath(image).with_suffix(""))
        for number, face in enumerate(faces):
            with self.collect_faults(image):
                yield self.record(
                    image,
                    id=f"{stem}/face{number}" if len(faces) > 1 else stem,
                    image=image,
                    split=self.settings.default_split,
                    group=face.video,
                    box=face.box,
                    **face.values,
                    extra=face.marks(self.layout, self.presence_scale),
                )

    def _with_faces(
        self, records: Iterable[EmotionRecord], faces: Mapping[str, Sequence[Face]]
    ) -> Iterator[EmotionRecord]:
        left = {image: list(found) for image, found in faces.items()}
        without: list[str] = []
        for record in records:
            self.notes.num_rows += 1
            fitting = [face for face in left.get(record.image, ()) if face.may_be(record)]
            if len(fitting) != 1:
                without.append(record.id)
                yield record
                continue
            left[record.image].remove(fitting[0])
            self.notes.num_joined += 1
            yield self._completed(record, fitting[0])
        for image, found in left.items():
            if found:
                reason = "faces that belong to no record, or one of several that fit a record"
                self.notes.skip(reason, count=len(found), example=image)
        if without:
            self.notes.add(f"{len(without)} records stay as they were, without exactly one fitting row ({without[0]})")

    def _completed(self, record: EmotionRecord, face: Face) -> EmotionRecord:
        """The record with the values that it does not have."""
        values = face.values
        if record.action_units is not None:
            values["action_units"] = None
        if record.emotion is not None or record.label_set is not None:
            values["emotion"] = None
        if record.valence is not None or record.arousal is not None:
            values["valence"] = None
        kept = {
            name for name, group in _GROUPS.items() if values.get(group[0]) is not None and name in self.settings.levels
        }
        new = {key: values[key] for name in kept for key in _GROUPS[name]}
        if not new:
            self.notes.add("some records already have all values of their rows and stay as they were", expected=True)
            return record
        marks = face.marks(self.layout, self.presence_scale)
        marks = {key: value for key, value in marks.items() if _LEVEL_OF_MARK.get(key, "units") in kept}
        return record.model_copy(update={**new, "extra": {**record.extra, **marks}})


_GROUPS: dict[str, tuple[str, ...]] = {
    "units": ("action_units",),
    "expression": ("emotion", "label_set"),
    "affect": ("valence", "arousal"),
}
_LEVEL_OF_MARK = {"expression_by": "expression", "affect_by": "affect"}


def _fits(reader: type[Reader], row: Row) -> bool:
    return issubclass(reader, FaceTableReader) and any(map(reader.presence_column.fullmatch, row))
