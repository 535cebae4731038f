"""Clips: 8 frames of 10 s at 720p, read as the loader reads them, beside decoding every frame.

    python tools/bench/clips.py [--rounds 5]

Both sides give the same 8 RGB images, which is checked, and take turns in one process. The ratio is that of the
medians; it is printed. Do not run it beside other work.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageChops

from lavis_emovit.clips.clip import Clip, FrameSettings
from lavis_emovit.clips.reading import read_frames

RATE_FPS, SECONDS, SIZE = 30, 10, (1280, 720)
FRAMES = FrameSettings(num_frames=8)


def write_video(path: Path) -> None:
    """A textured image that moves, encoded with the defaults of x264."""
    width, height = SIZE
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 4, 3), np.uint8)
    wide = np.asarray(Image.fromarray(noise).resize((2 * width, height), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE_FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(RATE_FPS * SECONDS):
            part = np.ascontiguousarray(wide[:, 4 * number : 4 * number + width])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        file.mux(stream.encode())


def all_frames(data: Path) -> list[Image.Image]:
    """Every frame to RGB, then 8 of them: what reading a video as one tensor does, with one thread."""
    with av.open(str(data)) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode(stream)]
    wanted_s = [SECONDS / FRAMES.num_frames * (number + 0.5) for number in range(FRAMES.num_frames)]
    return [Image.fromarray([pixels for at_s, pixels in frames if at_s <= time_s + 0.0005][-1]) for time_s in wanted_s]


def chosen_frames(data: Path) -> list[Image.Image]:
    return [image for _, image in read_frames(data, Clip(), FRAMES)]


def seconds(call: Callable[[Path], Any], path: Path) -> float:
    start = time.perf_counter()
    call(path)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.mp4")
        write_video(path)
        for ours, theirs in zip(chosen_frames(path), all_frames(path), strict=True):
            if ImageChops.difference(ours, theirs).getbbox() is not None:
                raise SystemExit("the two sides do not give the same frames")
        taken: dict[str, list[float]] = {"chosen": [], "all": []}
        for _ in range(rounds):
            taken["chosen"].append(seconds(chosen_frames, path))
            taken["all"].append(seconds(all_frames, path))
    chosen_s, all_s = (statistics.median(taken[side]) for side in ("chosen", "all"))
    print(f"chosen frames {chosen_s:.3f} s, all frames {all_s:.3f} s: {all_s / chosen_s:.2f} times the clips a second")


if __name__ == "__main__":
    main()
