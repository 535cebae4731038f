"""Samplers are pure functions of times and a seed.

Properties:
- each gives exactly `num_frames` ascending times within the clip, also of a short one;
- the same seed gives the same times, in another process too; other seeds give others; no seed the middle;
- uniform times are one in each part, dense ones are `1 / rate_fps` apart, those around a frame are centred on it;
- motion has its peaks where StimuVAR's rule finds them; each gets its share, the rest is uniform;
- settings that would have no effect are refused.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lavis_emovit.clips.clip import EventSettings, FrameSettings
from lavis_emovit.clips.samplers import motion_peaks, sample_times
from lavis_emovit.errors import DataError


@st.composite
def _settings(draw):
    sampler = draw(st.sampled_from(["uniform", "dense", "around", "events"]))
    rate_fps = draw(st.floats(0.5, 30)) if sampler in ("dense", "around") else None
    return FrameSettings(sampler=sampler, num_frames=draw(st.integers(1, 20)), rate_fps=rate_fps)


@given(_settings(), st.floats(0, 1000), st.floats(0, 100), st.none() | st.integers(0, 2**63 - 1), st.data())
def test_times_are_in_the_clip(settings, start_s, length_s, seed, data):
    end_s = start_s + length_s
    inside = st.floats(start_s, end_s)
    given_s = {"key_s": data.draw(inside), "peaks_s": data.draw(st.lists(inside, max_size=8))}
    times_s = sample_times(settings, start_s, end_s, seed=seed, **given_s)
    assert len(times_s) == settings.num_frames
    assert times_s == sorted(times_s)
    assert start_s - 1e-9 <= times_s[0] and times_s[-1] <= end_s + 1e-9
    assert times_s == sample_times(settings, start_s, end_s, seed=seed, **given_s)


def test_a_seed_gives_the_same_times_everywhere():
    # Python's generator, seeded with an integer, is the same on every machine and in every version.
    settings = FrameSettings(num_frames=2)
    assert sample_times(settings, 0, 2, seed=0) == pytest.approx([0.8444218515250481, 1.7579544029403025])
    assert sample_times(settings, 0, 2, seed=1) != sample_times(settings, 0, 2, seed=0)
    assert sample_times(settings, 0, 2) == [0.5, 1.5]


def test_uniform_times_are_one_in_each_part():
    for seed in range(50):
        times_s = sample_times(FrameSettings(num_frames=5), 10, 20, seed=seed)
        assert [int((time_s - 10) // 2) for time_s in times_s] == [0, 1, 2, 3, 4]


def test_dense_times_have_the_rate():
    settings = FrameSettings(sampler="dense", num_frames=4, rate_fps=4)
    assert sample_times(settings, 0, 9) == [4.125, 4.375, 4.625, 4.875]
    starts = {sample_times(settings, 0, 9, seed=seed)[0] for seed in range(50)}
    assert min(starts) < 2 and max(starts) > 6
    # Half a second long: the last frame is repeated.
    assert sample_times(settings, 0, 0.5) == [0.125, 0.375, 0.5, 0.5]


def test_times_around_a_frame_are_centred_on_it():
    settings = FrameSettings(sampler="around", num_frames=3, rate_fps=2)
    assert sample_times(settings, 0, 9, key_s=4) == [3.5, 4, 4.5]
    assert sample_times(settings, 0, 9, key_s=0.2) == [0, 0.2, 0.7]
    with pytest.raises(DataError, match=r"clip\.key_s"):
        sample_times(settings, 0, 9)


def test_events_divide_the_frames():
    settings = FrameSettings(sampler="events", num_frames=6)
    # 6 // 3 frames around each of two peaks, in 2 parts of a second; the rest in 2 parts of 20 s.
    assert sample_times(settings, 0, 20, peaks_s=[12, 4]) == [3.75, 4.25, 5, 11.75, 12.25, 15]
    assert sample_times(settings, 0, 6) == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    # The first five of nine peaks have a frame each.
    many = sample_times(settings, 0, 100, peaks_s=[10, 20, 30, 40, 60, 70, 80, 90, 95])
    assert many == [10, 20, 30, 40, 50, 60]


def test_peaks_of_motion_are_those_of_the_rule():
    times_s = [number / 10 for number in range(200)]
    curve = np.zeros(200)
    for place, height in ((40, 1.0), (100, 0.6), (160, 0.2)):
        curve += height * np.exp(-0.5 * ((np.arange(200) - place) / 4) ** 2)
    # The third peak has a prominence of 0.2 of the range, less than 0.3.
    assert motion_peaks(curve.tolist(), times_s, EventSettings()) == [4.0, 10.0]
    assert motion_peaks(curve.tolist(), times_s, EventSettings(prominence=0.1)) == [4.0, 10.0, 16.0]
    assert motion_peaks([1.0] * 200, times_s, EventSettings()) == []
    assert motion_peaks([], [], EventSettings()) == []


@pytest.mark.parametrize(
    "values, text",
    [
        ({"sampler": "dense"}, "'dense' needs rate_fps"),
        ({"rate_fps": 4}, "'uniform' has no use for rate_fps"),
        ({"events": {"prominence": 0.5}}, "`events` belongs to sampler 'events'"),
    ],
)
def test_settings_without_effect_are_refused(values, text):
    with pytest.raises(ValidationError, match=text):
        FrameSettings(**values)
