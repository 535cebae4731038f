"""Frames of videos are chosen by their presentation times, and what is wrong with a file is an error.

Properties:
- at any time the frame is the last one that is not later, in every container, also with a variable rate or with
  groups of pictures that refer to the one before;
- frames that are not needed are not decoded, and a jump does not decode what lies before it;
- pixels are those of PyAV's own images;
- a rotated video is upright;
- empty, unknown, truncated, damaged and audio-only files, and playlists, are errors that say so;
- the memory for frames of a video of two hours does not grow with its length.
"""

from __future__ import annotations

import random
import subprocess
import sys
from bisect import bisect_right
from fractions import Fraction

import pytest

pytest.importorskip("av", reason="the extra `clips` is not installed")
import av
from video_files import shows, write_sound, write_video

from lavis_emovit.clips.video import Video
from lavis_emovit.errors import DataError

EVEN_S = [number / 25 for number in range(100)]
# Frames behind a key frame refer to the group before it.
OPEN_GROUPS = {"g": "12", "bf": "3", "x264-params": "open-gop=1:min-keyint=12:scenecut=0:b-adapt=0"}


def _uneven(seed: int = 0) -> list[float]:
    choose = random.Random(seed)
    times_s = [0.0]
    while times_s[-1] < 6:
        times_s.append(round(times_s[-1] + choose.choice([0.02, 0.04, 0.1, 0.5]), 3))
    return times_s


@pytest.mark.parametrize(
    "name, codec, times_s, options",
    [
        ("a.mp4", "libx264", _uneven(), {}),
        ("a.mp4", "libx264", _uneven(1), {"g": "12", "bf": "3"}),
        ("a.mkv", "libx264", _uneven(), {"g": "20"}),
        ("a.mp4", "libx264", EVEN_S, OPEN_GROUPS),
        ("a.mkv", "libx264", EVEN_S, OPEN_GROUPS),
        ("a.webm", "libvpx", _uneven(), {}),
        ("a.ts", "libx264", _uneven(), {"bf": "3"}),
        ("a.avi", "mpeg4", EVEN_S, {"clock": Fraction(1, 25)}),
    ],
)
def test_the_frame_at_a_time_is_the_one_shown_then(tmp_path, name, codec, times_s, options):
    path = write_video(tmp_path / name, times_s, codec=codec, **options)
    wanted_s = sorted(random.Random(name).uniform(0, times_s[-1]) for _ in range(9))
    with Video(path) as video:
        found = list(video.frames_at([*wanted_s, *times_s[-3:]]))
        video.check()
    for time_s, (found_s, image) in zip([*wanted_s, *times_s[-3:]], found, strict=True):
        number = bisect_right(times_s, time_s + 1e-3) - 1
        assert found_s == pytest.approx(times_s[number], abs=1e-3)
        assert shows(image, number)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_jump_into_an_open_group(tmp_path, name):
    path = write_video(tmp_path / name, EVEN_S, **OPEN_GROUPS)
    for time_s in (0.7, 1.7, 3.0, 3.9):
        with Video(path) as video:
            ((found_s, image),) = video.frames_at([time_s])
        assert found_s <= time_s + 1e-3 and shows(image, round(found_s * 25))


def test_unneeded_frames_are_not_decoded(tmp_path):
    path = write_video(tmp_path / "a.mp4", EVEN_S, codec="mpeg4", g="25", bf="3", b_strategy="0", clock=Fraction(1, 25))
    with Video(path) as video:
        # One of four frames at most is a reference of others.
        assert len(list(video._decoded_from(0.0, [3.9]))) < 0.7 * len(EVEN_S)
        # Only what follows the last key frame is decoded.
        assert len(list(video._decoded_from(3.9, [3.9]))) <= 25
        assert len(list(video._decoded_from(0.0, None))) == len(EVEN_S)


@pytest.mark.parametrize("size", [(64, 48), (66, 50), (638, 362)])
def test_pixels_are_those_of_pyav(tmp_path, size):
    path = write_video(tmp_path / "a.mp4", EVEN_S[:4], size=size, noise=True)
    with av.open(str(path)) as file:
        expected = [(frame.time, frame.to_image()) for frame in file.decode(video=0)]
    with Video(path) as video:
        found = list(video.frames_at([time_s for time_s, _ in expected]))
    assert [(time_s, image.mode, image.tobytes()) for time_s, image in found] == [
        (time_s, "RGB", image.tobytes()) for time_s, image in expected
    ]


@pytest.mark.parametrize("rotation, corner", [(0, (0, 0)), (90, (0, 1)), (180, (1, 1)), (-90, (1, 0)), (270, (1, 0))])
def test_a_rotated_video_is_upright(tmp_path, rotation, corner):
    # FFmpeg's display matrix rotates counter-clockwise: the upper left corner goes to the lower left.
    path = write_video(tmp_path / "a.mp4", EVEN_S[:3], rotation=rotation)
    with Video(path) as video:
        ((_, image),) = video.frames_at([0.0])
    assert image.size == ((64, 48) if rotation % 180 == 0 else (48, 64))
    x, y = corner[0] * (image.width - 1), corner[1] * (image.height - 1)
    red, green, _ = image.getpixel((x, y))
    assert red > 200 and green < 60


def test_bad_files_are_named_errors(tmp_path):
    whole = write_video(tmp_path / "a.mkv", EVEN_S, noise=True).read_bytes()
    changed = bytearray(whole)
    middle = len(whole) // 2
    changed[middle : middle + 9000] = bytes(9000)
    moov_last = write_video(tmp_path / "b.mp4", EVEN_S).read_bytes()
    cases = {
        "empty": (b"", "is empty"),
        "text": (b"<html>not found</html>" * 40, "not a video file"),
        "playlist": (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/hostname\n#EXT-X-ENDLIST\n", "not a video"),
        "list": (b"ffconcat version 1.0\nfile a.mkv\n", "not a video file"),
        "truncated": (whole[: len(whole) // 2], "truncated: its frames end at"),
        "without an index": (moov_last[: len(moov_last) // 2], "not a video file"),
        "damaged": (bytes(changed), "is damaged"),
        "sound": (write_sound(tmp_path / "a.m4a").read_bytes(), "no video stream, only audio"),
    }
    for data, text in cases.values():
        with pytest.raises(DataError, match=text), Video(data) as video:
            list(video.frames_at([0.5, 3.9]))
            video.check()


_LONG = """
import resource, sys
from pathlib import Path
from lavis_emovit.clips.video import Video

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

with Video(Path(sys.argv[1])) as video:
    list(video.frames_at([1.0]))
    before = peak_mb()
    count = sum(1 for _ in video.frames_at([number * video.end_s / 16 for number in range(16)]))
    print(video.end_s, count, peak_mb() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory in the unit of Linux")
def test_two_hours_do_not_fill_the_memory(tmp_path):
    times_s = range(0, 7200, 10)
    path = write_video(tmp_path / "a.mp4", times_s, size=(640, 360), codec="mpeg4", clock=Fraction(1, 25))
    found = subprocess.run(
        [sys.executable, "-c", _LONG, str(path)], capture_output=True, text=True, check=True
    ).stdout.split()
    end_s, count, grown_mb = map(float, found)
    assert end_s > 7190 and count == 16
    # All of its frames would take 500 MB.
    assert grown_mb < 30
