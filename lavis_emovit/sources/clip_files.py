"""Clips of published datasets: what their paths name, video files or folders of frames."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field, model_validator

from lavis_emovit.errors import DataError
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import FRAMES, parse_number
from lavis_emovit.sources.frames import is_image, numbered

_CLOCK = re.compile(r"(?:(\d+):)?([0-5]?\d):([0-5]?\d(?:[.,]\d+)?)")


class ClipFiles(Settings):
    """What the paths of a dataset name, if it has clips.

    Attributes:
        stored_as: `videos`: video files; `frames`: folders of images with the number of the frame at the end of their
            names. Missing numbers are missing frames.
        rate_fps: of the frames in a folder.
    """

    stored_as: Literal["videos", "frames"]
    rate_fps: float | None = Field(default=None, gt=0.0)

    @model_validator(mode="after")
    def _frames_have_a_rate(self) -> ClipFiles:
        if (self.stored_as == "frames") != (self.rate_fps is not None):
            need = "need" if self.stored_as == "frames" else "have their own times, so remove"
            raise ValueError(f"{self.stored_as} {need} rate_fps")
        return self

    @property
    def what(self) -> str:
        """What a path names, for messages and `Reader.find_image`."""
        return FRAMES if self.stored_as == "frames" else "video"

    def fields(self, root: Path, path: str) -> dict[str, Any]:
        """`image` and `clip` of the record of a video file, or of a folder; DataError if the folder has no frames."""
        if self.stored_as == "videos":
            return {"image": path, "clip": {}}
        images = sorted(one for one in (root / path).iterdir() if is_image(one))
        found = numbered(images)
        if len(found) < len(images):
            stray = next(one for one in images if one not in found.values())
            raise DataError(f"{stray}: its name does not end in the number of the frame, as in 00012.jpg; rename it")
        if not found:
            raise DataError(f"{root / path}: the folder has no images; extract the frames of the clip into it")
        assert self.rate_fps is not None  # `_frames_have_a_rate`
        return frame_fields([(number, f"{path}/{found[number].name}") for number in sorted(found)], self.rate_fps)


def name_of(path: str, clips: ClipFiles | None, *, by_name: bool) -> str:
    """The id of a path: without the suffix of a file, and `by_name` without folders."""
    place = PurePosixPath(path)
    place = place if clips is not None and clips.stored_as == "frames" else place.with_suffix("")
    return place.name if by_name else str(place)


def frame_fields(frames: Sequence[tuple[int, str]], rate_fps: float, key: int | None = None) -> dict[str, Any]:
    """`image` and `clip` of a record: numbered frames in order; the one with the number `key` (None: the middle) is
    the image."""
    first = frames[0][0]
    paths = [path for _, path in frames]
    clip: dict[str, Any] = {"frames": paths}
    if frames[-1][0] - first == len(frames) - 1:
        clip["rate_fps"] = rate_fps
    else:
        clip["times_s"] = [(number - first) / rate_fps for number, _ in frames]
    if key is None:
        return {"image": paths[len(paths) // 2], "clip": clip}
    return {"image": dict(frames)[key], "clip": {**clip, "key_s": (key - first) / rate_fps}}


def part_of_video(cells: Mapping[str, str], start: str | None, end: str | None) -> dict[str, float]:
    """`start_s` and `end_s` of a clip from two columns, in seconds or as 0:01:02.5; empty cells give none."""
    columns = {"start_s": start, "end_s": end}
    return {key: _seconds(cells[column], column) for key, column in columns.items() if column and cells[column]}


def _seconds(text: str, column: str) -> float:
    if match := _CLOCK.fullmatch(text):
        return int(match[1] or 0) * 3600 + int(match[2]) * 60 + float(match[3].replace(",", "."))
    try:
        return parse_number(text)
    except ValueError:
        raise DataError(f"column '{column}': '{text}' is no time; expected seconds, or 0:01:02.5") from None
