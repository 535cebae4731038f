"""Splits that never cut through a group: all pictures of a person, or of a session, stay on one side."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from math import isclose

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord


def split_by_group(records: Iterable[EmotionRecord], fractions: Mapping[str, float], seed: int) -> list[EmotionRecord]:
    """Give every record a new split by its group; a record without one is a group of its own.

    Args:
        records: the records; the split they have is forgotten.
        fractions: split name -> share of the groups, together 1. Every split named with a share above 0 gets a group.
        seed: seed of the draw. The result depends on the set of groups and the seed only, not on the records' order.

    Returns:
        the records in their order.

    Raises:
        DataError: shares that don't sum to 1, or fewer groups than splits.
    """
    records = list(records)
    if any(share < 0 for share in fractions.values()) or not isclose(sum(fractions.values()), 1.0, abs_tol=1e-6):
        raise DataError(f"split fractions must be positive and sum to 1, got {dict(fractions)}")
    names = [name for name, share in fractions.items() if share > 0]
    groups = sorted({_group_of(record) for record in records})
    if len(groups) < len(names):
        raise DataError(f"{len(groups)} groups cannot be shared among the splits {', '.join(names)}")
    random.Random(seed).shuffle(groups)
    split_of: dict[str, str] = {}
    for name, (first, last) in zip(names, _bounds([fractions[name] for name in names], len(groups))):
        split_of.update(dict.fromkeys(groups[first:last], name))
    return [record.model_copy(update={"split": split_of[_group_of(record)]}) for record in records]


def hold_out_by_group(
    records: Iterable[EmotionRecord], share: float, seed: int, *, source: str = "train", target: str = "val"
) -> list[EmotionRecord]:
    """Move a share of the groups of one split to another: a validation split where a dataset has none.

    Raises:
        DataError: a share outside (0, 1), or too few groups.
    """
    records = list(records)
    if not 0 < share < 1:
        raise DataError(f"the share to hold out must lie between 0 and 1, got {share}")
    inside = [record for record in records if record.split == source]
    moved = {
        record.id
        for record in split_by_group(inside, {source: 1 - share, target: share}, seed)
        if record.split == target
    }
    return [record.model_copy(update={"split": target}) if record.id in moved else record for record in records]


def _group_of(record: EmotionRecord) -> str:
    # The prefixes keep a group and a lone record of the same name apart.
    return f"group {record.group}" if record.group is not None else f"record {record.id}"


def _bounds(shares: list[float], total: int) -> list[tuple[int, int]]:
    """(first, last) of each share of `total` things, none empty."""
    bounds, first, used = [], 0, 0.0
    for position, share in enumerate(shares):
        used += share
        later = len(shares) - position - 1
        last = total if later == 0 else min(max(round(used * total), first + 1), total - later)
        bounds.append((first, last))
        first = last
    return bounds
