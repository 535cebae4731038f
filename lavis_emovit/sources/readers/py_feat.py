"""Reader of the tables of py-feat 2.1 (Cheong et al., Affective Science 2023), as `Fex.to_csv` writes them.

    FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,FaceScore,...,AU01,...,AU43,anger,...,neutral,...,input,frame

`AU01` is a probability (from 0 to 1), also where a classifier gives only 0 and 1. `input` is the path of the image or
the video, whose frames count from 0. A frame without a face has a row of empty cells. Detectorv2 names its emotions
`Neutral, Happy, Sad, ...`, and adds `valence` and `arousal`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PureWindowsPath

from lavis_emovit.emotion.labels_faces import EXPRESSIONS8
from lavis_emovit.errors import DataError
from lavis_emovit.files import IMAGE_SUFFIXES
from lavis_emovit.sources.face_rows import Box, number_in, whole_number_in
from lavis_emovit.sources.face_tables import FaceTableReader

_RECT = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight")


class PyFeatReader(FaceTableReader, layout="py_feat"):
    """The box is `FaceRect`; the expression the one with the highest probability."""

    first_frame = 0
    presence_column = re.compile(r"AU(\d{1,2})")
    presence_scale = "probability"
    confidence_column = "FaceScore"

    def place_of(self, cells: Mapping[str, str], table: str) -> tuple[str, int | None]:
        if not (given := cells.get("input", "")):
            raise DataError("column 'input' is missing or empty; it names the image or the video")
        # Reads both kinds of slashes.
        path = PureWindowsPath(given)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return path.as_posix(), None
        return path.stem, whole_number_in(cells, "frame")

    def failure(self, cells: Mapping[str, str]) -> str | None:
        return "no face was found" if cells.get("FaceRectX") == "" else None

    def box(self, cells: Mapping[str, str]) -> Box | None:
        found = [value for name in _RECT if (value := number_in(cells, name)) is not None]
        if len(found) < len(_RECT):
            return None
        left, top, width, height = found
        return left, top, left + width, top + height

    def expression(self, cells: Mapping[str, str]) -> str | None:
        shares = {}
        for column in cells:
            label = EXPRESSIONS8.aliases.get(column.casefold(), column.casefold())
            if label in EXPRESSIONS8.labels and (value := number_in(cells, column)) is not None:
                shares[label] = value
        return max(shares, key=lambda label: shares[label]) if shares else None

    def affect(self, cells: Mapping[str, str]) -> tuple[float, float] | None:
        valence, arousal = number_in(cells, "valence"), number_in(cells, "arousal")
        return None if valence is None or arousal is None else (valence, arousal)
