"""Faces as teachers report them: box, probabilities of expressions, landmarks."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field, field_validator

from lavis_emovit.boxes import Box
from lavis_emovit.emotion.labels_faces import EXPRESSIONS8
from lavis_emovit.errors import DataError
from lavis_emovit.settings import FrozenModel

Point = tuple[float, float]  # x to the right, y down, in pixels of the image

# Number of landmarks -> numbers of: outer corner of the eye at the left of the image, of the one at the right, tip of
# the nose. 68: the scheme of iBUG 300-W. 468 and 478 (with irises): the face mesh of MediaPipe.
_ANCHORS = {68: (36, 45, 30), 468: (33, 263, 1), 478: (33, 263, 1)}


class Face(FrozenModel):
    """One face in an image.

    Attributes:
        score: the detector's confidence, from 0 to 1; None if it gives none.
        expressions: label of `expressions8` -> probability, sum 1; None if the teacher only finds faces.
        landmarks: in the order of the teacher's scheme, which their number identifies; empty without a scheme.
    """

    box: Box
    score: float | None = Field(default=None, ge=0.0, le=1.0)
    expressions: dict[str, float] | None = None
    landmarks: tuple[Point, ...] = ()

    @field_validator("expressions", mode="before")
    @classmethod
    def _are_probabilities(cls, value: Any) -> Any:
        """Packages round probabilities, so their sum is made 1 again; their names become ours."""
        if not isinstance(value, dict):
            return value
        try:
            named = {EXPRESSIONS8.canonical(name): float(share) for name, share in value.items()}
            total = math.fsum(named.values())
        except (DataError, TypeError, OverflowError) as error:
            raise ValueError(str(error)) from None
        if not (all(share >= 0 for share in named.values()) and 0 < total < math.inf):
            raise ValueError(f"must be probabilities, none negative and not all 0 (got {value})")
        return {name: share / total for name, share in named.items()}

    @property
    def size_px(self) -> float:
        """The shorter side of the box."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def area_px(self) -> float:
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])

    @property
    def centre(self) -> Point:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def eyes(self) -> tuple[Point, Point] | None:
        """Outer corners of the eyes, that at the left of an upright image first; None without known landmarks."""
        anchors = _ANCHORS.get(len(self.landmarks))
        return (self.landmarks[anchors[0]], self.landmarks[anchors[1]]) if anchors is not None else None

    @property
    def turn(self) -> float | None:
        """How far the face is turned away: where the tip of the nose falls on the line between the eyes.

        0 is the middle, 1 an outer corner of an eye and more is beyond it; None without known landmarks.
        """
        if (eyes := self.eyes) is None:
            return None
        (x0, y0), (x1, y1) = eyes
        x, y = self.landmarks[_ANCHORS[len(self.landmarks)][2]]
        square = (x1 - x0) ** 2 + (y1 - y0) ** 2
        if not square:
            return math.inf
        return abs(2 * ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / square - 1)

    def inside(self, size: tuple[int, int]) -> Face:
        """The face with the part of its box inside an image of this width and height, whose edges detectors cross.

        ValueError for a box outside of the image.
        """
        left, top, right, bottom = self.box
        box = (max(0.0, left), max(0.0, top), min(float(size[0]), right), min(float(size[1]), bottom))
        if box[0] >= box[2] or box[1] >= box[3]:
            raise ValueError(f"the box {self.box} is outside of the image of {size[0]} x {size[1]} pixels")
        return self.model_copy(update={"box": box})

    def moved(self, left: float, top: float, scale: float) -> Face:
        """The face in the coordinates of the image, if it was found in a part of it at another scale."""

        def place(point: Point) -> Point:
            return left + point[0] * scale, top + point[1] * scale

        box = (*place((self.box[0], self.box[1])), *place((self.box[2], self.box[3])))
        return self.model_copy(update={"box": box, "landmarks": tuple(map(place, self.landmarks))})


UNREADABLE = "unreadable"
FAULTS = ("crash", "timeout", "error", UNREADABLE)


class Answer(FrozenModel):
    """What a teacher replies about an image: faces, perhaps none, or why it has no reply.

    Attributes:
        fault: `crash`, `timeout`, `error`, which the teacher's package raised, or `unreadable`, an image that was not
            shown to it; None for a reply.
        reason: one line about the fault.
    """

    faces: tuple[Face, ...] = ()
    fault: str | None = None
    reason: str = ""
