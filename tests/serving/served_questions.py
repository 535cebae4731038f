"""Questions about images, as OpenAI's client sends them, and waiting for what they cause."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

QUESTION = "Which feeling does this picture evoke?"


def url_of(image: Path | bytes) -> str:
    data = image if isinstance(image, bytes) else image.read_bytes()
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def asked(image: Path | bytes, text: str = QUESTION) -> list[dict[str, Any]]:
    """The messages of a question about an image."""
    parts = [{"type": "image_url", "image_url": {"url": url_of(image)}}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def noise(side_px: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((side_px, side_px), 60).save(buffer, "JPEG")
    return buffer.getvalue()


def wait_for(condition: Callable[[], bool]) -> None:
    """Return when a condition holds, within ten seconds."""
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")
