"""What changes in a clip, and when: read from the trace of its record, without any model.

All times are in seconds from the beginning of the clip.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any, Generic, TypeVar

from lavis_emovit.records import OCCURRENCE_THRESHOLD, EmotionRecord

# Labels flicker at the border of two: what is shorter counts as part of what is before it.
MIN_PHASE_S = 0.3
# Smaller moves of valence and arousal, whose range is 2, may be noise of the annotation.
MIN_MOVE = 0.25

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Phase(Generic[ValueT]):
    """A stretch with one value: a label, or whether an action unit is active; `end_s` is where the next one begins."""

    value: ValueT
    onset_s: float
    end_s: float


@dataclass(frozen=True)
class Move:
    """A rise or fall of valence or arousal, from one turning point to the next."""

    from_s: float
    to_s: float
    before: float
    after: float


def label_phases(record: EmotionRecord) -> list[Phase[str]]:
    """The labels over time; none without a trace of labels."""
    return _phases(record, _points(record, "emotion"))


def peak_s(record: EmotionRecord, phase: Phase[str]) -> float | None:
    """When a phase is strongest: at the clip's `key_s`, or else where valence and arousal are farthest from 0.

    None if neither is known in it.
    """
    assert record.clip is not None
    if record.clip.key_s is not None and phase.onset_s <= record.clip.key_s - record.clip.begin_s < phase.end_s:
        return record.clip.key_s - record.clip.begin_s
    valence, arousal = dict(_points(record, "valence")), dict(_points(record, "arousal"))
    strengths = {
        time_s: math.hypot(valence[time_s], arousal[time_s])
        for time_s in valence
        if time_s in arousal and phase.onset_s <= time_s < phase.end_s
    }
    return max(strengths, key=lambda time_s: strengths[time_s]) if strengths else None


def moves(record: EmotionRecord, axis: str) -> list[Move]:
    """Rises and falls of `valence` or `arousal` by `MIN_MOVE` or more; none without a trace of it."""
    points = _points(record, axis)
    turns = _turning_points([value for _, value in points])
    return [
        Move(points[last][0], points[first][0], points[last][1], points[first][1])
        for (_, last), (first, _) in pairwise(turns)
    ]


def active_units(record: EmotionRecord) -> dict[int, list[Phase[bool]]]:
    """Action unit -> the phases in which it is active, of those that are ever active."""
    trace = record.clip.trace if record.clip is not None else None
    found = {}
    for unit, intensities in ((trace.action_units if trace is not None else None) or {}).items():
        least = OCCURRENCE_THRESHOLD if unit in record.occurrence_only else 1.0
        points = [(time_s, value >= least) for time_s, value in _timed(record, intensities)]
        if active := [phase for phase in _phases(record, points) if phase.value]:
            found[unit] = active
    return found


def _points(record: EmotionRecord, column: str) -> list[tuple[float, Any]]:
    trace = record.clip.trace if record.clip is not None else None
    values = getattr(trace, column) if trace is not None else None
    return _timed(record, values) if values is not None else []


def _timed(record: EmotionRecord, values: Iterable[ValueT | None]) -> list[tuple[float, ValueT]]:
    """(time, value) of the annotated frames."""
    assert record.clip is not None and record.clip.trace is not None
    times_s = (time_s - record.clip.begin_s for time_s in record.clip.trace.times_s)
    return [(time_s, value) for time_s, value in zip(times_s, values) if value is not None]


def _end_s(record: EmotionRecord, last_s: float) -> float:
    """When the last annotated frame is over: after the shortest time between two, but not after the clip."""
    assert record.clip is not None and record.clip.trace is not None
    steps_s = [after - before for before, after in pairwise(record.clip.trace.times_s)]
    end_s = last_s + min(steps_s, default=0.0)
    if record.clip.frames is None and record.clip.end_s is not None:
        end_s = min(end_s, record.clip.end_s - record.clip.begin_s)
    return max(last_s, end_s)


def _phases(record: EmotionRecord, points: Sequence[tuple[float, ValueT]]) -> list[Phase[ValueT]]:
    if not points:
        return []
    runs = [(value, next(group)[0]) for value, group in groupby(points, key=lambda point: point[1])]
    onsets_s = [onset_s for _, onset_s in runs] + [_end_s(record, points[-1][0])]
    found: list[Phase[ValueT]] = []
    for (value, onset_s), end_s in zip(runs, onsets_s[1:]):
        if found and (end_s - onset_s < MIN_PHASE_S or found[-1].value == value):
            found[-1] = replace(found[-1], end_s=end_s)
        elif found and len(found) == 1 and found[0].end_s - found[0].onset_s < MIN_PHASE_S:
            found[0] = Phase(value, found[0].onset_s, end_s)
        else:
            found.append(Phase(value, onset_s, end_s))
    return found


def _turning_points(values: Sequence[float]) -> list[tuple[int, int]]:
    """First and last place of each turning point: the value leaves it by `MIN_MOVE` before it comes back."""
    turns: list[tuple[int, int]] = []
    low = high = (0, 0)  # the first and the last place of the least and of the largest value since the last turn
    direction = 0
    for place, value in enumerate(values):
        if direction <= 0 and value <= values[low[0]]:
            low = (low[0] if value == values[low[0]] else place, place)
        if direction >= 0 and value >= values[high[0]]:
            high = (high[0] if value == values[high[0]] else place, place)
        if direction <= 0 and value - values[low[0]] >= MIN_MOVE:
            turns.append(low)
            direction, high = 1, (place, place)
        elif direction >= 0 and values[high[0]] - value >= MIN_MOVE:
            turns.append(high)
            direction, low = -1, (place, place)
    return [*turns, high if direction > 0 else low] if direction else []
