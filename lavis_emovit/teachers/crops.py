"""Faces cut out of images: turned so that the eyes are level, square, with a margin."""

from __future__ import annotations

import math
from typing import NamedTuple

from PIL import Image

from lavis_emovit.teachers.faces import Face, Point


class Square(NamedTuple):
    """A square part of an image, to be scaled to `size_px`.

    `step` is the number of pixels of the image for one of the result, `angle` in rad how far its upper side is turned.
    """

    centre: Point
    step: float
    angle: float
    size_px: int


def square_of(face: Face, *, size_px: int, margin: float) -> Square:
    """The square around the centre of the face's box; its side is the longer one of the box with `margin` on each side.

    It is turned so that the outer corners of the eyes are level, or upright without their landmarks.
    """
    width, height = face.box[2] - face.box[0], face.box[3] - face.box[1]
    step = max(width, height) * (1 + 2 * margin) / size_px  # pixels of the image for one of the crop
    angle = 0.0
    if face.eyes is not None:
        (x0, y0), (x1, y1) = face.eyes
        angle = math.atan2(y1 - y0, x1 - x0)
    return Square(face.centre, step, angle, size_px)


def cut_out(image: Image.Image, square: Square) -> Image.Image:
    """The square as an RGB image, in one resampling; parts outside of the image are black."""
    (x, y), step, angle, size_px = square
    across, down = step * math.cos(angle), step * math.sin(angle)
    half = size_px / 2
    # Crop (u, v) -> image: the centre, and the turned axes.
    matrix = (across, -down, x - half * (across - down), down, across, y - half * (down + across))
    # Pillow reads single pixels, so an image that gets much smaller is reduced first.
    if (factor := int(step)) >= 2:
        image = image.reduce(factor)
        matrix = (*(value / factor for value in matrix[:3]), *(value / factor for value in matrix[3:]))  # type: ignore[assignment]
    return image.transform((size_px, size_px), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
