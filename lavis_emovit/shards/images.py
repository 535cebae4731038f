"""Is this a picture that every reader can open? Asked when shards are built or verified, not in the training loop."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from lavis_emovit.pictures import strict_decoding

# Pillow's format name -> the member suffix in the shard. The bytes go in as they are.
SUFFIX_OF_FORMAT = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "BMP": "bmp",
    "GIF": "gif",
    "TIFF": "tif",
    "MPO": "jpg",
}
MAX_PIXELS = 178_956_970  # twice Pillow's own warning limit: where Pillow calls a picture a decompression bomb


class BadImageError(ValueError):
    """Bytes that are not a usable picture; the text says why."""


def check_image(data: bytes) -> str:
    """Decode a picture once, as cheaply as finds every cut or damaged file.

    Args:
        data: the file's bytes.

    Returns:
        the member suffix for its true format, whatever the file was called.

    Raises:
        BadImageError: empty, no picture, a format that shards don't carry, too many pixels, or damaged data.
    """
    if not data:
        raise BadImageError("the file is empty")
    try:
        with warnings.catch_warnings(), strict_decoding():
            # Oddities in metadata are not this check's business; size is judged below.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                kind = image.format or ""
                if kind not in SUFFIX_OF_FORMAT:
                    raise BadImageError(f"format {kind} is not one of {', '.join(sorted(SUFFIX_OF_FORMAT))}")
                if image.width * image.height > MAX_PIXELS:
                    raise BadImageError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
                # An eighth of the size in each direction: all compressed data is read, few pixels are made.
                image.draft("RGB", (1, 1))
                image.load()
            # Decoding stops at the last pixel; this reads on to the end, where a format has checksums there (PNG).
            with Image.open(io.BytesIO(data)) as image:
                image.verify()
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(_first_line(error, data)) from None
    return SUFFIX_OF_FORMAT[kind]


def _first_line(error: Exception, data: bytes) -> str:
    if data.lstrip()[:1] == b"<":
        return "a web page or XML text, not a picture"
    text = str(error).partition("\n")[0]
    if text.startswith("cannot identify image file"):
        return "not a picture of a known format"
    return text or type(error).__name__
