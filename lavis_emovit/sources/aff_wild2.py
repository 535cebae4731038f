"""Reader of Aff-Wild2 (Kollias and Zafeiriou, 2018 to 2024): frames with expression, valence-arousal and action units.

    <root>/annotations/<any folder>/Train_Set/<video>.txt        also Validation_Set; a file a task and video
    <root>/cropped_aligned/<video>/00001.jpg                     the aligned faces; frames without a face are missing

The first line of an annotation file names its columns and so its task: `valence,arousal`; `Neutral,Anger,...`, then a
class number a line; `AU1,AU2,...`. Line n behind it belongs to frame n. A value of -5 (valence, arousal) or -1 (class,
action unit) marks what is not annotated. The folders of the tasks are called differently in each year's release.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.settings import Settings
from lavis_emovit.sources.frames import frames_in, number_rows
from lavis_emovit.sources.problems import Notes, Problems

_SPLIT_OF_FOLDER = {"train": "train", "validation": "val", "val": "val", "test": "test"}
_REMEDY = "Unpack the annotations again, or correct these files."


class AffWild2Settings(Settings):
    """Folders of Aff-Wild2 below the root.

    Attributes:
        annotations: folder of the annotation files, in folders of any name and depth.
        frames: folder with a folder of frames for each video.
        every: take each so many-th annotated frame only; neighbours in a video are nearly the same picture.
    """

    annotations: str = "annotations"
    frames: str = "cropped_aligned"
    every: int = Field(default=1, ge=1)


def read_aff_wild2(
    root: str | os.PathLike[str], settings: AffWild2Settings, *, source: str, notes: Notes | None = None
) -> Iterator[EmotionRecord]:
    """One record for every frame with a face and at least one annotation; the video is the group.

    A video that one task trains on and another validates on counts as validation, so that no video is in two splits.

    Raises:
        DataError: no annotations or frames (at once), or, after the sound ones, files that are no annotations.
    """
    root = Path(root)
    files: dict[str, list[tuple[str, Path]]] = {}
    for path in sorted((root / settings.annotations).rglob("*.txt")):
        split = _SPLIT_OF_FOLDER.get(path.parent.name.lower().removesuffix("_set"))
        if split is not None:
            files.setdefault(path.stem, []).append((split, path))
    if not files:
        raise DataError(
            f"{root / settings.annotations}: no annotations there; expected <task>/Train_Set/<video>.txt and "
            "<task>/Validation_Set/<video>.txt"
        )
    if not (root / settings.frames).is_dir():
        raise DataError(f"{root / settings.frames}: no such folder; it must hold a folder of frames for each video")
    return _records(root, settings, source, files, notes or Notes())


def _records(
    root: Path, settings: AffWild2Settings, source: str, files: dict[str, list[tuple[str, Path]]], notes: Notes
) -> Iterator[EmotionRecord]:
    problems = Problems(root, _REMEDY)
    people: dict[str, set[str]] = {}
    for video, found in files.items():
        # The two people of one video are annotated apart, as <video>_left and <video>_right.
        people.setdefault(_recording(video), set()).update(split for split, _ in found)
    mixed = sorted(video for video, splits in people.items() if len(splits) > 1)
    if mixed:
        notes.add(f"{len(mixed)} videos are in several splits and count as validation, for example {mixed[0]}")
    for video, found in files.items():
        splits = people[_recording(video)]
        split = next(name for name in ("val", "test", "train") if name in splits)
        fields: dict[int, dict[str, Any]] = {}
        try:
            for _, path in found:
                _annotations(path, fields)
        except DataError as error:
            problems.add(str(error))
            continue
        pictures = frames_in(root / settings.frames / video)
        for frame in sorted(fields)[:: settings.every]:
            picture = pictures.get(frame)
            if picture is None:
                notes.leave_out("annotated frames without a picture of the face", expected=True)
                continue
            values = {
                "id": f"{source}/{video}/{frame:05d}",
                "image": picture.relative_to(root).as_posix(),
                "split": split,
                "source": source,
                "group": _recording(video),
                "extra": {"frame": frame},
                **fields[frame],
            }
            try:
                record = parse_record(json.dumps(values), f"{video}, frame {frame}")
            except DataError as error:
                problems.add(str(error))
                continue
            yield record
    problems.finish()


def _recording(video: str) -> str:
    return video.removesuffix("_left").removesuffix("_right")


def _annotations(path: Path, fields: dict[int, dict[str, Any]]) -> None:
    """Add what a file says to the fields of its frames."""
    names, rows = number_rows(path, header=True)
    folded = [name.casefold() for name in names]
    if folded == ["valence", "arousal"]:
        kind, width = "va", 2
    elif folded and all(name.startswith("au") and name[2:].isdigit() for name in folded):
        kind, width = "au", len(names)
    elif "neutral" in folded:
        kind, width = "expression", 1
    else:
        raise DataError(f"{path}: the first line names no known task: {', '.join(names)[:80]}")
    labels = get_label_set("aff_wild8")
    for frame, row in enumerate(rows, start=1):
        if len(row) != width:
            raise DataError(f"{path}, line {frame + 1}: expected {width} numbers, got {len(row)}")
        if kind == "va" and all(-1 <= value <= 1 for value in row):
            fields.setdefault(frame, {}).update({"valence": row[0], "arousal": row[1]})
        elif kind == "va" and -5 not in row:
            raise DataError(f"{path}, line {frame + 1}: valence and arousal must lie in [-1, 1], or be -5")
        elif kind == "au" and (coded := {int(n[2:]): v for n, v in zip(folded, row) if v in (0, 1)}):
            fields.setdefault(frame, {})["action_units"] = coded
        elif kind == "expression" and row[0] != -1:
            if row[0] not in range(len(names)):
                raise DataError(f"{path}, line {frame + 1}: class {row[0]:g} is none of the {len(names)} named ones")
            label = labels.canonical(names[int(row[0])])
            fields.setdefault(frame, {}).update({"emotion": label, "label_set": labels.name})
