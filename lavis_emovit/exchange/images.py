"""Images that other trainers decode to other pixels than this package."""

from __future__ import annotations

import io

from PIL import ImageChops, ImageOps

from lavis_emovit.errors import DataError, first_line
from lavis_emovit.images import decode_image, open_strictly
from lavis_emovit.sources.checks import oddities

# Trainers leave an image lying on its side, drop its transparency, and cut 16 bits off at white.
_OFTEN_DIFFERENT = ("turned by EXIF", "transparent", "16-bit")


def shown_otherwise(data: bytes, *, turns: bool) -> tuple[str, ...]:
    """Why a trainer sees other pixels than `decode_image`; nothing if it sees the same.

    `turns`: whether its loader follows the orientation in EXIF data, as Hugging Face's `datasets` does. DataError for
    bytes that are not an image.
    """
    try:
        with open_strictly(data) as image:
            found = tuple(kind for kind in oddities(image, "") if kind in _OFTEN_DIFFERENT)
            if not found:
                return ()
            image.load()
            seen = (ImageOps.exif_transpose(image) if turns else image).convert("RGB")
    except Exception as error:
        raise DataError(f"the image cannot be decoded ({first_line(error)})") from None
    shown = decode_image(data)
    return found if seen.size != shown.size or ImageChops.difference(seen, shown).getbbox() else ()


def png_as_shown(data: bytes) -> bytes:
    """An image as a PNG with the pixels of `decode_image`, which everybody decodes alike."""
    image = decode_image(data)
    image.info.clear()
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
