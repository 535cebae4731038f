"""Pictures of a request: named by the hash of their bytes, sent as data URLs of bounded size."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.images import decode_image

_NO_FORMAT = re.compile(r"UnidentifiedImageError: cannot identify image file <[^>]*>")


@dataclass(frozen=True)
class ChatImage:
    """A picture as a request shows it.

    Attributes:
        path: the file.
        sha256: of the file's bytes; it, not the path, is what the fingerprint knows.
        max_side_px: the longer side at most, in pixels; smaller pictures stay as they are.
        quality: of the JPEG that is sent.
        detail: `auto`, `low` or `high`, passed on.
        box: the part to show, as (left, top, right, bottom) in pixels of the upright picture; None is all of it.
    """

    path: Path
    sha256: str
    max_side_px: int = 768
    quality: int = 85
    detail: str = "auto"
    box: tuple[float, float, float, float] | None = None

    def identity(self) -> dict[str, Any]:
        """What the fingerprint is made of."""
        identity: dict[str, Any] = {
            "sha256": self.sha256,
            "max_side_px": self.max_side_px,
            "quality": self.quality,
            "detail": self.detail,
        }
        return identity if self.box is None else {**identity, "box": list(self.box)}

    def data_url(self) -> str:
        """The picture as `data:image/jpeg;base64,...`: upright, RGB on white, at most `max_side_px` wide and high.

        Raises:
            DataError: the file is missing, damaged, or no longer the one with this hash.
        """
        return _data_url(self)


@functools.lru_cache(maxsize=16)
def _data_url(picture: ChatImage) -> str:
    try:
        data = picture.path.read_bytes()
    except OSError as error:
        raise DataError(f"{picture.path}: the picture cannot be read ({error.strerror})") from None
    if hashlib.sha256(data).hexdigest() != picture.sha256:
        raise DataError(f"{picture.path}: the picture changed while it was used; start again")
    # Boxes are in pixels of the full size.
    image = load_rgb(data, picture.path, picture.max_side_px if picture.box is None else None)
    if picture.box is not None:
        image = image.crop(_whole_pixels(picture, image.size))
    image.thumbnail((picture.max_side_px, picture.max_side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=picture.quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _whole_pixels(picture: ChatImage, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box within the picture, in whole pixels.

    Raises:
        DataError: nothing of the box lies in the picture.
    """
    left, top, right, bottom = picture.box or (0.0, 0.0, float(size[0]), float(size[1]))
    box = (
        max(0, math.floor(left)),
        max(0, math.floor(top)),
        min(size[0], math.ceil(right)),
        min(size[1], math.ceil(bottom)),
    )
    if box[0] >= box[2] or box[1] >= box[3]:
        raise DataError(
            f"{picture.path}: the box {picture.box} lies outside of the picture ({size[0]} x {size[1]} pixels)"
        )
    return box


def load_rgb(data: bytes, path: Path, min_side_px: int | None = None) -> Image.Image:
    """Decode a picture upright, as RGB, transparent parts on white.

    Args:
        data: the file's bytes.
        path: the file, for the message.
        min_side_px: a JPEG may be decoded smaller, as long as it keeps this many pixels a side.

    Raises:
        DataError: not a picture, damaged, or larger than `lavis_emovit.images.MAX_PIXELS`.
    """
    try:
        return decode_image(data, min_side_px=min_side_px)
    except DataError as error:
        # Pillow names an object in memory.
        reason = _NO_FORMAT.sub("its format is not known", str(error))
        raise DataError(f"{path}: {reason}") from None


def image_of(
    path: Path, max_side_px: int = 768, quality: int = 85, detail: str = "auto", sha256: str | None = None
) -> ChatImage:
    """A picture file with its hash.

    Raises:
        DataError: the file cannot be read.
    """
    return ChatImage(path, sha256 or file_sha256(path), max_side_px, quality, detail)


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        state = path.stat()
        return _file_sha256(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path}: the picture cannot be read ({error.strerror})") from None


@functools.lru_cache(maxsize=1 << 18)
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Every step asks for the hashes of the same files; size and time of change tell whether a file is the same."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
