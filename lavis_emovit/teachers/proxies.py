"""Geometric proxies of action units: distances between landmarks that a unit changes.

They are no action units: a unit is a movement from the person's neutral face, a proxy is the shape of the face in one
image, which also differs between people and with the pose of the head. So they never become `action_units`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lavis_emovit.teachers.faces import Face, Point

# Name of a point -> its number in the scheme. "left" and "right" are those of the image.
_POINTS_68 = {
    "left_outer": 36, "left_inner": 39, "right_inner": 42, "right_outer": 45,
    "left_upper_lid": 37, "left_lower_lid": 41, "right_upper_lid": 44, "right_lower_lid": 46,
    "left_inner_brow": 21, "right_inner_brow": 22, "left_outer_brow": 18, "right_outer_brow": 25,
    "left_mouth": 48, "right_mouth": 54, "upper_lip": 51, "lower_lip": 57, "upper_inner_lip": 62, "lower_inner_lip": 66,
}  # fmt: skip
_POINTS_MESH = {
    "left_outer": 33, "left_inner": 133, "right_inner": 362, "right_outer": 263,
    "left_upper_lid": 159, "left_lower_lid": 145, "right_upper_lid": 386, "right_lower_lid": 374,
    "left_inner_brow": 55, "right_inner_brow": 285, "left_outer_brow": 63, "right_outer_brow": 293,
    "left_mouth": 61, "right_mouth": 291, "upper_lip": 0, "lower_lip": 17, "upper_inner_lip": 13, "lower_inner_lip": 14,
}  # fmt: skip
_SCHEMES = {68: _POINTS_68, 468: _POINTS_MESH, 478: _POINTS_MESH}

# Name -> the units that raise it, or with a minus lower it.
PROXIES = {
    "inner_brow_height": "AU1, -AU4",
    "outer_brow_height": "AU2",
    "brow_gap": "-AU4",
    "eye_opening": "AU5, -AU6, -AU7",
    "mouth_corner_height": "AU12, -AU15",
    "mouth_width": "AU12, AU20",
    "lip_gap": "AU25, AU26",
}


def proxies_of(face: Face) -> dict[str, float]:
    """The proxies of a face, as shares of the distance between the outer corners of the eyes, on the axes of the eyes.

    Heights are those of the brows above the corners of the eyes, and of the corners of the mouth above the middle of
    the lips. Empty for a face without known landmarks, or with both eyes at one point.
    """
    numbers = _SCHEMES.get(len(face.landmarks))
    if numbers is None or face.eyes is None or face.eyes[0] == face.eyes[1]:
        return {}
    at = _level({name: face.landmarks[number] for name, number in numbers.items()}, *face.eyes)

    def higher(upper: str, lower: str) -> float:
        """How much the upper point is above the lower one, mean of both sides."""
        return sum(at[f"{side}_{lower}"][1] - at[f"{side}_{upper}"][1] for side in ("left", "right")) / 2

    middle_of_lips = (at["upper_lip"][1] + at["lower_lip"][1]) / 2
    return {
        "inner_brow_height": higher("inner_brow", "inner"),
        "outer_brow_height": higher("outer_brow", "outer"),
        "brow_gap": at["right_inner_brow"][0] - at["left_inner_brow"][0],
        "eye_opening": higher("upper_lid", "lower_lid"),
        "mouth_corner_height": middle_of_lips - (at["left_mouth"][1] + at["right_mouth"][1]) / 2,
        "mouth_width": at["right_mouth"][0] - at["left_mouth"][0],
        "lip_gap": at["lower_inner_lip"][1] - at["upper_inner_lip"][1],
    }


def _level(points: Mapping[str, Point], left_eye: Point, right_eye: Point) -> dict[str, Point]:
    """The points with the line between the eyes as the first axis and its length as the unit; y is down."""
    across = (right_eye[0] - left_eye[0], right_eye[1] - left_eye[1])
    square = math.hypot(*across) ** 2
    moved = {name: (x - left_eye[0], y - left_eye[1]) for name, (x, y) in points.items()}
    return {
        name: ((x * across[0] + y * across[1]) / square, (y * across[0] - x * across[1]) / square)
        for name, (x, y) in moved.items()
    }
