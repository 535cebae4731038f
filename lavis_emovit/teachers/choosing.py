"""Which of the faces that a teacher found is the one in question, and whether it can be judged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from lavis_emovit.boxes import Box
from lavis_emovit.settings import Settings
from lavis_emovit.teachers.faces import Answer, Face

OK = "ok"


class FaceSettings(Settings):
    """Which faces are annotated.

    Attributes:
        faces: of several faces without a box, `one` chooses none and `largest` the largest.
        min_face_px: shorter side of the smallest face.
        max_turn: `Face.turn` of a profile, from which the expression is not read; about 45 degrees.
        margin: what a teacher sees around the box of a record, as a share of its sides.
    """

    faces: Literal["one", "largest"] = "one"
    min_face_px: float = Field(default=32.0, ge=0.0)
    max_turn: float = Field(default=0.7, ge=0.0)
    margin: float = Field(default=0.5, ge=0.0, le=10.0)


def choose_face(answer: Answer, box: Box | None, settings: FaceSettings) -> tuple[str, Face | None]:
    """The face in question, and `ok` or why there is none.

    Args:
        answer: of a teacher, in pixels of the image.
        box: of the person in question; None if the image should have one face.

    Returns:
        status and face. The status is `ok`, the fault of the answer, `no_face`, `several_faces` (without a box),
        `too_small`, `profile` or `no_expression`. With a box, faces whose centre is in it count, and the largest is
        chosen.
    """
    if answer.fault is not None:
        return answer.fault, None
    faces = [face for face in answer.faces if box is None or _is_inside(face, box)]
    if not faces:
        return "no_face", None
    face = max(faces, key=lambda one: one.area_px)
    # Small faces in the background are not in question beside a large one.
    num_large = len(large_faces(faces, settings))
    if not num_large:
        return "too_small", face
    if num_large > 1 and box is None and settings.faces == "one":
        return "several_faces", None
    if face.turn is not None and face.turn > settings.max_turn:
        return "profile", face
    return (OK if face.expressions is not None else "no_expression"), face


def large_faces(faces: Iterable[Face], settings: FaceSettings) -> list[Face]:
    return [face for face in faces if face.size_px >= settings.min_face_px]


def _is_inside(face: Face, box: Box) -> bool:
    x, y = face.centre
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]
