"""Reader of CK+ (Lucey et al., CVPR Workshops 2010): the peak frame of every sequence that is labelled.

    <root>/cohn-kanade-images/S005/001/S005_001_00000001.png ... S005_001_00000011.png
    <root>/Emotion/S005/001/S005_001_00000011_emotion.txt       one number, 0 to 7
    <root>/FACS/S005/001/S005_001_00000011_facs.txt             action unit and intensity, a pair a line

A sequence runs from a face at rest to the peak of the expression, which is its last frame; the label's file name has
that frame's number. An intensity of 0 in the FACS file means "present, not graded".
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.settings import Settings
from lavis_emovit.sources.frames import frames_in, number_rows
from lavis_emovit.sources.problems import Notes, Problems

EMOTION_OF_CODE = {
    1: "anger", 2: "contempt", 3: "disgust", 4: "fear", 5: "happiness", 6: "sadness", 7: "surprise",
}  # fmt: skip
_REMEDY = "Unpack the dataset again, or correct these files."


class CkPlusSettings(Settings):
    """Folders of CK+ below the root.

    Attributes:
        images, emotions, facs: the folders as they are unpacked.
        ungraded_intensity: what an action unit counts that is present and not graded (1 is the faintest, 5 the most).
    """

    images: str = "cohn-kanade-images"
    emotions: str = "Emotion"
    facs: str = "FACS"
    ungraded_intensity: float = 1.0


def read_ck_plus(
    root: str | os.PathLike[str], settings: CkPlusSettings, *, source: str, notes: Notes | None = None
) -> Iterator[EmotionRecord]:
    """One record for every labelled sequence, with its peak frame; the person is the group.

    Raises:
        DataError: no such folders (at once), or, after the sound ones, wrong labels and missing frames.
    """
    root = Path(root)
    for folder in (settings.images, settings.emotions):
        if not (root / folder).is_dir():
            raise DataError(f"{root / folder}: no such folder; CK+ has {settings.images}/ and {settings.emotions}/")
    return _records(root, settings, source, notes or Notes())


def _records(root: Path, settings: CkPlusSettings, source: str, notes: Notes) -> Iterator[EmotionRecord]:
    problems = Problems(root, _REMEDY)
    for label_file in sorted((root / settings.emotions).glob("*/*/*_emotion.txt")):
        person, sequence = label_file.parent.parent.name, label_file.parent.name
        try:
            record = _read_sequence(root, settings, source, label_file, person, sequence, notes)
        except DataError as error:
            problems.add(str(error))
            continue
        if record is not None:
            yield record
    problems.finish()


def _read_sequence(
    root: Path, settings: CkPlusSettings, source: str, label_file: Path, person: str, sequence: str, notes: Notes
) -> EmotionRecord | None:
    _, rows = number_rows(label_file)
    if len(rows) != 1 or len(rows[0]) != 1:
        raise DataError(f"{label_file}: expected one number, the emotion")
    code = int(rows[0][0])
    if code == 0:
        notes.leave_out("sequences labelled neutral", expected=True)
        return None
    if code not in EMOTION_OF_CODE:
        raise DataError(f"{label_file}: emotion {code} is none of 0 to 7")
    stem = label_file.stem.removesuffix("_emotion")
    frames = frames_in(root / settings.images / person / sequence)
    peak = next((path for path in frames.values() if path.stem == stem), None)
    if peak is None:
        raise DataError(f"{label_file}: its frame {stem} is missing in {root / settings.images / person / sequence}")
    if peak != frames[max(frames)]:
        notes.add(f"{person}/{sequence}: the labelled frame {stem} is not the last one")
    units, ungraded = _action_units(root / settings.facs / person / sequence / f"{stem}_facs.txt", settings)
    values = {
        "id": f"{source}/{person}_{sequence}",
        "image": peak.relative_to(root).as_posix(),
        "split": "train",
        "source": source,
        "emotion": EMOTION_OF_CODE[code],
        "label_set": "ekman7",
        "action_units": units,
        "group": person,
        "extra": {"frame": max(frames), **({"ungraded_action_units": ungraded} if ungraded else {})},
    }
    return parse_record(json.dumps(values), str(label_file))


def _action_units(path: Path, settings: CkPlusSettings) -> tuple[dict[int, float] | None, str]:
    if not path.is_file():
        return None, ""
    units: dict[int, float] = {}
    ungraded = []
    for row in number_rows(path)[1]:
        if len(row) != 2:
            raise DataError(f"{path}: expected an action unit and an intensity on every line")
        unit, intensity = int(row[0]), row[1]
        if not intensity:
            ungraded.append(str(unit))
        units[unit] = intensity or settings.ungraded_intensity
    return units or None, ",".join(ungraded)
