"""Writes images that a dataset stores inside its tables to files, because records name files."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_emovit.errors import DataError, first_line
from lavis_emovit.files import name_full_disk
from lavis_emovit.images import SUFFIXES_OF_FORMAT, open_strictly

# The records of earlier versions have this name in their image paths.
EXTRACTED_FOLDER = "pictures"
# PNG stores these modes without a conversion.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")
_MAX_NAME = 200  # most file systems allow 255 bytes, with the suffix


def extract_image(
    root: Path, name: str, content: Any, folders: Sequence[Path] = (), names: dict[str, str] | None = None
) -> str:
    """Write one image below `root/pictures` and return its path there; an existing file with the same bytes stays.

    `names` collects the names of a dataset, from "" on: two that differ only in characters that the path cannot have
    give two paths.

    `content` is the bytes of an image file, a PIL image, or Hugging Face's `{"bytes": ..., "path": ...}` (else
    DataError). A path alone is that of a file in one of the `folders`; without `folders`, of any file, because the
    object that has it was made here.
    """
    if isinstance(content, dict):
        inside, outside = content.get("bytes"), content.get("path")
        if not inside and outside:
            inside = _file_named(outside, folders).read_bytes()
        content = inside
    if isinstance(content, Image.Image):
        buffer = io.BytesIO()
        (content if content.mode in _PNG_MODES else content.convert("RGB")).save(buffer, "PNG")
        data, suffix = buffer.getvalue(), "png"
    elif isinstance(content, (bytes, bytearray)) and content:
        data = bytes(content)
        suffix = _suffix_of(data)
    else:
        raise DataError(f"the image is not in the table (got {type(content).__name__})")
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".") or "_"
    if len(plain) > _MAX_NAME:
        plain = _hashed(plain[:_MAX_NAME], name)
    if names is not None:
        plain = distinct_name(plain, name, names)
    path = f"{EXTRACTED_FOLDER}/{plain}.{suffix}"
    target = root / path
    if not (target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data):
        target.parent.mkdir(parents=True, exist_ok=True)
        with name_full_disk(target):
            target.write_bytes(data)
    return path


def distinct_name(name: str, whole: str, names: dict[str, str]) -> str:
    """A short name of `whole`, with a hash behind it if another one has it; `names` collects them, from "" on."""
    return name if names.setdefault(name, whole) == whole else _hashed(name, whole)


def _hashed(name: str, whole: str) -> str:
    return f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


def _file_named(path: str, folders: Sequence[Path]) -> Path:
    """An image that a table names. DataError if it is missing, or outside of the `folders` if there are any."""
    if not folders and Path(path).is_file():
        return Path(path)
    looked = " or ".join(dict.fromkeys(map(str, folders)))
    # As text: links are the user's own, while `..` and absolute paths may be another person's.
    places = [tuple(map(os.path.abspath, (folder, folder / path))) for folder in folders]
    inside = [Path(place) for folder, place in places if Path(place).is_relative_to(folder)]
    if folders and not inside:
        raise DataError(f"the image {path} is not below {looked}; move it there, or set `image_folder` of the table")
    for place in inside:
        if place.is_file():
            return place
    raise DataError(f"the image {path} is missing{looked and f' below {looked}'}")


def image_of_pixels(text: str) -> Image.Image:
    """The square grey image whose pixels, 0 to 255 and separated by spaces, are in `text` (else DataError)."""
    try:
        # Python's `int` reads 1_0 as 10.
        values = bytes(int(value.replace("_", "?")) for value in text.split())
    except ValueError:
        raise DataError("the pixels are not numbers from 0 to 255") from None
    side = round(len(values) ** 0.5)
    if not values or side * side != len(values):
        raise DataError(f"{len(values)} pixels do not form a square image")
    return Image.frombytes("L", (side, side), values)


def _suffix_of(data: bytes) -> str:
    try:
        with open_strictly(data) as image:
            return SUFFIXES_OF_FORMAT[image.format or ""][0]
    except Exception as error:
        raise DataError(f"the bytes are not an image ({first_line(error)})") from None
