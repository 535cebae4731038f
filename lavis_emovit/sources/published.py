"""An import compared with what the dataset's publisher counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.catalogue import PublishedCounts


def compare_counts(records: Iterable[EmotionRecord], published: PublishedCounts, own_splits: bool = True) -> list[str]:
    """Every figure that differs from the published one, a sentence each; nothing where none is published.

    Args:
        records: all records of the dataset.
        published: the publisher's figures.
        own_splits: whether the records' splits are the dataset's own; new ones cannot be compared.
    """
    splits: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    groups: set[str] = set()
    total = 0
    for record in records:
        total += 1
        splits[record.split] += 1
        labels.update([record.emotion] if record.emotion is not None else record.labels or ())
        if record.group is not None:
            groups.add(record.group)
    compared = [("records", total, published.total), ("groups", len(groups), published.groups)]
    if own_splits:
        compared += [(f"records in split '{name}'", splits[name], count) for name, count in published.splits.items()]
    compared += [(f"records of '{name}'", labels[name], count) for name, count in published.labels.items()]
    reference = f" ({published.reference})" if published.reference else ""
    return [
        f"{found} {what}, published are {expected}{reference}"
        for what, found, expected in compared
        if expected is not None and found != expected
    ]
