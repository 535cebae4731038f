"""Pillow without its leniency: a picture that is cut must not pass for a whole one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ImageFile

# Twice Pillow's own warning limit: where Pillow calls a picture a decompression bomb.
MAX_PIXELS = 178_956_970

_lock = threading.Lock()
_num_inside = 0
_value_outside = False


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
