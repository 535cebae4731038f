"""Checks and shrinks images when shards are built or verified; the training loop does not use it."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from lavis_emovit.images import SUFFIXES_OF_FORMAT, describe_failure, open_strictly, refusal

RESIZE_JPEG_QUALITY = 95
# Formats in which an image may be shrunk, with the options to save it.
_SHRINKABLE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": RESIZE_JPEG_QUALITY},
    "PNG": {},
    "WEBP": {"quality": RESIZE_JPEG_QUALITY, "method": 4},
}


class BadImageError(ValueError):
    """Bytes that are not a usable image.

    The index lists the texts of skipped samples (`build.skipped`) and its hash covers them. Rewording a text would
    change the sample order of rebuilt shards.
    """


def check_image(data: bytes) -> str:
    """Decode an image once, in the cheapest way that still finds every truncated or damaged file (else BadImageError).

    Returns the member suffix for its true format, whatever the name of the file.
    """
    if not data:
        raise BadImageError("the file is empty")
    try:
        with open_strictly(data) as image:
            kind = image.format or ""
            if (reason := refusal(image)) is not None:
                raise BadImageError(reason)
            # An eighth of the size in each direction: reads all compressed data and creates few pixels.
            image.draft("RGB", (1, 1))
            image.load()
        # Decoding stops at the last pixel; `verify` reads to the end, where some formats have checksums (PNG).
        with open_strictly(data) as image:
            image.verify()
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(describe_failure(error, data, "a picture")) from None
    return SUFFIXES_OF_FORMAT[kind][0]


def shrunk_size(size: tuple[int, int], short_side_px: int) -> tuple[int, int] | None:
    """Width and height with the given shorter side; None if that is not smaller."""
    scale = short_side_px / min(size)
    return None if scale >= 1 else (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def shrink_image(data: bytes, short_side_px: int) -> bytes:
    """Shrink an image that passed `check_image` to the given shorter side, in its own format and mode.

    Smaller images are returned unchanged, byte for byte, and so are those that shrinking would convert: animations,
    palettes, CMYK, 16 bits. JPEG is written with quality 95; EXIF data (rotation) and colour profile are kept.
    """
    with open_strictly(data) as image:
        kind, info = image.format or "", dict(image.info)
        size = shrunk_size(image.size, short_side_px)
        simple = kind in _SHRINKABLE and image.mode in ("L", "RGB", "RGBA") and "transparency" not in info
        if size is None or not simple or getattr(image, "n_frames", 1) > 1:
            return data
        image.draft(image.mode, (2 * size[0], 2 * size[1]))
        small = image.resize(size, Image.Resampling.LANCZOS)
    options: dict[str, Any] = {name: info[name] for name in ("exif", "icc_profile") if info.get(name)}
    buffer = io.BytesIO()
    small.save(buffer, kind, **options, **_SHRINKABLE[kind])
    return buffer.getvalue()
