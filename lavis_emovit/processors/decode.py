"""From the bytes of a picture to upright RGB pixels."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from lavis_emovit.errors import DataError
from lavis_emovit.pictures import MAX_PIXELS, strict_decoding


def decode_image(data: bytes, *, min_side_px: int | None = None) -> Image.Image:
    """Decode a picture as a viewer shows it: turned as its EXIF says, first frame, transparent parts on white.

    Args:
        data: the file's bytes, any format that Pillow reads.
        min_side_px: a large JPEG may be decoded at a half, a quarter or an eighth of its size, as long as both sides
            keep this many pixels; None decodes at full size.

    Returns:
        an RGB image.

    Raises:
        DataError: not a picture, or a damaged one.
    """
    try:
        with warnings.catch_warnings(), strict_decoding():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            if min_side_px is not None:
                image.draft("RGB", (min_side_px, min_side_px))
            image.load()
            # In place, since it would copy every picture that needs no turning.
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except Exception as error:
        # Pillow's decoders raise many kinds; whichever it is, these bytes cannot be used.
        raise DataError(f"the picture cannot be decoded ({type(error).__name__}: {error})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB; RGB passes untouched."""
    if image.mode == "RGB":
        return image
    if image.mode == "I":
        # 16-bit grey in formats that Pillow reads as 32 bits.
        values = np.asarray(image)
        image = Image.fromarray(
            (np.clip(values, 0, 65535) >> (8 if values.max(initial=0) > 255 else 0)).astype(np.uint8)
        )
        return image.convert("RGB")
    if image.mode.startswith("I;16"):
        # Pillow would clip 16-bit grey at 255 rather than scale it.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(page, image).convert("RGB")
    return image.convert("RGB")
