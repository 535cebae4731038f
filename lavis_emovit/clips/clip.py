"""The part of a record that makes its image a clip, and the settings of what is looked at in it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from lavis_emovit.clips.trace import Trace
from lavis_emovit.files import below_root
from lavis_emovit.settings import FrozenModel, Settings, added_field

TOLERANCE_S = 0.5
# Below the image root, with forward slashes.
RelativePath = Annotated[str, Field(min_length=1), AfterValidator(below_root)]


class Clip(FrozenModel):
    """A part of the video file that the record's `image` names, or `frames`, of which `image` is one.

    Attributes:
        start_s, end_s: where the clip begins and ends in the video file; null: with the file.
        frames: paths of images, in the order of time.
        rate_fps: frames per second of `frames`.
        times_s: the time of each of `frames`, where some are missing or their rate varies.
        key_s: when the frame is shown that the annotation is about, such as the apex of an expression.
        trace: values over time; null: the annotation is about the clip as a whole.
    """

    start_s: float | None = Field(default=None, ge=0.0)
    end_s: float | None = Field(default=None, gt=0.0)
    frames: tuple[RelativePath, ...] | None = Field(default=None, min_length=1)
    rate_fps: float | None = Field(default=None, gt=0.0)
    times_s: tuple[float, ...] | None = None
    key_s: float | None = Field(default=None, ge=0.0)
    trace: Trace | None = added_field(None)

    @model_validator(mode="after")
    def _times_fit(self) -> Clip:
        if self.start_s is not None and self.end_s is not None and self.start_s >= self.end_s:
            raise ValueError(f"must end after it starts (start_s {self.start_s:g}, end_s {self.end_s:g})")
        if self.frames is None:
            if self.rate_fps is not None or self.times_s is not None:
                raise ValueError("rate_fps and times_s belong to `frames`; a video file has its own times")
            return self
        if self.start_s is not None or self.end_s is not None:
            raise ValueError("start_s and end_s belong to a video file; list only the frames of the clip")
        if (self.rate_fps is None) == (self.times_s is None):
            raise ValueError("`frames` need either rate_fps or times_s")
        times_s = self.frame_times_s
        if len(times_s) != len(self.frames):
            raise ValueError(f"has {len(times_s)} times_s for {len(self.frames)} frames")
        if times_s[0] < 0 or any(one >= other for one, other in pairwise(times_s)):
            raise ValueError("times_s must increase from 0 or later")
        return self

    @model_validator(mode="after")
    def _trace_is_of_the_clip(self) -> Clip:
        if self.trace is not None:
            first_s, last_s = self.trace.times_s[0], self.trace.times_s[-1]
            end_s = self.frame_times_s[-1] if self.frames is not None else self.end_s
            if first_s < self.begin_s - TOLERANCE_S or (end_s is not None and last_s > end_s + TOLERANCE_S):
                end = f" to {end_s:g}" if end_s is not None else " on"
                raise ValueError(
                    f"trace is from {first_s:g} to {last_s:g} s, but the clip from {self.begin_s:g}{end} s; its times "
                    "are those in the video, or those of the frames"
                )
        return self

    @property
    def begin_s(self) -> float:
        """When the clip begins, in its own time."""
        return self.frame_times_s[0] if self.frames is not None else self.start_s or 0.0

    @property
    def num_keys(self) -> int:
        """Different keys in its JSON, with those of the objects in it."""
        count = len(self.model_fields_set)
        if self.trace is not None:
            count += len(self.trace.model_fields_set) + len(self.trace.action_units or ())
        return count

    def outside(self, end_s: float) -> str | None:
        """Why the clip is no part of a video that ends at a time; None if it is one."""
        start_s = self.start_s or 0.0
        if start_s < end_s and (self.end_s or 0.0) <= end_s + TOLERANCE_S:
            return None
        return f"the clip is from {start_s:g} to {self.end_s or end_s:g} s, but the video ends at {end_s:.2f} s"

    @property
    def frame_times_s(self) -> tuple[float, ...]:
        """The time of each of `frames`."""
        if self.times_s is not None:
            return self.times_s
        return tuple(number / (self.rate_fps or 1.0) for number in range(len(self.frames or ())))


class EventSettings(Settings):
    """Peaks of motion, as in StimuVAR (Guo et al., 2024), whose 30 frames a second these are in seconds.

    Attributes:
        scan_fps: frames per second between which the optical flow is computed.
        smooth_s: standard deviation of the Gaussian that smooths the mean magnitude of the flow.
        prominence: least prominence of a peak, of the range of the smoothed magnitude.
        distance_s: least distance of two peaks.
        around_s: frames of a peak are at most so far from it.
    """

    scan_fps: float = Field(default=10.0, gt=0.0, le=120.0)
    smooth_s: float = Field(default=0.2, gt=0.0)
    prominence: float = Field(default=0.3, gt=0.0, le=1.0)
    distance_s: float = Field(default=1.0, gt=0.0)
    around_s: float = Field(default=0.5, gt=0.0)


class FrameSettings(Settings):
    """Which frames of a clip are looked at: always `num_frames`, so a short clip repeats some.

    Attributes:
        sampler: `uniform`: one in each of `num_frames` equal parts; `dense`: a window at `rate_fps`; `around`: the same
            around the clip's `key_s`; `events`: some around each peak of motion, the rest uniform.
        rate_fps: for `dense` and `around`.
        events: for `events`.
    """

    sampler: Literal["uniform", "dense", "around", "events"] = "uniform"
    num_frames: int = Field(default=8, ge=1, le=512)
    rate_fps: float | None = Field(default=None, gt=0.0)
    events: EventSettings = EventSettings()

    @model_validator(mode="after")
    def _settings_fit_the_sampler(self) -> FrameSettings:
        if (self.rate_fps is not None) != (self.sampler in ("dense", "around")):
            need = "needs" if self.rate_fps is None else "has no use for"
            raise ValueError(f"sampler '{self.sampler}' {need} rate_fps")
        if self.events != EventSettings() and self.sampler != "events":
            raise ValueError(f"`events` belongs to sampler 'events', this one is '{self.sampler}'")
        return self
