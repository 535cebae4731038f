"""A records file, such as `emovit data import` or `clean` writes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import read_records
from lavis_emovit.sources.proposals.proposal import Proposal


def propose_records(file: Path, image_root: Path) -> Proposal:
    """Read the records as they are. DataError without labels or ratings, or with several label sets."""
    sets: Counter[str] = Counter()
    num_records = num_rated = 0
    for record in read_records(file):
        num_records += 1
        if record.emotion is not None and record.label_set is not None:
            sets[record.label_set] += 1
        num_rated += record.valence is not None and record.arousal is not None
    if len(sets) > 1:
        raise DataError(f"{file}: its records have several label sets ({', '.join(sets)}); split the file")
    if not sets and not num_rated:
        raise DataError(f"{file}: its {num_records} records have neither labels nor valence and arousal")
    root = image_root.resolve()
    node: dict[str, Any] = {"file": Path(os.path.relpath(file.resolve(), root)).as_posix()}
    name = next(iter(sets), None)
    labels = get_label_set(name) if name is not None else None
    what = f"labels: {name}, as in the records" if name is not None else "valence and arousal, as in the records"
    reasons = [f"layout: a records file with {num_records} records, whose image paths start in {root}", what]
    kind = "emotion" if labels is not None else "valence_arousal"
    return Proposal("records", root, node, kind=kind, labels=labels, reasons=reasons)
