"""A records file, such as `emovit data import` or `clean` writes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, read_records
from lavis_emovit.sources.proposals.proposal import Proposal


def emotions_of(records: Iterable[EmotionRecord], place: Path) -> tuple[str | None, int]:
    """The label set of the emotions, None if there are only valence and arousal, and the number of records.

    DataError without either, or with several label sets.
    """
    sets: Counter[str] = Counter()
    num_records = num_rated = num_bare = num_several = 0
    for record in records:
        num_records += 1
        if record.emotion is not None and record.label_set is not None:
            sets[record.label_set] += 1
        num_rated += record.valence is not None and record.arousal is not None
        num_bare += record.emotion is not None
        num_several += bool(record.emotion is None and (record.labels or record.votes))
    if len(sets) > 1:
        raise DataError(f"{place}: its records have several label sets ({', '.join(sets)}); split them")
    if not sets and not num_rated:
        raise DataError(
            f"{place}: none of its {num_records} records has an emotion with its label set, or valence and arousal."
            + (f" {num_bare} have an emotion without a label set: set `label_set`." if num_bare else "")
            + (
                f" {num_several} have only several labels or votes: set `emotion` and `label_set`."
                if num_several
                else ""
            )
        )
    return next(iter(sets), None), num_records


def propose_records(file: Path, image_root: Path) -> Proposal:
    """Read the records as they are. DataError without labels or ratings, or with several label sets."""
    name, num_records = emotions_of(read_records(file), file)
    root = image_root.resolve()
    node: dict[str, Any] = {"file": Path(os.path.relpath(file.resolve(), root)).as_posix()}
    labels = get_label_set(name) if name is not None else None
    what = f"labels: {name}, as in the records" if name is not None else "valence and arousal, as in the records"
    reasons = [f"layout: a records file with {num_records} records, whose image paths start in {root}", what]
    kind = "emotion" if labels is not None else "valence_arousal"
    return Proposal("records", root, node, kind=kind, labels=labels, reasons=reasons)
