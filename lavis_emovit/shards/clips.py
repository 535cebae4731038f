"""Packs and checks clips when shards are built or verified; the training loop does not use it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from lavis_emovit.clips.clip import Clip, FrameSettings
from lavis_emovit.clips.reading import BUNDLE_SUFFIX, FrameList, bundle_of, chosen_times, open_clip, read_frames
from lavis_emovit.clips.video import Video
from lavis_emovit.errors import DataError
from lavis_emovit.files import read_file
from lavis_emovit.records import EmotionRecord
from lavis_emovit.shards.images import RESIZE_JPEG_QUALITY, BadImageError, check_image, shrink_image, shrunk_size

MAX_VIDEO_BYTES = 1 << 28


def pack_clip(
    root: Path, record: EmotionRecord, clip: Clip, frames: FrameSettings | None, resize_px: int | None
) -> tuple[str, bytes]:
    """(suffix, bytes) of a clip in a shard: those of its video file, or a bundle of encoded frames.

    Image files keep their bytes; frames of a video become JPEG of high quality.

    Args:
        frames: which frames to store; None: the whole video file, or all image files.
        resize_px: shrink stored frames whose shorter side is longer.

    Raises:
        BadImageError: the clip, or one of its frames, cannot be used.
    """
    path = root / record.image
    try:
        if clip.frames is not None:
            return BUNDLE_SUFFIX, bundle_of(list(_files(root, clip, frames, resize_px)))
        if frames is None:
            return _whole_video(path, clip, resize_px)
        encoded: dict[float, bytes] = {}  # a short clip repeats frames
        for time_s, image in read_frames(path, clip, frames):
            if time_s not in encoded:
                encoded[time_s] = _jpeg(image, resize_px)
        return BUNDLE_SUFFIX, bundle_of([(time_s, "jpg", data) for time_s, data in encoded.items()])
    except OSError as error:
        raise BadImageError(f"cannot be read ({error.strerror}): {record.image}") from None
    except (DataError, BadImageError) as error:
        raise BadImageError(f"{record.image}: {error}") from None


def check_clip(data: bytes, clip: Clip) -> None:
    """Decode all of a clip from a shard; BadImageError if it is damaged."""
    try:
        with open_clip(data, clip) as opened:
            if isinstance(opened, FrameList):
                for name in opened.names:
                    check_image(opened.read(name))
            else:
                opened.check()
    except DataError as error:
        raise BadImageError(str(error)) from None


def _files(
    root: Path, clip: Clip, frames: FrameSettings | None, resize_px: int | None
) -> Iterator[tuple[float, str, bytes]]:
    """Time, suffix and bytes of each image file to store."""
    with open_clip(b"", clip, root=root) as opened:
        assert isinstance(opened, FrameList)
        places: Sequence[int] = range(len(opened.names))
        if frames is not None:
            times_s = chosen_times(opened, clip, frames)
            places = sorted({opened.place_at(time_s) for time_s in times_s})
        for place in places:
            name = opened.names[place]
            try:
                data = opened.read(name)
                suffix = check_image(data)
            except OSError as error:
                raise BadImageError(f"frame {name} cannot be read ({error.strerror})") from None
            except BadImageError as error:
                raise BadImageError(f"frame {name}: {error}") from None
            yield opened.times_s[place], suffix, data if resize_px is None else shrink_image(data, resize_px)


def _whole_video(path: Path, clip: Clip, resize_px: int | None) -> tuple[str, bytes]:
    if resize_px is not None:
        raise BadImageError("a video file cannot be shrunk; store its frames instead (`frames`)")
    if path.stat().st_size > MAX_VIDEO_BYTES:
        raise BadImageError(f"the video file has more than {MAX_VIDEO_BYTES >> 20} MB; store its frames (`frames`)")
    data = read_file(path)
    with Video(data) as video:
        if (fault := clip.outside(video.end_s)) is not None:
            raise BadImageError(fault)
        video.check()
        return video.suffix, data


def _jpeg(image: Image.Image, resize_px: int | None) -> bytes:
    size = shrunk_size(image.size, resize_px) if resize_px is not None else None
    if size is not None:
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=RESIZE_JPEG_QUALITY)
    return buffer.getvalue()
