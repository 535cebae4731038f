"""Reader of CK+ (Lucey et al., CVPR Workshops 2010): the peak frame of every labelled sequence.

    <root>/cohn-kanade-images/S005/001/S005_001_00000001.png ... S005_001_00000011.png
    <root>/Emotion/S005/001/S005_001_00000011_emotion.txt       one number, 0 to 7
    <root>/FACS/S005/001/S005_001_00000011_facs.txt             action unit and intensity, one pair per line

A sequence runs from a neutral face to the peak of the expression, its last frame; the name of the label file has that
frame's number. An intensity of 0 in the FACS file means "present, not graded".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lavis_emovit.errors import DataError
from lavis_emovit.files import find_files
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Reader
from lavis_emovit.sources.frames import frames_in, number_rows, whole_number

EMOTION_OF_CODE = {
    1: "anger", 2: "contempt", 3: "disgust", 4: "fear", 5: "happiness", 6: "sadness", 7: "surprise",
}  # fmt: skip


class CkPlusSettings(Settings):
    """Folders of CK+ below the root."""

    # images, emotions, facs: the folders as unpacked.
    images: str = "cohn-kanade-images"
    emotions: str = "Emotion"
    facs: str = "FACS"
    # Intensity of an action unit that is present but not graded (1 is the faintest, 5 the most).
    ungraded_intensity: float = 1.0


class CkPlusReader(Reader, layout="ck_plus"):
    """One record per labelled sequence, with its peak frame; the person is the group."""

    settings_class = CkPlusSettings
    remedy = "Unpack the dataset again, or correct these files."
    settings: CkPlusSettings

    def files(self) -> list[Path]:
        return [*self._label_files(), *find_files(self.root / self.settings.facs, "*/*/*_facs.txt")]

    def _label_files(self) -> list[Path]:
        return find_files(self.root / self.settings.emotions, "*/*/*_emotion.txt")

    def is_present(self) -> bool:
        return (self.root / self.settings.emotions).is_dir()

    def check(self) -> None:
        images, emotions = self.settings.images, self.settings.emotions
        for folder in (images, emotions):
            if not (self.root / folder).is_dir():
                raise DataError(f"{self.root / folder}: no such folder; CK+ has {images}/ and {emotions}/")

    def records(self) -> Iterator[EmotionRecord]:
        labels = self._label_files()
        for path in find_files(self.root / self.settings.emotions, "**/*.txt"):
            if path not in labels:
                self.notes.num_rows += 1
                self.notes.skip("files that are no label of a sequence", example=self.relative(path))
        for label_file in labels:
            self.notes.num_rows += 1
            with self.collect_faults():
                _, rows = number_rows(label_file)
                if len(rows) != 1 or len(rows[0]) != 1:
                    raise DataError(f"{label_file}: expected one number, the emotion")
                code = whole_number(rows[0][0], label_file)
                if code == 0:
                    self.notes.skip("sequences labelled neutral", expected=True)
                elif code not in EMOTION_OF_CODE:
                    raise DataError(f"{label_file}: emotion {code} is not in 0 to 7")
                else:
                    yield self._sequence(label_file, EMOTION_OF_CODE[code])

    def _sequence(self, label_file: Path, emotion: str) -> EmotionRecord:
        person, sequence = label_file.parent.parent.name, label_file.parent.name
        stem = label_file.stem.removesuffix("_emotion")
        folder = self.root / self.settings.images / person / sequence
        frames = frames_in(folder)
        frame = next((number for number, path in frames.items() if path.stem == stem), None)
        if frame is None:
            raise DataError(f"{label_file}: its frame {stem} is missing in {folder}")
        if frame != max(frames):
            self.notes.add(f"{person}/{sequence}: the labelled frame {stem} is not the last one")
        facs = self.root / self.settings.facs / person / sequence / f"{stem}_facs.txt"
        if not facs.is_file() and (others := find_files(facs.parent, "*_facs.txt") if facs.parent.is_dir() else []):
            self.notes.add(f"{self.relative(others[0])}: codes of another frame than the labelled {stem} are not read")
        units, ungraded = self._action_units(facs)
        return self.record(
            str(label_file),
            id=f"{person}_{sequence}",
            image=self.relative(frames[frame]),
            split="train",
            emotion=emotion,
            label_set="ekman7",
            action_units=units or None,
            group=person,
            extra={"frame": frame, **({"ungraded_action_units": ",".join(ungraded)} if ungraded else {})},
        )

    def _action_units(self, path: Path) -> tuple[dict[int, float], list[str]]:
        """Action unit -> intensity, and the units that are not graded."""
        units: dict[int, float] = {}
        ungraded = []
        for row in number_rows(path)[1] if path.is_file() else ():
            if len(row) != 2:
                raise DataError(f"{path}: expected an action unit and an intensity on every line")
            unit, intensity = whole_number(row[0], path), row[1]
            if unit in units:
                self.notes.add(f"{self.relative(path)}: action unit {unit} has several lines, the last one counts")
            if not intensity:
                ungraded.append(str(unit))
            units[unit] = intensity or self.settings.ungraded_intensity
        return units, ungraded
