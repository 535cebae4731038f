"""Images that somebody uploads: bounded in bytes and pixels, and decoded strictly."""

from __future__ import annotations

from PIL import Image

from lavis_emovit.errors import DataError
from lavis_emovit.images import decode_image, describe_failure

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 64_000_000
_SHOWN_SIDE_PX = 960


def shown_image(data: bytes) -> Image.Image:
    """An uploaded image as the page shows it: upright RGB, at most 960 pixels on a side.

    Raises:
        DataError: the file is no image, damaged, or larger than a page accepts. The text is for the page.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"The file has {len(data) / 2**20:.0f} MB; the limit is {MAX_BYTES // 2**20} MB.")
    try:
        image = decode_image(data, min_side_px=_SHOWN_SIDE_PX, max_pixels=MAX_PIXELS)
    except DataError as error:
        # Pillow's own error, which `decode_image` words for logs.
        reason = error.__context__ if isinstance(error.__context__, Exception) else error
        raise DataError(f"This file cannot be used: {describe_failure(reason, data)}. Choose another image.") from None
    image.thumbnail((_SHOWN_SIDE_PX, _SHOWN_SIDE_PX))
    return image
