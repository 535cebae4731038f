"""Pictures that a dataset holds inside its tables, written out as files, because records name files."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_emovit.errors import DataError

PICTURES_NAME = "pictures"
_SUFFIX_OF_FORMAT = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}


class PictureFolder:
    """Writes pictures below `root/pictures`; a file that is there already with the same bytes is left alone.

    Args:
        root: the folder that the records' picture paths start from.
    """

    def __init__(self, root: Path):
        self.root = root

    def add(self, name: str, content: Any) -> str:
        """Write one picture.

        Args:
            name: name of the picture, without suffix.
            content: the bytes of a picture file, a PIL image, or Hugging Face's `{"bytes": ..., "path": ...}`.

        Returns:
            its path, relative to the root.

        Raises:
            DataError: nothing of the kind, or bytes that are no picture.
        """
        if isinstance(content, dict):
            inside, outside = content.get("bytes"), content.get("path")
            # An object that was made of files holds their paths until it is stored.
            content = Path(outside).read_bytes() if not inside and outside and Path(outside).is_file() else inside
        if isinstance(content, Image.Image):
            buffer = io.BytesIO()
            # Pixels as they are: PNG keeps grey, palette and 16-bit pictures.
            (
                content if content.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16") else content.convert("RGB")
            ).save(buffer, "PNG")
            data, suffix = buffer.getvalue(), "png"
        elif isinstance(content, (bytes, bytearray)) and content:
            data = bytes(content)
            suffix = _suffix_of(data)
        else:
            raise DataError(f"the picture is not in the table (got {type(content).__name__})")
        path = f"{PICTURES_NAME}/{re.sub(r'[^A-Za-z0-9._-]+', '_', name).strip('.') or '_'}.{suffix}"
        target = self.root / path
        if not (target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return path

    def add_pixels(self, name: str, text: str) -> str:
        """Write the square grey picture whose values, 0 to 255 and separated by blanks, `text` holds.

        Raises:
            DataError: not a square number of values, or values that are none.
        """
        try:
            values = bytes(int(value) for value in text.split())
        except ValueError:
            raise DataError("the pixels are not numbers from 0 to 255") from None
        side = round(len(values) ** 0.5)
        if not values or side * side != len(values):
            raise DataError(f"{len(values)} pixels are no square picture")
        return self.add(name, Image.frombytes("L", (side, side), values))


def _suffix_of(data: bytes) -> str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _SUFFIX_OF_FORMAT.get(image.format or "", (image.format or "img").lower())
    except Exception as error:
        raise DataError(f"the bytes are no picture ({str(error).splitlines()[0]})") from None
