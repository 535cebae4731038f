"""Reader of the tables of OpenFace 2 (Baltrusaitis et al., FG 2018).

    <root>/clip1.csv     FeatureExtraction: frame,face_id,timestamp,confidence,success,...,AU01_r,...,AU01_c,...
    <root>/photo7.csv    FaceLandmarkImg, a table for each image: face,confidence,...,AU01_r,...,AU01_c,...

Older versions write a blank before each name but the first. Frames count from 1. `_r` is the intensity from 0 to 5,
`_c` the presence, 1 or 0; two models predict them, so they disagree in places. Aligned faces
(`frame_det_00_000001.bmp`) have the numbers of face and frame in their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lavis_emovit.sources.face_rows import Box, number_in, whole_number_in
from lavis_emovit.sources.face_tables import FaceTableReader

_NUM_LANDMARKS = 68


class OpenFaceReader(FaceTableReader, layout="openface"):
    """The box is that of the landmarks, if the table has them."""

    first_frame = 1
    intensity_column = re.compile(r"AU(\d{1,2})_r")
    presence_column = re.compile(r"AU(\d{1,2})_c")
    confidence_column = "confidence"

    def place_of(self, cells: Mapping[str, str], table: str) -> tuple[str, int | None]:
        return table, whole_number_in(cells, "frame") if "frame" in cells else None

    def failure(self, cells: Mapping[str, str]) -> str | None:
        if "success" in cells and not number_in(cells, "success"):
            return f"success is {cells['success'] or 'nan'}"
        return None

    def face_number(self, cells: Mapping[str, str]) -> int:
        return whole_number_in(cells, "face_id") if "face_id" in cells else 0

    def box(self, cells: Mapping[str, str]) -> Box | None:
        places = [[number_in(cells, f"{axis}_{number}") for number in range(_NUM_LANDMARKS)] for axis in "xy"]
        x, y = ([value for value in values if value is not None] for values in places)
        return (min(x), min(y), max(x), max(y)) if len(x) == len(y) == _NUM_LANDMARKS else None
