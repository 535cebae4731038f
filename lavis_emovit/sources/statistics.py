"""Statistics of records: splits, labels and their balance, label pairs, ratings, action units, published counts."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from pydantic import Field

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, Instruction
from lavis_emovit.settings import Settings

NO_LABEL = "no label"
RATINGS = ("valence", "arousal", "dominance")


@dataclass
class RecordStatistics:
    """Counts over records."""

    # num_records, images: number of records, and the distinct images that they name.
    num_records: int = 0
    images: set[str] = field(default_factory=set)
    splits: Counter[str] = field(default_factory=Counter)  # split -> records
    # Split -> label -> records; each label of a record with several labels counts.
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    # (label, label) in alphabetical order -> records with both, as labels or in their votes.
    together: Counter[tuple[str, str]] = field(default_factory=Counter)
    ratings: dict[str, list[float]] = field(default_factory=dict)  # valence, arousal, dominance -> all values
    # Unit -> records in which it is coded, and in which it is present.
    action_units: dict[int, list[int]] = field(default_factory=dict)
    groups: dict[str, set[str]] = field(default_factory=dict)  # split -> groups
    instructions: Counter[str] = field(default_factory=Counter)  # kind -> questions
    label_sets: Counter[str] = field(default_factory=Counter)  # label set -> records
    # num_votes, num_boxes, num_clips, num_traces: records with shares of votes, a box, a clip, values over time; the
    # others count entries.
    num_votes: int = 0
    num_utterances: int = 0
    num_questions: int = 0
    num_statements: int = 0
    num_boxes: int = 0
    num_clips: int = 0
    num_traces: int = 0

    def totals(self) -> Counter[str]:
        """Label -> records in all splits."""
        return sum(self.labels.values(), Counter())

    def absent(self) -> list[str]:
        """Labels of the records' label sets that no record has."""
        found = self.totals()
        wanted: list[str] = []
        for name in self.label_sets:
            try:
                wanted += get_label_set(name).labels
            except DataError:
                continue
        return sorted(set(wanted) - set(found))

    def imbalance(self) -> float | None:
        """Ratio of the most frequent label's records to the rarest label's; None with fewer than two labels."""
        counts = [count for label, count in self.totals().items() if label != NO_LABEL]
        return max(counts) / min(counts) if len(counts) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {
            "num_records": self.num_records,
            "num_images": len(self.images),
            "splits": dict(self.splits),
            "labels": {split: dict(sorted(counts.items())) for split, counts in self.labels.items()},
            "labels_absent": self.absent(),
            "imbalance": self.imbalance(),
            "labels_together": {f"{one} + {other}": count for (one, other), count in self.together.most_common()},
            "ratings": {name: describe_numbers(values) for name, values in self.ratings.items()},
            "action_units": {
                str(unit): {"coded": coded, "present": present}
                for unit, (coded, present) in sorted(self.action_units.items())
            },
            "groups": {split: len(groups) for split, groups in self.groups.items()},
            "instructions": dict(self.instructions),
            "label_sets": dict(self.label_sets),
            "num_votes": self.num_votes,
            "num_utterances": self.num_utterances,
            "num_questions": self.num_questions,
            "num_statements": self.num_statements,
            "num_boxes": self.num_boxes,
            "num_clips": self.num_clips,
            "num_traces": self.num_traces,
        }


def count_records(records: Iterable[EmotionRecord]) -> RecordStatistics:
    """Statistics of records, in one pass."""
    found = RecordStatistics()
    for record in records:
        found.num_records += 1
        found.images.add(record.image)
        found.splits[record.split] += 1
        labels = labels_of(record) or [NO_LABEL]
        found.labels.setdefault(record.split, Counter()).update(labels)
        carried = labels if record.votes is None else [label for label, share in record.votes.items() if share > 0]
        found.together.update(combinations(sorted(set(carried)), 2))
        for name in RATINGS:
            value = getattr(record, name)
            if value is not None:
                found.ratings.setdefault(name, []).append(value)
        for unit, is_active in record.active_units().items():
            counts = found.action_units.setdefault(unit, [0, 0])
            counts[0] += 1
            counts[1] += is_active
        if record.group_key is not None:
            found.groups.setdefault(record.split, set()).add(record.group_key)
        found.instructions.update(instruction.kind for instruction in record.instructions)
        if record.label_set is not None:
            found.label_sets[record.label_set] += 1
        found.num_votes += record.votes is not None
        found.num_utterances += len(record.utterances)
        found.num_questions += len(record.questions)
        found.num_statements += len(record.statements)
        found.num_boxes += record.box is not None
        found.num_clips += record.clip is not None
        found.num_traces += record.clip is not None and record.clip.trace is not None
    return found


def labels_of(record: EmotionRecord) -> list[str]:
    """The labels of a record: its emotion, or all that apply; empty if it has none."""
    return [record.emotion] if record.emotion is not None else list(record.labels or ())


def _labels_over_time(record: EmotionRecord) -> set[str]:
    trace = record.clip.trace if record.clip is not None else None
    return {label for label in (trace.emotion if trace is not None else None) or () if label is not None}


def labels_outside(records: Iterable[EmotionRecord]) -> list[str]:
    """A sentence for each label that is not in the label set of its records.

    Votes may be for others: a neutral share beside six emotions.
    """
    uses: dict[tuple[str, str], list[Any]] = {}  # label set and label -> number of records, the first id
    for record in records:
        labels = {*labels_of(record), *(record.labels or ()), *_labels_over_time(record)}
        for label in labels if record.label_set is not None else ():
            uses.setdefault((str(record.label_set), label), [0, record.id])[0] += 1
    lines = []
    for (name, label), (count, first) in sorted(uses.items()):
        try:
            get_label_set(name).canonical(label)
        except DataError as error:
            lines.append(f"{count} records, the first {first}: {error}")
    return lines


def wrong_answers(record: EmotionRecord) -> Iterator[Instruction]:
    """The categorical instructions of a record whose answer names another label of its label set."""
    from lavis_emovit.emotion.answers import read_emotion

    labels = {*labels_of(record), *(record.labels or ())}
    try:
        label_set = get_label_set(record.label_set or "")
        right = {label_set.canonical(label) for label in labels}
    except DataError:
        return  # `labels_outside` reports it
    for one in record.instructions if right else ():
        if one.kind == "categorical" and read_emotion(one.answer, label_set).label not in (None, *right):
            yield one


def describe_numbers(values: list[float]) -> dict[str, float]:
    """Count, mean, standard deviation (of the population) and range."""
    return {
        "count": len(values),
        "mean": statistics.fmean(values),
        "std": statistics.pstdev(values),
        "min": min(values),
        "max": max(values),
    }


class PublishedCounts(Settings):
    """Counts given by the publisher or the paper; `reference` is their source."""

    total: int | None = None
    splits: dict[str, int] = Field(default_factory=dict)
    labels: dict[str, int] = Field(default_factory=dict)
    groups: int | None = None
    reference: str = ""


def compare_counts(records: Iterable[EmotionRecord], published: PublishedCounts) -> list[str]:
    """One sentence for every count of a dataset's records that differs from the published one."""
    counted = count_records(records)
    labels, groups = counted.totals(), set[str]().union(*counted.groups.values())
    compared = [("records", counted.num_records, published.total), ("groups", len(groups), published.groups)]
    compared += [(f"records in split '{name}'", counted.splits[name], n) for name, n in published.splits.items()]
    compared += [(f"records of '{name}'", labels[name], count) for name, count in published.labels.items()]
    reference = f" ({published.reference})" if published.reference else ""
    return [
        f"{found} {what}, published: {expected}{reference}"
        for what, found, expected in compared
        if expected is not None and found != expected
    ]
