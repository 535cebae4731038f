"""What a records file holds, counted: splits, labels and their balance, labels together, ratings, action units."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord

NO_LABEL = "no label"
RATINGS = ("valence", "arousal", "dominance")


@dataclass
class RecordStatistics:
    """Counts over records.

    Attributes:
        num_records, num_images: records, and different pictures that they name.
        splits: split -> records.
        labels: split -> label -> records; of a record with several labels each one counts.
        together: (label, label) in alphabetical order -> records that carry both, by several labels or by votes.
        ratings: valence, arousal, dominance -> all values.
        action_units: unit -> records in which it is coded, and in which it is there.
        groups: split -> groups.
        instructions: kind -> questions.
        label_sets: label set -> records.
        num_votes, num_utterances, num_boxes: records with shares of votes; utterances; records with a box.
    """

    num_records: int = 0
    images: set[str] = field(default_factory=set)
    splits: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    together: Counter[tuple[str, str]] = field(default_factory=Counter)
    ratings: dict[str, list[float]] = field(default_factory=dict)
    action_units: dict[int, list[int]] = field(default_factory=dict)
    groups: dict[str, set[str]] = field(default_factory=dict)
    instructions: Counter[str] = field(default_factory=Counter)
    label_sets: Counter[str] = field(default_factory=Counter)
    num_votes: int = 0
    num_utterances: int = 0
    num_boxes: int = 0

    def totals(self) -> Counter[str]:
        """Label -> records of all splits."""
        return sum(self.labels.values(), Counter())

    def absent(self) -> list[str]:
        """Labels of the records' label sets that no record carries."""
        found = self.totals()
        wanted: list[str] = []
        for name in self.label_sets:
            try:
                wanted += get_label_set(name).labels
            except DataError:
                continue
        return sorted(set(wanted) - set(found))

    def imbalance(self) -> float | None:
        """Records of the most frequent label for each one of the rarest; None with fewer than two labels."""
        counts = [count for label, count in self.totals().items() if label != NO_LABEL]
        return max(counts) / min(counts) if len(counts) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
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
                str(unit): {"coded": coded, "present": there}
                for unit, (coded, there) in sorted(self.action_units.items())
            },
            "groups": {split: len(groups) for split, groups in self.groups.items()},
            "instructions": dict(self.instructions),
            "label_sets": dict(self.label_sets),
            "num_votes": self.num_votes,
            "num_utterances": self.num_utterances,
            "num_boxes": self.num_boxes,
        }


def count_records(records: Iterable[EmotionRecord]) -> RecordStatistics:
    """Count what records hold, in one pass."""
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
        for unit, intensity in (record.action_units or {}).items():
            counts = found.action_units.setdefault(unit, [0, 0])
            counts[0] += 1
            counts[1] += intensity > 0
        if record.group is not None:
            found.groups.setdefault(record.split, set()).add(record.group)
        found.instructions.update(instruction.kind for instruction in record.instructions)
        if record.label_set is not None:
            found.label_sets[record.label_set] += 1
        found.num_votes += record.votes is not None
        found.num_utterances += len(record.utterances)
        found.num_boxes += record.box is not None
    return found


def labels_of(record: EmotionRecord) -> list[str]:
    """The labels of a record: its emotion, or all that apply; empty where there is none."""
    return [record.emotion] if record.emotion is not None else list(record.labels or ())


def describe_numbers(values: list[float]) -> dict[str, float]:
    """Count, mean, standard deviation (of the population) and range."""
    return {
        "count": len(values),
        "mean": statistics.fmean(values),
        "std": statistics.pstdev(values),
        "min": min(values),
        "max": max(values),
    }
