"""Reader of AffectNet's release of 2021, which has a NumPy file for each picture and value.

    <root>/train_set/images/0.jpg
    <root>/train_set/annotations/0_exp.npy, 0_val.npy, 0_aro.npy      expression 0 to 7, valence, arousal
    <root>/val_set/                                                   in the same way

The release before it has tables, which the reader of tables reads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, parse_record
from lavis_emovit.settings import Settings
from lavis_emovit.sources.frames import frames_in
from lavis_emovit.sources.problems import Notes, Problems

EXPRESSIONS = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
_REMEDY = "Unpack the dataset again, or remove these pictures."


class AffectNetSettings(Settings):
    """Folders of the release: folder -> split. The field reports its results on `val_set`."""

    folders: dict[str, str] = {"train_set": "train", "val_set": "test"}  # noqa: RUF012


def read_affectnet(
    root: str | os.PathLike[str], settings: AffectNetSettings, *, source: str, notes: Notes | None = None
) -> Iterator[EmotionRecord]:
    """One record for every picture that has an expression.

    Raises:
        DataError: no such folder (at once), or, after the sound ones, annotations that are missing or no numbers.
    """
    root = Path(root)
    for folder in settings.folders:
        if not (root / folder / "images").is_dir():
            raise DataError(f"{root / folder / 'images'}: no such folder; AffectNet has train_set/ and val_set/")
    return _records(root, settings, source)


def _records(root: Path, settings: AffectNetSettings, source: str) -> Iterator[EmotionRecord]:
    problems = Problems(root, _REMEDY)
    for folder, split in settings.folders.items():
        for number, picture in sorted(frames_in(root / folder / "images").items()):
            annotations = root / folder / "annotations"
            try:
                code = _number(annotations / f"{picture.stem}_exp.npy")
                if code not in range(len(EXPRESSIONS)):
                    raise DataError(f"{annotations / picture.stem}_exp.npy: expression {code:g} is none of 0 to 7")
                values = {
                    "id": f"{source}/{split}/{number}",
                    "image": picture.relative_to(root).as_posix(),
                    "split": split,
                    "source": source,
                    "emotion": EXPRESSIONS[int(code)],
                    "label_set": "expressions8",
                    "valence": _number(annotations / f"{picture.stem}_val.npy"),
                    "arousal": _number(annotations / f"{picture.stem}_aro.npy"),
                }
                record = parse_record(json.dumps(values), picture.relative_to(root).as_posix())
            except DataError as error:
                problems.add(str(error))
                continue
            yield record
    problems.finish()


def _number(path: Path) -> float:
    """The one number in a NumPy file, stored as a number or as its text."""
    import numpy

    try:
        return float(numpy.load(path, allow_pickle=False).item())
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as one number ({error})") from None
