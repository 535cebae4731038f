"""Pictures: strictly from bytes to upright RGB pixels; brightness and colourfulness on EmoSet's scales.

Both measures are numbers from 0 to 1 in EmoSet's steps of 0.1.
"""

from __future__ import annotations

import io
import math
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile, ImageOps

from lavis_emovit.errors import DataError

# Channel statistics of the pictures that CLIP and EVA-CLIP were trained on.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Hasler and Suesstrunk call a picture of this colourfulness "extremely colourful"; it becomes 1.0.
_EXTREMELY_COLOURFUL = 109.0

# Twice Pillow's own warning limit: where Pillow calls a picture a decompression bomb.
MAX_PIXELS = 178_956_970

# In Pillow's `info` of a decoded picture: at which part of its size.
REDUCED_KEY = "emovit_reduced"

_lock = threading.Lock()
_num_inside = 0
_value_outside = False


_BUFFER = re.compile(r"\s*<_io\.[^>]*>")


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Let Pillow raise on cut pictures while the block runs.

    Importing LAVIS switches `ImageFile.LOAD_TRUNCATED_IMAGES` on for the whole process (its COCO caption dataset does),
    and Pillow then fills what is missing with grey. The switch is put back for LAVIS when the last thread has left.
    """
    global _num_inside, _value_outside
    with _lock:
        if _num_inside == 0:
            _value_outside = ImageFile.LOAD_TRUNCATED_IMAGES
        _num_inside += 1
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _lock:
            _num_inside -= 1
            if _num_inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _value_outside


def decode_image(data: bytes, *, min_side_px: int | None = None) -> Image.Image:
    """Decode a picture as a viewer shows it: turned as its EXIF says, first frame, transparent parts on white.

    Args:
        data: the file's bytes, any format that Pillow reads.
        min_side_px: a large JPEG may be decoded at a half, a quarter or an eighth of its size, as long as both sides
            keep this many pixels; None decodes at full size.

    Returns:
        an RGB image; `info[REDUCED_KEY]` is 2, 4 or 8 where it was decoded at that part of its size.

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
                full_width = image.width
                image.draft("RGB", (min_side_px, min_side_px))
                if image.width < full_width:
                    image.info[REDUCED_KEY] = round(full_width / image.width)
            image.load()
            # In place, since it would copy every picture that needs no turning.
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except Exception as error:
        # Pillow's decoders raise many kinds; whichever it is, these bytes cannot be used.
        # Pillow names the buffer by its address, which would make every message another one.
        reason = _BUFFER.sub("", str(error))
        raise DataError(f"the picture cannot be decoded ({type(error).__name__}: {reason})") from None


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


def brightness(image: Image.Image) -> float:
    """Mean luma (ITU-R BT.601) of the picture, from 0.0 (black) to 1.0 (white), rounded to 0.1."""
    luma = np.asarray(image.convert("L"), dtype=np.float32)
    return round(float(luma.mean()) / 255, 1)


def colorfulness(image: Image.Image) -> float:
    """Colourfulness from 0.0 (black and white) to 1.0, rounded to 0.1.

    Hasler and Suesstrunk, "Measuring colourfulness in natural images" (2003), equation for M(3): with rg = R - G and
    yb = (R + G) / 2 - B, M = sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2); here M / 109, at most 1.
    """
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    rg, yb = red - green, (red + green) / 2 - blue
    spread = math.sqrt(float(rg.var()) + float(yb.var()))
    shift = math.hypot(float(rg.mean()), float(yb.mean()))
    return round(min(1.0, (spread + 0.3 * shift) / _EXTREMELY_COLOURFUL), 1)
