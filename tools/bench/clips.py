"""Clips: 8 frames of 10 s at 720p, read as the loader reads them, beside decoding the whole clip.

    python tools/bench/clips.py [--rounds 5]

The whole clip is read as `torchvision.io.read_video` did it with PyAV: every frame decoded, then every frame to RGB,
then all of them in one tensor. A third side decodes every frame, converts it to RGB and forgets it, which is the
least that decoding a whole clip takes. The frames of the first two are compared. All sides have one thread of the
decoder and take turns in one process; the ratios are those of the medians, of the processor time and of the time that
passed. They depend on the distance of the key frames, so two files are read: with the default of x264, at most 250
frames, and with a key frame every second, as streams have them.

The memory is what a fresh process needs at most beyond what it needed before, as a multiple of the bytes of the 8
frames (Linux only): once for reading them as the loader does, into the image processor, and once if all of them are
kept at their full size. Do not run it beside other work.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from lavis_emovit.clips.clip import Clip, FrameSettings
from lavis_emovit.clips.reading import read_frames
from lavis_emovit.processors.emovit_image_eval import EmovitImageEvalProcessor
from lavis_emovit.processors.settings import ImageEvalSettings

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


def decode_all(file: Any) -> Iterator[Any]:
    """All frames, with one thread."""
    stream = file.streams.video[0]
    stream.codec_context.thread_count = 1
    return file.decode(stream)


def all_frames(path: Path) -> torch.Tensor:
    """8 frames of the whole clip as one tensor, uint8 [8, H, W, 3]."""
    with av.open(str(path)) as file:
        frames = list(decode_all(file))
    video = torch.as_tensor(np.stack([frame.to_rgb().to_ndarray() for frame in frames]))
    wanted_s = [SECONDS / FRAMES.num_frames * (number + 0.5) for number in range(FRAMES.num_frames)]
    times_s = [frame.time for frame in frames]
    return video[[bisect_right(times_s, time_s + 0.0005) - 1 for time_s in wanted_s]]


def one_by_one(path: Path) -> None:
    """Every frame to RGB, none kept: the least that decoding the whole clip can take."""
    with av.open(str(path)) as file:
        for frame in decode_all(file):
            frame.to_ndarray(format="rgb24")


def chosen_frames(path: Path, frames: FrameSettings = FRAMES) -> list[Image.Image]:
    return [image for _, image in read_frames(path, Clip(), frames)]


def processed_frames(path: Path, frames: FrameSettings = FRAMES) -> torch.Tensor:
    """The clip as a model gets it."""
    return EmovitImageEvalProcessor(ImageEvalSettings(frames=frames)).read(path.read_bytes(), Clip())[0]


def taken_s(call: Callable[[Path], Any], path: Path) -> tuple[float, float]:
    """Seconds of the processor, and those that passed."""
    start = time.process_time(), time.perf_counter()
    call(path)
    return time.process_time() - start[0], time.perf_counter() - start[1]


def memory_bytes(name: str) -> int:
    """`VmRSS`, what this process needs now, or `VmHWM`, what it needed at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def print_memory(path: Path, read: Callable[..., Any]) -> None:
    """Print the bytes that reading the frames takes at most, for the process that asks for them."""
    read(path, FrameSettings(num_frames=1))  # what the libraries load on first use
    Path("/proc/self/clear_refs").write_text("5")  # the highest value begins anew
    before = memory_bytes("VmRSS")
    kept = read(path)
    print(memory_bytes("VmHWM") - before, len(kept))


READERS = {"kept": chosen_frames, "processed": processed_frames}


def memory_of(path: Path, reader: str) -> float:
    command = [sys.executable, __file__, "--memory-of", str(path), "--reader", reader]
    needed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    return round(int(needed) / KEPT_BYTES, 3)


def compare(path: Path, rounds: int) -> dict[str, float]:
    for ours, theirs in zip(chosen_frames(path), all_frames(path).numpy(), strict=True):
        if not np.array_equal(np.asarray(ours), theirs):
            raise SystemExit("the two sides do not give the same frames")
    sides = {"chosen": chosen_frames, "all": all_frames, "one_by_one": one_by_one}
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, read in sides.items():
            taken[side].append(taken_s(read, path))
    processor_s, passed_s = (
        {side: statistics.median(one[clock] for one in of) for side, of in taken.items()} for clock in (0, 1)
    )
    return {
        **{f"{side}_processor_s": round(seconds, 4) for side, seconds in processor_s.items()},
        "times_as_fast": round(processor_s["all"] / processor_s["chosen"], 3),
        "times_as_fast_passed": round(passed_s["all"] / passed_s["chosen"], 3),
        "times_as_fast_one_by_one": round(processor_s["one_by_one"] / processor_s["chosen"], 3),
        "memory_of_loader": memory_of(path, "processed"),
        "memory_of_kept": memory_of(path, "kept"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "clips.json")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of is not None:
        print_memory(arguments.memory_of, READERS[arguments.reader])
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
