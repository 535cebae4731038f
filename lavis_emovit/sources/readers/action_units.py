"""Reader of videos with coded facial action units: DISFA and BP4D.

DISFA (Mavadati et al., IEEE TAC 2013) has a text file for each person and action unit, with one line per frame:

    <root>/ActionUnit_Labels/SN001/SN001_au1.txt            frame,intensity (0 to 5)

BP4D (Zhang et al., Image and Vision Computing 2014) has occurrence in a table per task, intensity in a table per unit:

    <root>/AUCoding/AU_OCC/F001_T1.csv                      header: frame and unit numbers; cells 0, 1, 9 (not coded)
    <root>/AUCoding/AU_INT/AU06/F001_T1_AU06.csv            frame,intensity (0 to 5; 9 is not coded)

The user extracts the frames from the videos as images whose names end in the frame's number.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

from pydantic import Field

from lavis_emovit.errors import DataError
from lavis_emovit.files import find_files
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Reader
from lavis_emovit.sources.frames import frames_in, number_rows, whole_number

_NOT_CODED = 9
_MAX_INTENSITY = 5

_Clip = tuple[str, str]  # (person, task)
_Codes = dict[int, dict[int, float]]  # frame -> unit -> code
_CodeFile = tuple[str, int | None, Path]  # ("intensity" or "occurrence", unit, file)


class ActionUnitSettings(Settings):
    """Patterns of codes and frames below the root, with `{person}`, `{task}` and `{unit}` for names and numbers."""

    intensity: str | None = None  # pattern of the intensity files, one per unit; null if there are none
    occurrence: str | None = None  # pattern of the occurrence tables; null if there are none
    frames: str = "frames/{person}"  # pattern of the folder with the frames of a person (and task)
    units: tuple[int, ...] = ()  # action units to keep; empty: all that are coded
    every: int = Field(default=1, ge=1)  # use only every n-th frame; neighbouring frames are nearly the same image
    # Number of an image minus its frame number in the codes. Null: 0, and refused if the first numbers differ by 1.
    frame_offset: int | None = None


class ActionUnitReader(Reader, layout="action_units"):
    """One record per coded frame that has an image; the person is the group.

    `action_units` has intensities. A unit that is coded for occurrence only has 0 or 1, and `extra` lists it under
    `occurrence_only`.
    """

    settings_class = ActionUnitSettings
    remedy = "Unpack the codes again, or correct these files."
    settings: ActionUnitSettings

    @cached_property
    def _clips(self) -> dict[_Clip, list[_CodeFile]]:
        clips: dict[_Clip, list[_CodeFile]] = {}
        self._others: list[Path] = []  # whose names do not fit
        for kind, pattern in (("intensity", self.settings.intensity), ("occurrence", self.settings.occurrence)):
            if pattern is None:
                continue
            regex = _regex(pattern)
            for path in find_files(self.root, re.sub(r"\{[a-z]+\}", "*", pattern)):
                match = regex.fullmatch(self.relative(path))
                if match is None:
                    self._others.append(path)
                else:
                    named = match.groupdict()
                    unit = int(named["unit"]) if named.get("unit") else None
                    clips.setdefault((named["person"], named.get("task") or ""), []).append((kind, unit, path))
        return clips

    def files(self) -> list[Path]:
        return [path for found in self._clips.values() for _, _, path in found]

    def _frame_folder(self, clip: _Clip) -> Path:
        return self.root / self.settings.frames.format(person=clip[0], task=clip[1])

    def check(self) -> None:
        if not self._clips:
            patterns = " or ".join(filter(None, (self.settings.intensity, self.settings.occurrence)))
            raise DataError(f"{self.root}: no action-unit codes found (looked for {patterns})")
        if not any(self._frame_folder(clip).is_dir() for clip in self._clips):
            raise DataError(
                f"{self._frame_folder(next(iter(self._clips)))}: no such folder. First extract the frames from the "
                "videos, for example with ffmpeg, as images whose names end in the frame's number."
            )

    def records(self) -> Iterator[EmotionRecord]:
        for path in self._others:
            self.notes.num_rows += 1
            self.notes.skip("files of codes whose names do not fit the pattern", example=self.relative(path))
        for (person, task), files in sorted(self._clips.items()):
            with self.collect_faults():
                intensities, occurrences = self._codes(files)
                clip = "_".join(part for part in (person, task) if part)
                self._note_absent(clip, intensities)
                intensities, occurrences = _without_uncoded(intensities), _without_uncoded(occurrences)
                images = frames_in(self._frame_folder((person, task)))
                self._check_first_frames(clip, {*intensities, *occurrences}, images)
                for frame in self.chosen_frames({*intensities, *occurrences}, self.settings.every):
                    image = images.get(frame + (self.settings.frame_offset or 0))
                    if image is None:
                        self.notes.skip("coded frames without an image")
                        continue
                    graded, seen = intensities.get(frame, {}), occurrences.get(frame, {})
                    only = sorted(set(seen) - set(graded))
                    yield self.record(
                        f"{clip}, frame {frame}",
                        id=f"{clip}/{frame:05d}",
                        image=self.relative(image),
                        split="train",
                        action_units={**seen, **graded},
                        group=person,
                        extra={"frame": frame, **({"occurrence_only": ",".join(map(str, only))} if only else {})},
                    )

    def _check_first_frames(self, clip: str, coded: Collection[int], images: Collection[int]) -> None:
        shift = min(images, default=0) - min(coded, default=0)
        if self.settings.frame_offset is None and coded and images and abs(shift) == 1:
            raise DataError(
                f"{clip}: the first image has the number {min(images)}, the first code {min(coded)}, so every code may "
                f"belong to another image. Set frame_offset to {shift} if they are the same frame, else to 0 "
                f"(`--set frame_offset={shift}`)"
            )

    def _codes(self, files: list[_CodeFile]) -> tuple[_Codes, _Codes]:
        """Frame -> unit -> intensity, and frame -> unit -> occurrence; both also with the units that are not coded."""
        intensities: _Codes = {}
        occurrences: _Codes = {}
        for kind, unit, path in files:
            if kind == "intensity" and unit is not None:
                for row in number_rows(path)[1]:
                    if len(row) != 2 or not (0 <= row[1] <= _MAX_INTENSITY or row[1] == _NOT_CODED):
                        raise DataError(f"{path}: expected frame and intensity (0 to 5, or 9), got {row}")
                    if self._is_kept(unit):
                        _put(intensities, row[0], unit, row[1], path)
                continue
            header, rows = number_rows(path, header=True)
            try:
                units = [int(number) for name in header[1:] for (number,) in [re.findall(r"\d+", name)]]
                if not units:
                    raise ValueError
            except ValueError:
                raise DataError(f"{path}: the first row must name the action units, got {header[:6]}") from None
            for row in rows:
                if len(row) != len(header):
                    raise DataError(f"{path}: expected {len(header)} numbers per line as in the header, got {len(row)}")
                if not set(row[1:]) <= {0, 1, _NOT_CODED}:
                    raise DataError(f"{path}: frame {row[0]:g} has codes other than 0, 1 and {_NOT_CODED}")
                for number, value in zip(units, row[1:]):
                    if self._is_kept(number):
                        _put(occurrences, row[0], number, value, path)
        return intensities, occurrences

    def _note_absent(self, clip: str, intensities: _Codes) -> None:
        """Note the units that have no line, not even "not coded", in some of the frames of a clip."""
        named = {unit for files in self._clips.values() for kind, unit, _ in files if kind == "intensity" and unit}
        for unit in sorted(filter(self._is_kept, named)):
            count = sum(unit not in codes for codes in intensities.values())
            if count:
                self.notes.add(f"{clip}: {count} of {len(intensities)} frames have no line for action unit {unit}")

    def _is_kept(self, unit: int) -> bool:
        return not self.settings.units or unit in self.settings.units


def _put(codes: _Codes, frame: float, unit: int, value: float, path: Path) -> None:
    """Add a code; DataError if the unit has another one in this frame."""
    number = whole_number(frame, path)
    first = codes.setdefault(number, {}).setdefault(unit, value)
    if first != value:
        raise DataError(f"{path}: frame {number} has the codes {first:g} and {value:g} for unit {unit}; keep one")


def _without_uncoded(codes: _Codes) -> _Codes:
    found = {frame: {n: v for n, v in units.items() if v != _NOT_CODED} for frame, units in codes.items()}
    return {frame: units for frame, units in found.items() if units}


def _regex(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression; a name that appears twice must be the same both times."""
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
