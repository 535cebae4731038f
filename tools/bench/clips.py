"""Clips: 8 frames of 10 s at 720p, read as the loader reads them, beside decoding every frame.

    python tools/bench/clips.py [--rounds 5]

Both sides give the same 8 RGB images, which is checked, and take turns in one process. The ratio is that of the
medians. It depends on the distance of the key frames, so two files are read: with the default of x264, at most 250
frames, and with a key frame every second, as streams have them.

The memory is what a fresh process needs at most while it reads the 8 frames, beyond what it needed before, as a
multiple of the bytes of these frames (Linux only). Do not run it beside other work.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
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

sys.path.append(str(Path(__file__).resolve().parent))
from bench_result import ROOT, environment_info, write_result

RATE_FPS, SECONDS, SIZE = 30, 10, (1280, 720)
FRAMES = FrameSettings(num_frames=8)
KEPT_BYTES = FRAMES.num_frames * SIZE[0] * SIZE[1] * 3
# Name -> frames from one key frame to the next.
KEY_FRAMES = {"x264's default": 250, "one a second": RATE_FPS}


def write_video(path: Path, key_every: int) -> None:
    """A textured image that moves, encoded with the defaults of x264 but for the distance of key frames."""
    width, height = SIZE
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 4, 3), np.uint8)
    wide = np.asarray(Image.fromarray(noise).resize((2 * width, height), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE_FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"g": str(key_every)}
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


def memory_bytes(name: str) -> int:
    """`VmRSS`, what this process needs now, or `VmHWM`, what it needed at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def print_memory(path: Path) -> None:
    """Print the bytes that reading the frames takes at most, for the process that asks for them."""
    next(read_frames(path, Clip(), FRAMES))  # what PyAV and Pillow load on first use
    Path("/proc/self/clear_refs").write_text("5")  # the highest value begins anew
    before = memory_bytes("VmRSS")
    kept = chosen_frames(path)
    print(memory_bytes("VmHWM") - before, len(kept))


def compare(path: Path, rounds: int) -> dict[str, float]:
    for ours, theirs in zip(chosen_frames(path), all_frames(path), strict=True):
        if ImageChops.difference(ours, theirs).getbbox() is not None:
            raise SystemExit("the two sides do not give the same frames")
    taken: dict[str, list[float]] = {"chosen": [], "all": []}
    for _ in range(rounds):
        taken["chosen"].append(seconds(chosen_frames, path))
        taken["all"].append(seconds(all_frames, path))
    chosen_s, all_s = (statistics.median(taken[side]) for side in ("chosen", "all"))
    command = [sys.executable, __file__, "--memory-of", str(path)]
    needed = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0])
    return {
        "chosen_s": round(chosen_s, 4),
        "all_s": round(all_s, 4),
        "times_as_fast": round(all_s / chosen_s, 3),
        "memory_of_kept": round(needed / KEPT_BYTES, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "clips.json")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of is not None:
        print_memory(arguments.memory_of)
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, key_every in KEY_FRAMES.items():
            path = Path(folder, f"{key_every}.mp4")
            write_video(path, key_every)
            results[name] = compare(path, arguments.rounds)
            print(f"key frames {name}: {results[name]}", flush=True)
    command = f"python tools/bench/clips.py --rounds {arguments.rounds}"
    info = environment_info("lavis_emovit", packages=["av", "pillow"])
    write_result(arguments.out, {"benchmark": "clips", "key_frames": results, "command": command, **info})


if __name__ == "__main__":
    main()
