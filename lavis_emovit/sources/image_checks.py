"""Checks a single image file: whether it opens, its oddities, and its fingerprints."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lavis_emovit.errors import DataError
from lavis_emovit.images import describe_failure, open_strictly, to_rgb

# The fault of a file that does not exist.
MISSING = "missing"
SMALL_PX = 16
_HASH_SIDE = 8
# An image of nearly one tone has no structure for a perceptual hash.
_FLAT_RANGE = 8
_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe"},
    "MPO": {".jpg", ".jpeg"},
    "PNG": {".png"},
    "WEBP": {".webp"},
    "GIF": {".gif"},
    "BMP": {".bmp"},
    "TIFF": {".tif", ".tiff"},
}


@dataclass(frozen=True)
class ImageFacts:
    """The results for one image file."""

    path: str
    fault: str | None = None  # why it cannot be used; None if it is sound
    odd: tuple[str, ...] = ()  # special cases: `CMYK`, `16-bit`, `animated`, `turned by EXIF`
    sha256: str = ""  # of the file's bytes; empty if there is no file
    phash: int | None = None  # 64-bit perceptual hash (DCT) of the image as displayed; None for an image of one tone


def check_file(path: str) -> ImageFacts:
    """Open an image, decode all of it, and compute its fingerprints. Never raises because of the file's content."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return ImageFacts(path, fault=MISSING)
    except OSError as error:
        return ImageFacts(path, fault=f"cannot be read ({error.strerror})")
    sha256 = hashlib.sha256(data).hexdigest()
    if not data:
        return ImageFacts(path, fault="the file is empty", sha256=sha256)
    try:
        with open_strictly(data) as image:
            odd = _oddities(image, path)
            # A small JPEG is enough for the hash; decoding still reads the whole file.
            image.draft("RGB", (128, 128))
            image.load()
            shown = _as_shown(image)
    except Exception as error:
        return ImageFacts(path, fault=describe_failure(error, data), sha256=sha256)
    return ImageFacts(path, odd=odd, sha256=sha256, phash=_perceptual_hash(shown))


def open_thumbnail(path: Path, min_side_px: int) -> Image.Image:
    """An image to display, decoded no larger than needed. DataError if it is missing or damaged."""
    try:
        with open_strictly(path) as image:
            image.draft("RGB", (min_side_px, min_side_px))
            image.load()
            return _as_shown(image)
    except Exception as error:
        raise DataError(f"{path}: the image cannot be read ({str(error).partition(chr(10))[0]})") from None


def _as_shown(image: Image.Image) -> Image.Image:
    """A loaded image as a viewer shows it, in RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        # Fractions of 1, whole numbers of 8 bits, or whole numbers of 16 bits.
        values = np.asarray(image)
        highest = float(values.max(initial=0))
        scale = 255.0 if highest <= 1 else 255 / 65535 if highest > 255 else 1.0
        image = Image.fromarray(np.clip(values * scale, 0, 255).astype(np.uint8))
    return to_rgb(image)


def _oddities(image: Image.Image, path: str) -> tuple[str, ...]:
    odd = []
    if image.mode == "CMYK":
        odd.append("CMYK")
    if image.mode.startswith("I") or image.mode == "F":
        odd.append("16-bit")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        odd.append("animated")
    if image.getexif().get(0x0112, 1) != 1:
        odd.append("turned by EXIF")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        odd.append("transparent")
    if min(image.size) < SMALL_PX:
        odd.append(f"smaller than {SMALL_PX} px")
    suffixes = _SUFFIXES.get(image.format or "")
    if suffixes is None:
        odd.append(f"format {image.format}")
    elif Path(path).suffix.lower() not in suffixes:
        odd.append(f"{image.format} called {Path(path).suffix or 'nothing'}")
    return tuple(odd)


def _perceptual_hash(image: Image.Image) -> int | None:
    import imagehash

    grey = image.convert("L")
    low, high = grey.getextrema()
    if float(high) - float(low) < _FLAT_RANGE:  # type: ignore[arg-type]
        return None
    return int(str(imagehash.phash(grey, hash_size=_HASH_SIDE)), 16)
