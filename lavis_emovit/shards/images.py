"""Is this a picture that every reader can open? Asked when shards are built or verified, not in the training loop."""

from __future__ import annotations

import io
import warnings
from typing import Any

from PIL import Image

from lavis_emovit.images import MAX_PIXELS, strict_decoding

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
RESIZE_JPEG_QUALITY = 95
# Formats that a picture may be shrunk in, with how it is saved.
_SHRINKABLE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": RESIZE_JPEG_QUALITY},
    "PNG": {},
    "WEBP": {"quality": RESIZE_JPEG_QUALITY, "method": 4},
}


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
                if image.mode == "F":
                    raise BadImageError("floating-point pixels, whose range nobody knows")
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


def shrink_image(data: bytes, short_side_px: int) -> bytes:
    """A picture with its shorter side brought down to so many pixels, in its own format and mode.

    Smaller pictures come back as they are, byte for byte, and so do the kinds that cannot be shrunk without changing
    what they are: animations, palettes, CMYK, 16 bits. JPEG is written with quality 95; EXIF (rotation) and colour
    profile stay.

    Args:
        data: bytes that `check_image` has passed.
        short_side_px: the shorter side of the result.
    """
    with warnings.catch_warnings(), strict_decoding():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            kind, info = image.format or "", dict(image.info)
            scale = short_side_px / min(image.size)
            simple = kind in _SHRINKABLE and image.mode in ("L", "RGB", "RGBA") and "transparency" not in info
            if scale >= 1 or not simple or getattr(image, "n_frames", 1) > 1:
                return data
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image.draft(image.mode, (2 * size[0], 2 * size[1]))
            small = image.resize(size, Image.Resampling.LANCZOS)
    options: dict[str, Any] = {name: info[name] for name in ("exif", "icc_profile") if info.get(name)}
    buffer = io.BytesIO()
    small.save(buffer, kind, **options, **_SHRINKABLE[kind])
    return buffer.getvalue()


def _first_line(error: Exception, data: bytes) -> str:
    if data.lstrip()[:1] == b"<":
        return "a web page or XML text, not a picture"
    text = str(error).partition("\n")[0]
    if text.startswith("cannot identify image file"):
        return "not a picture of a known format"
    return text or type(error).__name__
