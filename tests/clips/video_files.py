"""Small videos whose frames show their number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

STEP = 8  # of grey between a frame and the next one; encoders change a tone by less than half of it


def write_video(
    path: Path,
    times_s: Sequence[float],
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (64, 48),
    rotation: int | None = None,
    clock: Fraction = Fraction(1, 1000),
    noise: bool = False,
    **options: str,
) -> Path:
    """A video with one grey frame at each time, its upper left corner red; `options` are those of the codec.

    With `noise` instead of grey, all frames need about as many bytes.
    """
    width, height = size
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = width, height, "yuv420p", clock
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number, time_s in enumerate(times_s):
            pixels = np.full((height, width, 3), tone_of(number), np.uint8)
            if noise:
                pixels = np.random.default_rng(number).integers(0, 256, pixels.shape, np.uint8)
            pixels[: height // 4, : width // 4] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round(time_s / clock), clock
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def tone_of(number: int) -> int:
    return number * STEP % 240


def shows(image: Image.Image, number: int) -> bool:
    """Whether a frame is the one with this number, by its tone."""
    pixel = image.convert("L").getpixel((image.width // 2, image.height - 4))
    return abs(float(pixel) - tone_of(number)) <= STEP / 2  # type: ignore[arg-type]


def write_sound(path: Path) -> Path:
    """An audio file without a picture."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        for number in range(5):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 44100, 1024 * number
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
