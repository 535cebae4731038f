"""Reader of Aff-Wild2 (Kollias and Zafeiriou, 2018 to 2024): frames with expression, valence-arousal and action units.

    <root>/annotations/<any folder>/Train_Set/<video>.txt        also Validation_Set; one file per task and video
    <root>/cropped_aligned/<video>/00001.jpg                     the aligned faces; frames without a face are missing

The first line of an annotation file names its columns and thereby its task: `valence,arousal`; `Neutral,Anger,...`,
followed by a class number per line; `AU1,AU2,...`. The n-th line after it belongs to frame n. -5 (valence, arousal) or
-1 (class, action unit) means not annotated. The names of the task folders differ between releases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.files import find_files
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings, added_field
from lavis_emovit.sources.base import SPLIT_NAMES, Reader
from lavis_emovit.sources.clip_files import frame_fields
from lavis_emovit.sources.frames import frames_in, number_rows


class NeighbourSettings(Settings):
    """The annotated frame, `neighbours` frames before it and as many after it; `rate_fps` of the videos."""

    neighbours: int = Field(ge=1, le=1000)
    rate_fps: float = Field(default=30.0, gt=0.0)


class PartSettings(Settings):
    """Parts of a video of this length, in seconds; `rate_fps` of the videos."""

    length_s: float = Field(gt=0.0, le=3600.0)
    rate_fps: float = Field(default=30.0, gt=0.0)


class AffWild2Settings(Settings):
    """Folders of Aff-Wild2 below the root."""

    annotations: str = "annotations"  # folder of the annotation files, in sub-folders of any name and depth
    frames: str = "cropped_aligned"  # folder with a folder of frames for each video
    # Use only every n-th annotated frame; neighbouring frames are nearly the same image.
    every: int = Field(default=1, ge=1)
    clip: NeighbourSettings | None = None  # a record is a clip around its frame; null: an image
    # A record is a part of a video, with the values of its annotated frames over time; null: one frame.
    part: PartSettings | None = added_field(None)

    @model_validator(mode="after")
    def _one_kind_of_clip(self) -> AffWild2Settings:
        if self.clip is not None and self.part is not None:
            raise ValueError("`clip` makes a clip around each frame, `part` one of many frames; set only one of them")
        return self


class AffWild2Reader(Reader, layout="aff_wild2"):
    """One record per frame with a face and at least one annotation, as an image or a clip; the video is the group.

    With `part`, one record per part of a video that has several such frames.

    A video that is in the training set of one task and in the validation set of another counts as validation, so that
    no video is in two splits.
    """

    settings_class = AffWild2Settings
    remedy = "Unpack the annotations again, or correct these files."
    settings: AffWild2Settings

    @property
    def _folder(self) -> Path:
        return self.root / self.settings.annotations

    @cached_property
    def _files(self) -> dict[str, list[tuple[str, Path]]]:
        """Video -> (split, annotation file) of each task."""
        files: dict[str, list[tuple[str, Path]]] = {}
        self._others: list[Path] = []  # of no split
        for path in find_files(self._folder, "**/*.txt"):
            split = _split_of(path.relative_to(self._folder))
            if split is None:
                self._others.append(path)
            else:
                files.setdefault(path.stem, []).append((split, path))
        return files

    def files(self) -> list[Path]:
        return [path for found in self._files.values() for _, path in found]

    def is_present(self) -> bool:
        return self._folder.is_dir()

    def check(self) -> None:
        if not self._files:
            raise DataError(
                f"{self._folder}: no annotations; expected <task>/Train_Set/<video>.txt and "
                "<task>/Validation_Set/<video>.txt"
            )
        frames = self.root / self.settings.frames
        if not frames.is_dir():
            raise DataError(f"{frames}: no such folder; it must contain a folder of frames for each video")

    def records(self) -> Iterator[EmotionRecord]:
        splits: dict[str, set[str]] = {}
        for path in self._others:
            self.notes.num_rows += 1
            self.notes.skip("text files in no folder of a split, such as Train_Set", example=self.relative(path))
        for video, found in self._files.items():
            splits.setdefault(_recording(video), set()).update(split for split, _ in found)
        mixed = sorted(video for video, names in splits.items() if len(names) > 1)
        if mixed:
            self.notes.add(f"{len(mixed)} videos are in several splits and count as validation, for example {mixed[0]}")
        for video, found in self._files.items():
            group = _recording(video)
            split = next(name for name in ("val", "test", "train") if name in splits[group])
            annotated: dict[int, dict[str, Any]] = {}  # frame -> fields of its record, from the files of all tasks
            with self.collect_faults():
                for _, path in found:
                    _add_annotations(path, annotated)
            images = frames_in(self.root / self.settings.frames / video)
            if 0 in images:
                raise DataError(f"{images[0]}: Aff-Wild2 counts frames from 1; rename the images of {video}")
            chosen = self.chosen_frames(annotated, self.settings.every)
            with_face = {frame: annotated[frame] for frame in chosen if frame in images}
            if len(with_face) < len(chosen):
                count = len(chosen) - len(with_face)
                self.notes.skip("annotated frames without an image of the face", expected=True, count=count)
            made = self._frames if self.settings.part is None else self._parts
            for frame, values in made(images, with_face):
                with self.collect_faults():
                    yield self.record(
                        f"{video}, frame {frame}", id=f"{video}/{frame:05d}", split=split, group=group, **values
                    )

    def _frames(
        self, images: dict[int, Path], annotated: dict[int, dict[str, Any]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and fields of a record for each annotated frame."""
        for frame, values in annotated.items():
            units = values.get("action_units")
            extra = {"frame": frame, **({"occurrence_only": ",".join(map(str, units))} if units else {})}
            yield frame, {**self._image_or_clip(images, frame), "extra": extra, **values}

    def _parts(
        self, images: dict[int, Path], annotated: dict[int, dict[str, Any]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number of the first frame and fields of a record for each part of a video with two annotated frames."""
        part = self.settings.part
        assert part is not None
        size = max(1, round(part.length_s * part.rate_fps))
        for place, group in groupby(sorted(annotated), key=lambda frame: (frame - 1) // size):
            points = list(group)
            if len(points) < 2:
                self.notes.skip("annotated frames that are alone in their part of the video", expected=True)
                continue
            self.notes.num_joined += len(points) - 1
            numbers = [number for number in range(place * size + 1, (place + 1) * size + 1) if number in images]
            found = frame_fields([(number, self.relative(images[number])) for number in numbers], part.rate_fps)
            times_s = [(point - numbers[0]) / part.rate_fps for point in points]
            found["clip"]["trace"] = {"times_s": times_s, **_columns([annotated[point] for point in points])}
            yield numbers[0], {**found, **_shared([annotated[one] for one in points])}

    def _image_or_clip(self, images: dict[int, Path], frame: int) -> dict[str, Any]:
        clip = self.settings.clip
        if clip is None:
            return {"image": self.relative(images[frame])}
        window = range(frame - clip.neighbours, frame + clip.neighbours + 1)
        frames = [(number, self.relative(images[number])) for number in window if number in images]
        return frame_fields(frames, clip.rate_fps, frame)


def _columns(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The values of frames as the columns of a trace."""
    names = [name for name in ("emotion", "valence", "arousal") if any(name in point for point in points)]
    columns: dict[str, Any] = {name: [point.get(name) for point in points] for name in names}
    coded = [point.get("action_units", {}) for point in points]
    units = sorted({unit for values in coded for unit in values})
    return columns | ({"action_units": {unit: [one.get(unit) for one in coded] for unit in units}} if units else {})


def _shared(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the record of several frames has besides their values: the emotion only if all of them have the same one."""
    found: dict[str, Any] = {}
    labels = {point.get("emotion") for point in points}
    if labels != {None}:
        found["label_set"] = next(point["label_set"] for point in points if "label_set" in point)
    if len(labels) == 1:
        found["emotion"] = labels.pop()
    units = sorted({unit for point in points for unit in point.get("action_units", ())})
    return {**found, "extra": {"occurrence_only": ",".join(map(str, units))} if units else {}}


def _split_of(path: Path) -> str | None:
    """The split that the nearest folder names."""
    names = (part.lower().removesuffix("_set") for part in reversed(path.parts[:-1]))
    return next((SPLIT_NAMES[name] for name in names if name in SPLIT_NAMES), None)


def _recording(video: str) -> str:
    """The video file: two people in one video are annotated separately, as <video>_left and <video>_right."""
    return video.removesuffix("_left").removesuffix("_right")


def _add_annotations(path: Path, annotated: dict[int, dict[str, Any]]) -> None:
    names, rows = number_rows(path, header=True, numbered=True)
    folded = [name.casefold() for name in names]
    if folded == ["valence", "arousal"]:
        kind, width = "va", 2
    elif folded and len(set(folded)) == len(folded) and all(re.fullmatch("au[0-9]{1,3}", name) for name in folded):
        kind, width = "au", len(names)
    elif "neutral" in folded:
        kind, width = "expression", 1
    else:
        raise DataError(f"{path}: the first line belongs to no known task: {', '.join(names)[:80]}")
    labels = get_label_set("aff_wild8")
    for frame, row in enumerate(rows, start=1):
        if len(row) != width:
            raise DataError(f"{path}, line {frame + 1}: expected {width} numbers, got {len(row)}")
        if kind == "va" and all(-1 <= value <= 1 for value in row):
            _put(annotated, frame, path, valence=row[0], arousal=row[1])
        elif kind == "va" and -5 not in row:
            raise DataError(f"{path}, line {frame + 1}: valence and arousal must be in [-1, 1], or -5")
        elif kind == "au" and not set(row) <= {-1, 0, 1}:
            raise DataError(f"{path}, line {frame + 1}: action units must be 0, 1 or -1")
        elif kind == "au" and (coded := {int(n[2:]): v for n, v in zip(folded, row) if v in (0, 1)}):
            _put(annotated, frame, path, action_units=coded)
        elif kind == "expression" and row[0] != -1:
            if row[0] not in range(len(names)):
                raise DataError(f"{path}, line {frame + 1}: class {row[0]:g} is not one of the {len(names)} classes")
            label = labels.canonical(names[int(row[0])])
            _put(annotated, frame, path, emotion=label, label_set=labels.name)


def _put(annotated: dict[int, dict[str, Any]], frame: int, path: Path, **fields: Any) -> None:
    """Add the fields of a frame; DataError if another file has other values for it."""
    known = annotated.setdefault(frame, {})
    for name, value in fields.items():
        if known.setdefault(name, value) != value:
            raise DataError(
                f"{path}, line {frame + 1}: {name} is {value} here, and {known[name]} in another file of this video"
            )
