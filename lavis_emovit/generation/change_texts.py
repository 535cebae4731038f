"""Questions and sentences of the offline writer about what changes in a clip, and when."""

from __future__ import annotations

import random
from itertools import pairwise

from lavis_emovit.emotion.facial import facial_priors
from lavis_emovit.emotion.label_set import NEUTRAL
from lavis_emovit.generation.changes import Move, Phase, active_units, label_phases, moves, peak_s
from lavis_emovit.generation.facts import plain, subject
from lavis_emovit.records import EmotionRecord

Topic = tuple[tuple[str, ...], str]
"""Questions to choose from, and their answer."""

# More changes of one sort would make an answer too long.
_MOST = 4

_LABELS = (
    "At {at} the {what} changes from {before} to {after}.",
    "The {what} turns from {before} to {after} at {at}.",
    "From {at} on, the {what} is no longer {before} but {after}.",
)
_MOVES = (
    "{axis} {way} from {before} to {after} between {start} and {end}.",
    "Between {start} and {end}, {axis} {way} from {before} to {after}.",
)
_SMALL_MOVES = (
    "{axis} {way} a little between {start} and {end}, and is {after}.",
    "Between {start} and {end}, {axis} {way} a little, and is {after}.",
)
# Upper end of a step -> words for it.
_STEPS = {
    "valence": {-0.6: "clearly negative", -0.2: "negative", 0.2: "near zero", 0.6: "positive", 1.1: "clearly positive"},
    "arousal": {-0.6: "very low", -0.2: "low", 0.2: "moderate", 0.6: "high", 1.1: "very high"},
}
_CHANGE_QUESTIONS = (
    "How does the {what} change over time?",
    "What changes in the {what}, and when?",
    "Describe the course of the {what} with its times.",
)
_PHASE_QUESTIONS = (
    "When does the longest {what} other than neutral begin, peak and end?",
    "Name onset, peak and end of the longest {what} other than neutral.",
)
_MOVE_QUESTIONS = {
    "valence": ("How does valence develop over time?", "When does it become more positive or more negative?"),
    "arousal": ("How does arousal develop over time?", "When does arousal rise or fall?"),
}
_UNIT_QUESTIONS = ("Which facial action units become active, and when?", "Which parts of the face move, and when?")


def changes_seen(record: EmotionRecord, choose: random.Random) -> list[str]:
    """Sentences about all that changes; none without values over time."""
    sentences = _of_labels(record, choose)
    for axis in _MOVE_QUESTIONS:
        sentences += _of_moves(record, axis, choose)
    return sentences + _of_units(record)


def change_topics(record: EmotionRecord, choose: random.Random) -> list[Topic]:
    """Questions about the changes of a record, each kind with its answer; none without values over time."""
    topics = label_topics(record, choose)
    for axis, questions in _MOVE_QUESTIONS.items():
        if sentences := _of_moves(record, axis, choose):
            topics.append((questions, " ".join(sentences)))
    return topics + unit_topics(record)


def label_topics(record: EmotionRecord, choose: random.Random) -> list[Topic]:
    """Those about the labels over time."""
    what = _what(record)
    topics: list[Topic] = []
    if sentences := _of_labels(record, choose):
        topics.append((tuple(one.format(what=what) for one in _CHANGE_QUESTIONS), " ".join(sentences)))
    if (longest := _longest(record)) is not None:
        topics.append((tuple(one.format(what=what) for one in _PHASE_QUESTIONS), _course(record, longest)))
    return topics


def unit_topics(record: EmotionRecord) -> list[Topic]:
    """The one about action units over time."""
    sentences = _of_units(record)
    return [(_UNIT_QUESTIONS, " ".join(sentences))] if sentences else []


def _of_labels(record: EmotionRecord, choose: random.Random) -> list[str]:
    phases, what = label_phases(record), _what(record)
    if len(phases) == 1:
        only = phases[0]
        return [f"The {what} is {plain(only.value)} from {_at(only.onset_s)} to {_at(only.end_s)}, without a change."]
    changes = list(pairwise(phases))
    sentences = [
        choose.choice(_LABELS).format(
            at=_at(after.onset_s), what=what, before=plain(before.value), after=plain(after.value)
        )
        for before, after in changes[:_MOST]
    ]
    if len(changes) > _MOST:
        sentences.append(f"{len(changes) - _MOST} more changes follow until {_at(changes[-1][1].onset_s)}.")
    return sentences


def _longest(record: EmotionRecord) -> Phase[str] | None:
    """The longest phase of a label that is not neutral, if anything changes."""
    phases = label_phases(record)
    felt = [phase for phase in phases if phase.value != NEUTRAL] if len(phases) > 1 else []
    return max(felt, key=lambda phase: phase.end_s - phase.onset_s, default=None)


def _course(record: EmotionRecord, phase: Phase[str]) -> str:
    phases = label_phases(record)
    begins = "is there from the beginning" if phase == phases[0] else f"begins at {_at(phase.onset_s)}"
    ends = "lasts to the end" if phase == phases[-1] else f"ends at {_at(phase.end_s)}"
    peak = peak_s(record, phase)
    peaks = f", is strongest at {_at(peak)}" if peak is not None else ""
    name = plain(phase.value)
    return f"{name[:1].upper()}{name[1:]} {begins}{peaks} and {ends}."


def _of_moves(record: EmotionRecord, axis: str, choose: random.Random) -> list[str]:
    largest = sorted(moves(record, axis), key=lambda move: -abs(move.after - move.before))[:_MOST]
    return [_move(axis, move, choose) for move in sorted(largest, key=lambda move: move.from_s)]


def _move(axis: str, move: Move, choose: random.Random) -> str:
    before, after = _step(axis, move.before), _step(axis, move.after)
    text = choose.choice(_MOVES if before != after else _SMALL_MOVES).format(
        axis=axis,
        way="rises" if move.after > move.before else "falls",
        before=before,
        after=after,
        start=_at(move.from_s),
        end=_at(move.to_s),
    )
    return f"{text[:1].upper()}{text[1:]}"


def _of_units(record: EmotionRecord) -> list[str]:
    name = facial_priors().unit_name
    found = [(phase, unit) for unit, phases in active_units(record).items() for phase in phases]
    longest = sorted(found, key=lambda one: one[0].onset_s - one[0].end_s)[:_MOST]
    return [
        f"AU{unit} ({name(unit)}) is active from {_at(phase.onset_s)} to {_at(phase.end_s)}."
        for phase, unit in sorted(longest, key=lambda one: (one[0].onset_s, one[1]))
    ]


def _what(record: EmotionRecord) -> str:
    return "mood" if subject(record) == "picture" else "expression"


def _at(time_s: float) -> str:
    return f"{time_s:.1f} s"


def _step(axis: str, value: float) -> str:
    return next(words for limit, words in _STEPS[axis].items() if value < limit)
