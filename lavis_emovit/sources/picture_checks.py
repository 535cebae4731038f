"""One picture file, looked at closely: whether it opens, what is odd about it, and its fingerprints."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from lavis_emovit.errors import DataError
from lavis_emovit.images import MAX_PIXELS, strict_decoding

# The fault of a picture that is not there at all.
MISSING = "missing"
SMALL_PX = 16
_HASH_SIDE = 8
# A picture of nearly one tone has no structure that a perceptual hash could hold on to.
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
class PictureFacts:
    """What is known about a picture file.

    Attributes:
        path: the file.
        fault: why it cannot be used; None for a sound one.
        odd: what a reader must know how to handle: `CMYK`, `16-bit`, `animated`, `turned by EXIF`, ...
        size: width and height, pixels.
        sha256: of the file's bytes; empty where there is no file.
        phash: 64-bit perceptual hash (DCT) of the picture as it is shown; None for a picture of one tone.
    """

    path: str
    fault: str | None = None
    odd: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    sha256: str = ""
    phash: int | None = None


def look_at(path: str) -> PictureFacts:
    """Open a picture, decode all of it, and take its fingerprints. Never raises for what is in the file."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return PictureFacts(path, fault=MISSING)
    except OSError as error:
        return PictureFacts(path, fault=f"cannot be read ({error.strerror})")
    sha256 = hashlib.sha256(data).hexdigest()
    if not data:
        return PictureFacts(path, fault="the file is empty", sha256=sha256)
    try:
        with warnings.catch_warnings(), strict_decoding():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                size = image.size
                if size[0] * size[1] > MAX_PIXELS:
                    raise ValueError(f"{size[0]} x {size[1]} pixels, a decompression bomb")
                odd = _oddities(image, path)
                # A small JPEG is enough for the hash; all of the file is read all the same.
                image.draft("RGB", (128, 128))
                image.load()
                shown = upright_rgb(image)
    except Exception as error:
        # Pillow's decoders raise many kinds; whichever it is, this file cannot be used.
        text = str(error).partition("\n")[0]
        if data.lstrip()[:1] == b"<":
            text = "a web page or XML text, not a picture"
        elif text.startswith("cannot identify image file"):
            text = "not a picture of a known format"
        return PictureFacts(path, fault=text or type(error).__name__, sha256=sha256)
    return PictureFacts(path, odd=odd, size=size, sha256=sha256, phash=_perceptual_hash(shown))


def upright_rgb(image: Image.Image) -> Image.Image:
    """A loaded picture as a viewer shows it: turned as its EXIF says, transparent parts on white, 16 bits scaled."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        highest = float(image.getextrema()[1])  # type: ignore[arg-type]
        # Whole numbers of 16 bits, fractions of 1, or whole numbers of 8 bits.
        scale = 255 / 65535 if highest > 255 else 255.0 if image.mode == "F" and highest <= 1 else 1.0
        return image.convert("F").point(lambda value: value * scale).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "P") and ("transparency" in image.info or image.mode != "P"):
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


def open_picture(path: Path, min_side_px: int) -> Image.Image:
    """A picture to be shown, decoded no larger than needed.

    Raises:
        DataError: there is none, or it is damaged.
    """
    try:
        with warnings.catch_warnings(), strict_decoding():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels")
                image.draft("RGB", (min_side_px, min_side_px))
                image.load()
                return upright_rgb(image)
    except Exception as error:
        raise DataError(f"{path}: the picture cannot be read ({str(error).partition(chr(10))[0]})") from None


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
