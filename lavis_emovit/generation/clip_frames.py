"""Frames of a clip as the images of one request, chosen by the samplers of clips."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from lavis_emovit.chat.request import ChatImage, image_of
from lavis_emovit.clips.clip import Clip, FrameSettings
from lavis_emovit.clips.reading import FrameList, chosen_times, open_clip
from lavis_emovit.errors import DataError


def clip_images(
    root: Path, image: str, clip: Clip, settings: FrameSettings, sizes: tuple[int, int, str]
) -> tuple[tuple[float, ...], tuple[ChatImage, ...]]:
    """Times in seconds and images of the chosen frames, each once, in the order of time.

    Args:
        root: folder that the paths start in; `image` is that of the record.
        sizes: longest side, quality and detail, as `image_of` takes them.

    Raises:
        DataError: the clip cannot be read; the text names the file.
    """
    path = root / image
    if clip.frames is not None:
        with open_clip(b"", clip, root=root) as opened:
            assert isinstance(opened, FrameList)
            places = sorted({opened.place_at(time_s) for time_s in chosen_times(opened, clip, settings)})
        times_s = tuple(opened.times_s[place] for place in places)
        return times_s, tuple(image_of(root / clip.frames[place], *sizes) for place in places)
    whole = image_of(path, *sizes)
    times_s = _times_in_video(path, whole.sha256, clip, settings)
    return times_s, tuple(replace(whole, time_s=time_s) for time_s in times_s)


@functools.lru_cache(maxsize=4096)
def _times_in_video(path: Path, sha256: str, clip: Clip, settings: FrameSettings) -> tuple[float, ...]:
    """A request is made several times; the sampler `events` decodes most of the clip."""
    try:
        with open_clip(path, clip) as opened:
            return tuple(dict.fromkeys(chosen_times(opened, clip, settings)))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: the video cannot be read ({error.strerror})") from None
