"""Images: strict decoding to upright RGB; brightness and colourfulness on EmoSet's scales (0 to 1, in steps of 0.1).

numpy is imported by the functions that need it: it takes 0.1 s, and commands such as `emovit data list` decode nothing.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import math
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile, ImageOps

from lavis_emovit.errors import DataError
from lavis_emovit.files import IMAGE_SUFFIXES, RARE_IMAGE_SUFFIXES

# Channel statistics of the images that CLIP and EVA-CLIP were trained on.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Hasler and Suesstrunk call an image of this colourfulness "extremely colourful"; it becomes 1.0.
_EXTREMELY_COLOURFUL = 109.0

# Twice Pillow's own warning limit: where Pillow reports a decompression bomb.
MAX_PIXELS = 178_956_970

# Pillow's name of every format that is read -> its usual suffixes; files in shards have the first.
SUFFIXES_OF_FORMAT = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "PNG": ("png",),
    "WEBP": ("webp",),
    "BMP": ("bmp",),
    "GIF": ("gif",),
    "TIFF": ("tif", "tiff"),
    "MPO": ("jpg", "jpeg"),
    "AVIF": ("avif",),
    "HEIF": ("heic", "heif"),
}

_GAP_PX = 8  # white space between images that are joined

# Key in Pillow's `info`: the factor by which decoding reduced the image.
REDUCED_KEY = "emovit_reduced"

ORIENTATION = 0x0112  # the EXIF tag; these of its values exchange width and height
_QUARTER_TURNS = (5, 6, 7, 8)

_lock = threading.Lock()
_num_inside = 0
_value_outside = False

_BUFFER = re.compile(r"\s*<_io\.[^>]*>")


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Make Pillow raise on truncated images inside the block.

    Importing LAVIS sets `ImageFile.LOAD_TRUNCATED_IMAGES` for the whole process (its COCO caption dataset does), and
    Pillow then fills what is missing with grey. The flag is restored when the last thread leaves its block.
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


@functools.cache
def _register_heif() -> None:
    """Let Pillow read the images of iPhones if the package pillow-heif is installed."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def readable_suffixes() -> frozenset[str]:
    """Suffixes of images that this installation can decode and that shards accept."""
    _register_heif()
    return IMAGE_SUFFIXES | (RARE_IMAGE_SUFFIXES & set(Image.registered_extensions()) - {".jp2"})


@contextmanager
def open_strictly(source: bytes | Path, *, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """Open an image file, or its bytes, with strict decoding inside the block; Pillow's warnings are silenced.

    ValueError if the image has more than `max_pixels` (None: `MAX_PIXELS`), or a format that no image here has: for
    some, Pillow runs another program. Its decoders raise many other kinds of exceptions.
    """
    _register_heif()
    with warnings.catch_warnings(), strict_decoding():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if (kind := image.format or "") not in SUFFIXES_OF_FORMAT:
                raise ValueError(f"format {kind} is not one of BMP, GIF, JPEG, MPO, PNG, TIFF, WEBP")
            limit = MAX_PIXELS if max_pixels is None else max_pixels
            if image.width * image.height > limit:
                raise ValueError(f"{image.width} x {image.height} pixels, more than {limit}")
            yield image


def decode_image(data: bytes, *, min_side_px: int | None = None, max_pixels: int | None = None) -> Image.Image:
    """Decode an image as a viewer shows it: RGB, rotated by its EXIF data, first frame, transparent parts on white.

    A large JPEG may be decoded at a half, a quarter or an eighth of its size, as long as both sides keep `min_side_px`
    pixels (None: always full size); `info[REDUCED_KEY]` is then 2, 4 or 8. DataError for bytes that are not an image,
    a damaged one, or one with more than `max_pixels`.
    """
    try:
        with open_strictly(data, max_pixels=max_pixels) as image:
            if min_side_px is not None:
                full_width = image.width
                image.draft("RGB", (min_side_px, min_side_px))
                if image.width < full_width:
                    image.info[REDUCED_KEY] = round(full_width / image.width)
            image.load()
            # In place: otherwise it copies every image, rotated or not.
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except Exception as error:
        raise _undecodable(error) from None


def _undecodable(error: Exception) -> DataError:
    # Pillow puts the buffer's address into some messages, which would make each of them unique.
    reason = _BUFFER.sub("", str(error))
    return DataError(f"the image cannot be decoded ({type(error).__name__}: {reason})")


def image_size_px(data: bytes) -> tuple[int, int]:
    """Width and height that `decode_image` would give, from the head of the file alone; DataError as it."""
    try:
        with open_strictly(data) as image:
            return displayed_size_px(image)
    except Exception as error:
        raise _undecodable(error) from None


def displayed_size_px(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened image as a viewer shows it, turned by its EXIF data."""
    width, height = image.size
    is_on_its_side = image.getexif().get(ORIENTATION, 1) in _QUARTER_TURNS
    return (height, width) if is_on_its_side else (width, height)


def refusal(image: Image.Image) -> str | None:
    """Why shards do not take an opened image; None if they do. Indexes of shards store these texts."""
    return "floating-point pixels, whose range nobody knows" if image.mode == "F" else None


def jpeg_of(image: Image.Image) -> bytes:
    """An image as a JPEG of high quality, for pages and thumbnails."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def side_by_side(images: Iterable[Image.Image], height_px: int, max_width_px: int | None = None) -> Image.Image:
    """The images from left to right at the same height, with a white gap; RGB.

    Images that are wider than `max_width_px` at that height have this width, and white below them.
    """
    scaled = [_fitted(to_rgb(image), height_px, max_width_px) for image in images]
    joined = Image.new("RGB", (sum(image.width for image in scaled) + _GAP_PX * (len(scaled) - 1), height_px), "white")
    left = 0
    for image in scaled:
        joined.paste(image, (left, 0))
        left += image.width + _GAP_PX
    return joined


def joined(images: Sequence[Image.Image]) -> tuple[Image.Image, list[tuple[int, int, int, int]]]:
    """The images from left to right in their own sizes, with a white gap; RGB, and where each of them is."""
    lefts = [sum(one.width + _GAP_PX for one in images[:place]) for place in range(len(images))]
    boxes = [(left, 0, left + one.width, one.height) for left, one in zip(lefts, images)]
    whole = Image.new("RGB", (boxes[-1][2], max(one.height for one in images)), "white")
    for left, one in zip(lefts, images):
        whole.paste(to_rgb(one), (left, 0))
    return whole, boxes


def _fitted(image: Image.Image, height_px: int, max_width_px: int | None) -> Image.Image:
    width_px = max(1, round(image.width * height_px / image.height))
    if max_width_px is None or width_px <= max_width_px:
        return image.resize((width_px, height_px))
    return image.resize((max_width_px, max(1, round(image.height * max_width_px / image.width))))


def data_url(image: Image.Image) -> str:
    """The JPEG of an image as the address of an `<img>`, so that a page needs no other file."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg_of(image)).decode()


def describe_failure(error: Exception, data: bytes, noun: str = "an image") -> str:
    """One line that says why the bytes could not be decoded."""
    if data.lstrip()[:1] == b"<":
        return f"a web page or XML text, not {noun}"
    text = str(error).partition("\n")[0]
    if text.startswith("cannot identify image file"):
        return f"not {noun} of a known format"
    return text or type(error).__name__


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB; RGB images are returned unchanged.

    TypeError for anything but an image of Pillow, ValueError for floating-point pixels of an unknown range.
    """
    if not isinstance(image, Image.Image):
        raise TypeError(f"expected an image of Pillow, as Image.open or Image.fromarray returns it, not {type(image)}")
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        import numpy as np

        # Fractions of 1, whole numbers of 8 bits, or whole numbers of 16 bits.
        values = np.asarray(image)
        low, high = float(values.min(initial=0)), float(values.max(initial=0))
        if not (low >= 0 and math.isfinite(high)):
            raise ValueError("floating-point pixels that are negative or not finite, whose range nobody knows")
        scale = 255.0 if high <= 1 else 255 / 65535 if high > 255 else 1.0
        return Image.fromarray(np.clip(values * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "I":
        import numpy as np

        # 16-bit grey in formats that Pillow reads as 32 bits.
        values = np.asarray(image)
        image = Image.fromarray(
            (np.clip(values, 0, 65535) >> (8 if values.max(initial=0) > 255 else 0)).astype(np.uint8)
        )
        return image.convert("RGB")
    if image.mode.startswith("I;16"):
        import numpy as np

        # Pillow would clip 16-bit grey at 255 rather than scale it.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(page, image).convert("RGB")
    return image.convert("RGB")


def brightness(image: Image.Image) -> float:
    """Mean luma (ITU-R BT.601) of the image, from 0.0 (black) to 1.0 (white), rounded to 0.1."""
    import numpy as np

    luma = np.asarray(image.convert("L"), dtype=np.float32)
    return round(float(luma.mean()) / 255, 1)


def colorfulness(image: Image.Image) -> float:
    """Colourfulness from 0.0 (black and white) to 1.0, rounded to 0.1.

    Hasler and Suesstrunk, "Measuring colourfulness in natural images" (2003), equation for M(3): with rg = R - G and
    yb = (R + G) / 2 - B, M = sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2); here M / 109, at most 1.
    """
    import numpy as np

    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    rg, yb = red - green, (red + green) / 2 - blue
    spread = math.sqrt(float(rg.var()) + float(yb.var()))
    shift = math.hypot(float(rg.mean()), float(yb.mean()))
    return round(min(1.0, (spread + 0.3 * shift) / _EXTREMELY_COLOURFUL), 1)
