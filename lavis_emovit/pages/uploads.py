"""Images and videos that somebody uploads: bounded in bytes and pixels, and decoded strictly."""

from __future__ import annotations

from PIL import Image

from lavis_emovit.clips.clip import Clip
from lavis_emovit.clips.reading import film_strip
from lavis_emovit.clips.video import Video
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.images import decode_image, describe_failure

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 64_000_000
_SHOWN_SIDE_PX = 960
_STRIP_PX = 240


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


def shown_upload(data: bytes, *, takes_videos: bool) -> tuple[Image.Image, Clip | None]:
    """An uploaded image as the page shows it, and None; or a video as a film strip, and its clip.

    Raises:
        DataError: see `shown_image` and `shown_clip`.
    """
    try:
        return shown_image(data), None
    except DataError:
        if not takes_videos or len(data) > MAX_BYTES or not _is_video(data):
            raise
    return shown_clip(data, Clip()), Clip()


def shown_clip(data: bytes, clip: Clip) -> Image.Image:
    """A film strip of a clip in two rows.

    Raises:
        DataError: it is damaged. The text is for the page.
    """
    try:
        return film_strip(data, clip, _STRIP_PX, num_rows=2)
    except DataError as error:
        raise DataError(f"This video cannot be used: {error}. Choose another one.") from None


def _is_video(data: bytes) -> bool:
    try:
        with Video(data):
            return True
    except UserError:
        return False
