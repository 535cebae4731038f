"""Frames of clips, whatever they are stored as.

Properties:
- the same settings and seed give the same frames of a video file and of its bytes;
- a clip of a video is its part from start to end; a part that the video does not have is an error;
- frames are chosen by their times where some are missing; a missing or broken file is named;
- a bundle gives back its frames and times, and the same frames give the same bytes;
- an image is a clip of one frame;
- events are found where something moves.
"""

from __future__ import annotations

import io

import pytest

pytest.importorskip("av", reason="the extra `clips` is not installed")
from PIL import Image
from video_files import shows, write_video

from lavis_emovit.clips.clip import Clip, EventSettings, FrameSettings
from lavis_emovit.clips.reading import FrameList, bundle_of, film_strip, find_events, open_clip, read_frames
from lavis_emovit.errors import DataError

FOUR = FrameSettings(num_frames=4)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4", [number / 10 for number in range(50)], g="10")


def test_a_clip_is_a_part_of_its_video(video):
    # Its last frame, at 4.9 s, is shown for 0.04 s: four parts of 1.235 s.
    whole = [time_s for time_s, _ in read_frames(video, Clip(), FOUR)]
    assert whole == pytest.approx([0.6, 1.8, 3.0, 4.3])
    part = list(read_frames(video.read_bytes(), Clip(start_s=2, end_s=4), FOUR))
    assert [time_s for time_s, _ in part] == pytest.approx([2.2, 2.7, 3.2, 3.7])
    assert all(shows(image, round(10 * time_s)) for time_s, image in part)
    for clip in (Clip(start_s=6), Clip(end_s=9)):
        with pytest.raises(DataError, match=r"but the video ends at 4\.94 s"):
            list(read_frames(video, clip, FOUR))


def test_a_key_outside_of_its_clip_is_refused(video):
    around = FrameSettings(sampler="around", num_frames=1, rate_fps=1)
    for clip in (Clip(key_s=9), Clip(start_s=2, end_s=3, key_s=4), Clip(start_s=2, key_s=1)):
        with pytest.raises(DataError, match=rf"clip\.key_s is {clip.key_s:g} s, which is not in the clip"):
            list(read_frames(video, clip, around))
    # Frames and ends are rounded.
    assert len(list(read_frames(video, Clip(key_s=5.2), around))) == 1


def test_the_seed_decides(video):
    by_seed = [[t for t, _ in read_frames(video, Clip(), FOUR, seed=seed)] for seed in (1, 1, 2)]
    assert by_seed[0] == by_seed[1] != by_seed[2]


def _image(tone: int, suffix: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (tone, tone, tone)).save(buffer, suffix)
    return buffer.getvalue()


def test_frames_are_chosen_by_their_times(tmp_path):
    paths = [f"{number}.png" for number in (0, 1, 2, 7, 8, 9)]
    for number, path in enumerate(paths):
        (tmp_path / path).write_bytes(_image(40 * number))
    # Frames 3 to 6 are missing; at 0.45 s frame 2 is still shown.
    clip = Clip(frames=paths, times_s=[0, 0.1, 0.2, 0.7, 0.8, 0.9])
    with open_clip(b"", clip, root=tmp_path) as opened:
        found = list(opened.frames_at([0.05, 0.45, 0.75]))
    assert [time_s for time_s, _ in found] == [0, 0.2, 0.7]
    assert [image.getpixel((0, 0))[0] for _, image in found] == [0, 80, 120]
    (tmp_path / "2.png").unlink()
    (tmp_path / "8.png").write_bytes(b"damaged")
    for time_s, text in ((0.3, r"^2\.png: cannot be read \(No such file"), (0.8, r"^8\.png: the image cannot be dec")):
        with pytest.raises(DataError, match=text), open_clip(b"", clip, root=tmp_path) as opened:
            list(opened.frames_at([time_s]))


def test_a_bundle_gives_back_its_frames():
    frames = [(0.0, "png", _image(0)), (1.25, "jpg", _image(200, "JPEG"))]
    data = bundle_of(frames)
    assert data == bundle_of(frames)
    with open_clip(data, Clip()) as opened:
        assert isinstance(opened, FrameList)
        assert list(opened.times_s) == [0.0, 1.25]
        assert [opened.read(name) for name in opened.names] == [one for _, _, one in frames]
    # Two frames, each shown for 1.25 s.
    assert [time_s for time_s, _ in read_frames(data, Clip(), FOUR)] == [0.0, 0.0, 1.25, 1.25]
    assert film_strip(data, Clip(), 24).size == (6 * 32, 24)


def test_an_image_is_a_clip_of_one_frame():
    found = list(read_frames(_image(70), None, FOUR))
    assert [(time_s, image.size) for time_s, image in found] == [(0.0, (32, 24))] * 4


def test_events_are_where_something_moves():
    # A square that stands still, jumps along between 3 and 4 s, and stands still again.
    frames = []
    for number in range(80):
        image = Image.new("L", (96, 64), 30)
        x = 10 if number < 30 else 50 if number > 40 else 10 + 4 * (number - 30)
        image.paste(220, (x, 20, x + 24, 44))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        frames.append((number / 10, "png", buffer.getvalue()))
    with open_clip(bundle_of(frames), Clip()) as opened:
        (peak_s,) = find_events(opened, EventSettings())
    assert 3.0 <= peak_s <= 4.1
    times_s = [time_s for time_s, _ in read_frames(bundle_of(frames), Clip(), FrameSettings(sampler="events"))]
    assert sum(2.4 <= time_s <= 4.6 for time_s in times_s) >= 4
