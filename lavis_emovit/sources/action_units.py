"""Reader of videos whose frames are coded for facial action units: DISFA and BP4D.

DISFA (Mavadati et al., IEEE TAC 2013), a text file for each person and action unit, a line a frame:

    <root>/ActionUnit_Labels/SN001/SN001_au1.txt            frame,intensity (0 to 5)

BP4D (Zhang et al., Image and Vision Computing 2014), occurrence in one table a task, intensity in one a unit:

    <root>/AUCoding/AU_OCC/F001_T1.csv                      header: frame and unit numbers; cells 0, 1, 9 (not coded)
    <root>/AUCoding/AU_INT/AU06/F001_T1_AU06.csv            frame,intensity (0 to 5; 9 is not coded)

The frames are pictures that a person has taken out of the videos; their names end in the frame's number.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.settings import Settings
from lavis_emovit.sources.frames import frames_in, number_rows
from lavis_emovit.sources.problems import Notes, Problems

_NOT_CODED = 9
_MAX_INTENSITY = 5
_REMEDY = "Unpack the codes again, or correct these files."


class ActionUnitSettings(Settings):
    """Where codes and frames lie below the root; `{person}`, `{task}` and `{unit}` stand for names and numbers.

    Attributes:
        intensity: pattern of the intensity files, one for each unit.
        occurrence: pattern of the occurrence tables; left out where there are none.
        frames: pattern of the folder with the frames of a person (and task).
        units: action units to keep; left out, all that are coded.
        every: take each so many-th frame only; neighbours in a video are nearly the same picture.
        frame_offset: number of a picture minus number of its line in the codes.
    """

    intensity: str | None = None
    occurrence: str | None = None
    frames: str = "frames/{person}"
    units: tuple[int, ...] = ()
    every: int = Field(default=1, ge=1)
    frame_offset: int = 0


# (person, task)
_Clip = tuple[str, str]


def read_action_units(
    root: str | os.PathLike[str], settings: ActionUnitSettings, *, source: str, notes: Notes | None = None
) -> Iterator[EmotionRecord]:
    """One record for every coded frame that is there; the person is the group.

    `action_units` holds intensities; a unit that is coded for occurrence only counts 0 or 1, and `extra` names it under
    `occurrence_only`.

    Raises:
        DataError: no code files or no frames at all (at once), or, after the sound ones, files that are no codes.
    """
    root = Path(root)
    clips: dict[_Clip, list[tuple[str, int | None, Path]]] = {}
    for kind, pattern in (("intensity", settings.intensity), ("occurrence", settings.occurrence)):
        if pattern is None:
            continue
        regex = _regex(pattern)
        for path in sorted(root.glob(re.sub(r"\{[a-z]+\}", "*", pattern))):
            match = regex.fullmatch(path.relative_to(root).as_posix())
            if match:
                named = match.groupdict()
                unit = int(named["unit"]) if named.get("unit") else None
                clips.setdefault((named["person"], named.get("task") or ""), []).append((kind, unit, path))
    if not clips:
        looked = " or ".join(pattern for pattern in (settings.intensity, settings.occurrence) if pattern)
        raise DataError(f"{root}: no action-unit codes there (looked for {looked})")
    if not any(_frame_folder(root, settings, clip).is_dir() for clip in clips):
        raise DataError(
            f"{_frame_folder(root, settings, next(iter(clips)))}: no such folder. Take the frames out of the videos "
            "first, for example with ffmpeg, as pictures whose names end in the frame's number."
        )
    return _records(root, settings, source, clips, notes or Notes())


def _records(
    root: Path,
    settings: ActionUnitSettings,
    source: str,
    clips: dict[_Clip, list[tuple[str, int | None, Path]]],
    notes: Notes,
) -> Iterator[EmotionRecord]:
    problems = Problems(root, _REMEDY)
    for (person, task), files in sorted(clips.items()):
        try:
            intensities, occurrences = _codes(files, settings)
        except DataError as error:
            problems.add(str(error))
            continue
        pictures = frames_in(_frame_folder(root, settings, (person, task)))
        clip = "_".join(part for part in (person, task) if part)
        coded = sorted({*intensities, *occurrences})
        for frame in coded[:: settings.every]:
            picture = pictures.get(frame + settings.frame_offset)
            if picture is None:
                notes.leave_out("coded frames without a picture")
                continue
            graded, seen = intensities.get(frame, {}), occurrences.get(frame, {})
            only = sorted(set(seen) - set(graded))
            values = {
                "id": f"{source}/{clip}/{frame:05d}",
                "image": picture.relative_to(root).as_posix(),
                "split": "train",
                "source": source,
                "action_units": {**seen, **graded},
                "group": person,
                "extra": {"frame": frame, **({"occurrence_only": ",".join(map(str, only))} if only else {})},
            }
            yield parse_record(json.dumps(values), f"{clip}, frame {frame}")
    problems.finish()


def _codes(
    files: list[tuple[str, int | None, Path]], settings: ActionUnitSettings
) -> tuple[dict[int, dict[int, float]], dict[int, dict[int, float]]]:
    """Frame -> unit -> intensity, and frame -> unit -> occurrence."""
    intensities: dict[int, dict[int, float]] = {}
    occurrences: dict[int, dict[int, float]] = {}
    for kind, unit, path in files:
        if kind == "intensity" and unit is not None:
            for row in number_rows(path)[1]:
                if len(row) != 2 or not (0 <= row[1] <= _MAX_INTENSITY or row[1] == _NOT_CODED):
                    raise DataError(f"{path}: expected frame and intensity (0 to 5, or 9), got {row}")
                if row[1] != _NOT_CODED and _wanted(unit, settings):
                    intensities.setdefault(int(row[0]), {})[unit] = row[1]
            continue
        header, rows = number_rows(path, header=True)
        try:
            units = [int(re.sub(r"\D", "", name)) for name in header[1:]]
        except ValueError:
            raise DataError(f"{path}: the first row must name the action units, got {header[:6]}") from None
        for row in rows:
            if len(row) != len(header):
                raise DataError(f"{path}: expected {len(header)} numbers a line, as in the first row, got {len(row)}")
            for number, value in zip(units, row[1:]):
                if value in (0, 1) and _wanted(number, settings):
                    occurrences.setdefault(int(row[0]), {})[number] = value
    return intensities, occurrences


def _wanted(unit: int, settings: ActionUnitSettings) -> bool:
    return not settings.units or unit in settings.units


def _regex(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression; a name that stands twice is the same both times."""
    parts, seen = [], set()
    for piece in re.split(r"(\{[a-z]+\})", pattern):
        name = piece[1:-1]
        if not (piece.startswith("{") and name in ("person", "task", "unit")):
            parts.append(re.escape(piece).replace(r"\*", "[^/]*"))
        elif name in seen:
            parts.append(f"0*(?P={name})" if name == "unit" else f"(?P={name})")
        else:
            seen.add(name)
            parts.append(f"(?P<{name}>{r'0*[0-9]+' if name == 'unit' else '[^/_]+'})")
    return re.compile("".join(parts))


def _frame_folder(root: Path, settings: ActionUnitSettings, clip: _Clip) -> Path:
    return root / settings.frames.format(person=clip[0], task=clip[1])
