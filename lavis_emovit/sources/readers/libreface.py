"""Reader of the tables of LibreFace (Chang et al., WACV 2024).

    <root>/clip1.csv     frame_idx,frame_time_in_ms,...,au_1,...,au_24,au_1_intensity,...,facial_expression,...
    <root>/photo7.csv    of one image, named as the image: the same without the first two columns

`au_N` is the presence, 1 or 0, `au_N_intensity` the intensity from 0 to 5; they cover different units. `frame_idx`
counts from 0, but the frames that LibreFace extracts are called `frame_000000001.png` and so on, from 1. Frames without
a face have no row, and there are no boxes and no confidences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lavis_emovit.emotion.labels_faces import EXPRESSIONS8
from lavis_emovit.sources.face_rows import whole_number_in
from lavis_emovit.sources.face_tables import FaceTableReader


class LibreFaceReader(FaceTableReader, layout="libreface"):
    """One record for each row whose image exists."""

    first_frame = 0
    intensity_column = re.compile(r"au_(\d{1,2})_intensity")
    presence_column = re.compile(r"au_(\d{1,2})")

    def place_of(self, cells: Mapping[str, str], table: str) -> tuple[str, int | None]:
        return table, whole_number_in(cells, "frame_idx") if "frame_idx" in cells else None

    def expression(self, cells: Mapping[str, str]) -> str | None:
        found = cells.get("facial_expression")
        return EXPRESSIONS8.canonical(found) if found else None
