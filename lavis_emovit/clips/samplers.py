"""Samplers: the times at which a clip is looked at, as pure functions of its times and a seed.

A seed chooses a random time where the sampler leaves a choice, the same one on every machine; without a seed, the
middle is taken.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from lavis_emovit.clips.clip import EventSettings, FrameSettings
from lavis_emovit.errors import DataError


def sample_times(
    settings: FrameSettings,
    start_s: float,
    end_s: float,
    *,
    seed: int | None = None,
    key_s: float | None = None,
    peaks_s: Sequence[float] = (),
) -> list[float]:
    """`settings.num_frames` times in [start_s, end_s], ascending.

    Args:
        key_s: for `around`.
        peaks_s: for `events`, from `motion_peaks`, the most prominent first.

    Raises:
        DataError: `around` without `key_s`.
    """
    count, draw = settings.num_frames, random.Random(seed) if seed is not None else None
    if settings.sampler == "uniform":
        return uniform(count, start_s, end_s, draw)
    if settings.sampler == "events":
        return around_peaks(count, start_s, end_s, peaks_s, settings.events.around_s, draw)
    step_s = 1.0 / (settings.rate_fps or 1.0)
    if settings.sampler == "dense":
        free_s = max(0.0, end_s - start_s - count * step_s)
        first_s = start_s + free_s * (draw.random() if draw else 0.5) + step_s / 2
    else:
        if key_s is None:
            raise DataError("sampler 'around' needs the time of a frame, but the record has no clip.key_s")
        first_s = key_s - (count - 1) / 2 * step_s
    return [min(max(first_s + number * step_s, start_s), end_s) for number in range(count)]


def uniform(count: int, start_s: float, end_s: float, draw: random.Random | None = None) -> list[float]:
    """One time in each of `count` equal parts: its middle, or a random one (temporal segments, Wang et al., 2016)."""
    part_s = (end_s - start_s) / count
    return [start_s + (number + (draw.random() if draw else 0.5)) * part_s for number in range(count)]


def around_peaks(
    count: int,
    start_s: float,
    end_s: float,
    peaks_s: Sequence[float],
    around_s: float,
    draw: random.Random | None = None,
) -> list[float]:
    """count // (peaks + 1) times within `around_s` of each peak, the rest uniform (StimuVAR's division).

    With more than count - 1 peaks, the first count - 1.
    """
    peaks_s = peaks_s[: count - 1]
    share = count // (len(peaks_s) + 1)
    times_s = uniform(count - share * len(peaks_s), start_s, end_s, draw)
    for peak_s in peaks_s:
        times_s += uniform(share, max(start_s, peak_s - around_s), min(end_s, peak_s + around_s), draw)
    return sorted(times_s)


def motion_peaks(motion: Sequence[float], times_s: Sequence[float], settings: EventSettings) -> list[float]:
    """Times of the peaks of a motion curve, the most prominent first.

    Args:
        motion: mean magnitude of the optical flow at `times_s`, which are `1 / scan_fps` apart.
    """
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks

    if len(motion) < 3:
        return []
    smooth = gaussian_filter1d(np.asarray(motion, dtype=np.float64), settings.smooth_s * settings.scan_fps)
    low, high = float(smooth.min()), float(smooth.max())
    if high <= low:
        return []
    distance = max(1.0, settings.distance_s * settings.scan_fps)
    found, facts = find_peaks((smooth - low) / (high - low), distance=distance, prominence=settings.prominence)
    order = np.argsort(-facts["prominences"], kind="stable")
    return [times_s[int(place)] for place in found[order]]
