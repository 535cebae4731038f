"""Frames of a clip, whatever it is stored as: a video, image files, a bundle of frames in a shard, or one image."""

from __future__ import annotations

import io
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from lavis_emovit.clips.clip import TOLERANCE_S, Clip, EventSettings, FrameSettings
from lavis_emovit.clips.samplers import motion_peaks, sample_times
from lavis_emovit.clips.video import Video
from lavis_emovit.errors import DataError
from lavis_emovit.files import read_file
from lavis_emovit.images import decode_image

BUNDLE_SUFFIX = "zip"
STRIP_FRAMES = 6
_ZIP_MARK = b"PK\x03\x04"
# Optical flow is computed on frames whose longer side is this.
_FLOW_SIDE_PX = 160
# Rows of predictions have times in milliseconds, so a frame may be shown this much later.
_ROW_ROUNDING_S = 1e-3
# Names of frames in a bundle have their times in microseconds.
_ROUNDING_S = 1e-6

TimedFrame = tuple[float, Image.Image]


class FrameList:
    """Encoded frames with their times; decodes those that are asked for.

    Args:
        names: of the frames, for errors that the frames of one clip share.
        read: returns the bytes of a frame by its name; OSError if it cannot.
    """

    def __init__(
        self,
        times_s: Sequence[float],
        names: Sequence[str],
        read: Callable[[str], bytes],
        min_side_px: int | None = None,
    ):
        self.times_s, self.names, self.read, self._min_side_px = times_s, names, read, min_side_px
        gap_s = (times_s[-1] - times_s[0]) / (len(times_s) - 1) if len(times_s) > 1 else 0.0
        self.start_s, self.end_s = times_s[0], times_s[-1] + gap_s

    def frames_at(self, times_s: Sequence[float]) -> Iterator[TimedFrame]:
        shown: tuple[int, TimedFrame] | None = None
        for time_s in times_s:
            place = self.place_at(time_s)
            if shown is None or shown[0] != place:
                shown = place, (self.times_s[place], self._decoded(self.names[place]))
            yield shown[1]

    def place_at(self, time_s: float) -> int:
        """Number of the frame that is shown at a time."""
        return max(0, bisect_right(self.times_s, time_s + _ROUNDING_S) - 1)

    def _decoded(self, name: str) -> Image.Image:
        place = f"{name}: " if len(self.names) > 1 else ""
        try:
            return decode_image(self.read(name), min_side_px=self._min_side_px)
        except OSError as error:
            raise DataError(f"{place}cannot be read ({error.strerror})") from None
        except DataError as error:
            raise DataError(f"{place}{error}") from None


class VideoPart:
    """The part of a video that a record is about."""

    def __init__(self, video: Video, clip: Clip):
        self.start_s = clip.start_s or 0.0
        self.end_s = video.end_s if clip.end_s is None else min(clip.end_s, video.end_s)
        if (fault := clip.outside(video.end_s)) is not None:
            raise DataError(fault)
        self.frames_at, self.check = video.frames_at, video.check


@contextmanager
def open_clip(
    source: bytes | Path, clip: Clip | None, *, root: Path | None = None, min_side_px: int | None = None
) -> Iterator[FrameList | VideoPart]:
    """A clip, from the bytes in a shard or from files. An image is a clip of one frame.

    Args:
        source: bytes, or the path of the record's `image`.
        clip: of the record.
        root: the folder that the paths of `clip.frames` start in; None: the source has the frames.
        min_side_px: see `decode_image`; for frames that are images.

    Raises:
        DataError: it is damaged, or no clip; the text names the file only if the clip has several.
    """
    if clip is not None and clip.frames is not None and root is not None:
        yield FrameList(clip.frame_times_s, clip.frames, lambda path: read_file(root / path), min_side_px)
    elif isinstance(source, bytes) and source.startswith(_ZIP_MARK):
        with zipfile.ZipFile(io.BytesIO(source)) as bundle:
            names = bundle.namelist()
            yield FrameList([float(name.rpartition(".")[0]) for name in names], names, bundle.read, min_side_px)
    elif clip is None:
        yield FrameList([0.0], [""], lambda _: source if isinstance(source, bytes) else read_file(source), min_side_px)
    else:
        with Video(source) as video:
            yield VideoPart(video, clip)


def read_frames(
    source: bytes | Path,
    clip: Clip | None,
    settings: FrameSettings,
    *,
    seed: int | None = None,
    root: Path | None = None,
    min_side_px: int | None = None,
) -> Iterator[TimedFrame]:
    """The frames that the settings choose, decoded one by one: (presentation time in seconds, upright RGB image).

    The same frames for the same seed everywhere; see `open_clip` for the other arguments and errors.
    """
    with open_clip(source, clip, root=root, min_side_px=min_side_px) as opened:
        yield from opened.frames_at(chosen_times(opened, clip, settings, seed=seed))


def chosen_times(
    opened: FrameList | VideoPart, clip: Clip | None, settings: FrameSettings, *, seed: int | None = None
) -> list[float]:
    """The times in an open clip that the settings choose, in seconds, ascending."""
    peaks_s = find_events(opened, settings.events) if settings.sampler == "events" else ()
    key_s = clip.key_s if clip is not None else None
    allowed_s = opened.start_s - TOLERANCE_S, opened.end_s + TOLERANCE_S
    if settings.sampler == "around" and key_s is not None and not allowed_s[0] <= key_s <= allowed_s[1]:
        place = f"the clip, which is from {opened.start_s:g} to {opened.end_s:.2f} s"
        raise DataError(f"clip.key_s is {key_s:g} s, which is not in {place}")
    return sample_times(settings, opened.start_s, opened.end_s, seed=seed, key_s=key_s, peaks_s=peaks_s)


def find_events(opened: FrameList | VideoPart, settings: EventSettings) -> list[float]:
    """Times of the peaks of motion: mean magnitude of Farneback's optical flow between scanned frames.

    The flow has StimuVAR's parameters; two frames are kept at a time.
    """
    import cv2
    import numpy as np

    step_s = 1.0 / settings.scan_fps
    times_s = np.arange(opened.start_s, opened.end_s, step_s).tolist()
    motion: list[float] = []
    before = None
    for _, image in opened.frames_at(times_s):
        grey = np.asarray(ImageOps.contain(image.convert("L"), (_FLOW_SIDE_PX, _FLOW_SIDE_PX)))
        if before is not None:
            flow: Any = cv2.calcOpticalFlowFarneback(before, grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]
            motion.append(float(np.linalg.norm(flow, axis=-1).mean()))
        before = grey
    return motion_peaks(motion, times_s[1:], settings)


def bundle_of(frames: Sequence[tuple[float, str, bytes]]) -> bytes:
    """Encoded frames in one file, a ZIP archive without compression: (time, suffix, bytes) of each, ascending.

    The name of a frame is its time in seconds. The same frames give the same bytes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for time_s, suffix, data in frames:
            # The default date is that of the first day of ZIP, not of today.
            bundle.writestr(zipfile.ZipInfo(f"{time_s:013.6f}.{suffix}"), data)
    return buffer.getvalue()


def film_strip(
    source: bytes | Path,
    clip: Clip,
    height_px: int,
    *,
    root: Path | None = None,
    num_rows: int = 1,
    times_s: Sequence[float] | None = None,
) -> Image.Image:
    """Frames of a clip in rows of equal cells, each `height_px` high.

    `STRIP_FRAMES` from its beginning to its end, or those with the `times_s` of a row of predictions. For the other
    arguments and errors see `open_clip`.
    """
    with open_clip(source, clip, root=root, min_side_px=height_px) as opened:
        if times_s is None:
            shown_s = chosen_times(opened, clip, FrameSettings(num_frames=STRIP_FRAMES))
        else:
            shown_s = [time_s + _ROW_ROUNDING_S for time_s in times_s]
        small = [ImageOps.contain(image, (2 * height_px, height_px)) for _, image in opened.frames_at(shown_s)]
    width, height = max(image.width for image in small), max(image.height for image in small)
    columns = -(-len(small) // num_rows)
    strip = Image.new("RGB", (columns * width, num_rows * height))
    for place, image in enumerate(small):
        strip.paste(image, (place % columns * width, place // columns * height))
    return strip
