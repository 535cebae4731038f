"""Splits that never divide a group: all images of a person, or of a session, are in the same split."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isclose

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, RecordStore
from lavis_emovit.sources.base import FOLD
from lavis_emovit.sources.statistics import labels_of


def split_by_group(
    records: Sequence[EmotionRecord],
    fractions: Mapping[str, float],
    seed: int,
    *,
    stratify: bool = False,
    joined: Mapping[str, str] | None = None,
) -> Sequence[EmotionRecord]:
    """Give every record a new split by its group; a record without a group counts as its own group.

    The result has the order of the records, but depends only on the set of groups and the seed. DataError for shares
    that don't sum to 1, or fewer groups than splits.

    Args:
        fractions: split name -> share, with sum 1: of the groups, or with `stratify` of the records. Every split with a
            share above 0 gets at least one group.
        stratify: also give every split its share of every label, as closely as whole groups allow. The label of a
            record is its emotion; if it has several labels, the rarest one.
        joined: group -> the group that it counts as, from `join_groups`; None: each is its own.
    """
    if any(share < 0 for share in fractions.values()) or not isclose(sum(fractions.values()), 1.0, abs_tol=1e-6):
        raise DataError(f"split fractions must not be negative and must sum to 1, got {dict(fractions)}")
    names = [name for name, share in fractions.items() if share > 0]
    joined = joined or {}

    spelt = one_spelling(joined.get(group, group) for group in map(group_of, records))

    def unit_of(record: EmotionRecord) -> str:
        group = group_of(record)
        return spelt[joined.get(group, group)]

    units = sorted(set(spelt.values()))
    if len(units) < len(names):
        raise DataError(f"{len(units)} groups are too few for the splits {', '.join(names)}")
    random.Random(seed).shuffle(units)
    if stratify:
        split_of = _stratified(records, unit_of, units, {name: fractions[name] for name in names})
    else:
        split_of = {}
        for name, (first, last) in zip(names, _bounds([fractions[name] for name in names], len(units))):
            split_of.update(dict.fromkeys(units[first:last], name))
    return RecordStore(record.model_copy(update={"split": split_of[unit_of(record)]}) for record in records)


def hold_out_by_group(
    records: Sequence[EmotionRecord],
    share: float,
    seed: int,
    *,
    source: str = "train",
    target: str = "val",
    joined: Mapping[str, str] | None = None,
) -> Sequence[EmotionRecord]:
    """Move a share of the groups of one split to another: a validation split for a dataset without one.

    `joined` as for `split_by_group`. DataError for a share outside (0, 1), or too few groups.
    """
    if not 0 < share < 1:
        raise DataError(f"the share to hold out must be between 0 and 1, got {share}")
    inside = RecordStore(record for record in records if record.split == source)
    moved = {
        record.id
        for record in split_by_group(inside, {source: 1 - share, target: share}, seed, joined=joined)
        if record.split == target
    }
    return RecordStore(
        record.model_copy(update={"split": target}) if record.id in moved else record for record in records
    )


def split_by_fold(records: Iterable[EmotionRecord], test_fold: int) -> Sequence[EmotionRecord]:
    """The records of one fold as `test`, those of the other folds as `train`.

    DataError for a record without a fold, and for a fold that no record is in.
    """
    found: set[str | int | float | bool] = set()

    def split() -> Iterator[EmotionRecord]:
        for record in records:
            if FOLD not in record.extra:
                raise DataError(f"record '{record.id}' has no '{FOLD}' in `extra`, so `test_fold` cannot split it")
            found.add(record.extra[FOLD])
            yield record.model_copy(update={"split": "test" if record.extra[FOLD] == test_fold else "train"})

    divided = RecordStore(split())
    if test_fold not in found:
        folds = ", ".join(sorted(map(str, found)))
        raise DataError(f"no record is in fold {test_fold}; the folds are {folds} (`test_fold`, --fold)")
    return divided


def resplit(
    records: Iterable[EmotionRecord],
    fractions: Mapping[str, float] | None,
    split_seed: int | None,
    stratify: bool = False,
    joined: Mapping[str, str] | None = None,
) -> Sequence[EmotionRecord]:
    """The splits that the settings of a dataset define; without `fractions`, the published ones.

    Without `split_seed`, the published splits stay, and `val` is held out of `train` if it is missing. `joined` as for
    `split_by_group`.
    """
    records = records if isinstance(records, Sequence) else RecordStore(records)
    if fractions is None:
        return records
    if split_seed is not None:
        return split_by_group(records, fractions, split_seed, stratify=stratify, joined=joined)
    if fractions.get("val", 0) > 0 and not any(record.split == "val" for record in records):
        share = fractions["val"] / (fractions["train"] + fractions["val"])
        return hold_out_by_group(records, share, seed=0, joined=joined)
    return records


def group_of(record: EmotionRecord) -> str:
    """The unit that a split must not divide: the record's group, or the record alone."""
    # The prefixes distinguish a group from a single record of the same name.
    return f"group {record.group}" if record.group is not None else f"record {record.id}"


def one_spelling(groups: Iterable[str]) -> dict[str, str]:
    """Group -> the first spelling of its name in alphabetical order; an accented letter may be one character or two."""
    names = sorted(set(groups))
    first: dict[str, str] = {}
    return {name: first.setdefault(unicodedata.normalize("NFC", name), name) for name in names}


def _stratified(
    records: Sequence[EmotionRecord],
    unit_of: Callable[[EmotionRecord], str],
    groups: list[str],
    shares: dict[str, float],
) -> dict[str, str]:
    """Group -> split, so that every split gets its share of every label.

    Assigns groups one by one, those with the rarest label first (after Sechidis, Tsoumakas and Vlahavas, ECML PKDD
    2011, with groups instead of single examples). A group goes to the split that lacks most of that label, relative to
    its share, among the splits that lack enough of it; if there is none, to the split furthest behind its share of all
    records.
    """
    totals = Counter(label for record in records for label in labels_of(record) or [""])
    counts: dict[str, Counter[str]] = {group: Counter() for group in groups}
    for record in records:
        counts[unit_of(record)][min(labels_of(record) or [""], key=lambda name: (totals[name], name))] += 1
    sizes = {group: sum(counter.values()) for group, counter in counts.items()}
    kept = sum((counts[group] for group in groups), Counter())
    wanted = {name: {label: share * count for label, count in kept.items()} for name, share in shares.items()}
    filled = dict.fromkeys(shares, 0)
    rank = {group: number for number, group in enumerate(groups)}
    # Large groups first among those with the same label; the small ones then fill the gaps.
    order = sorted(groups, key=lambda g: (min(kept[label] for label in counts[g]), -sizes[g], rank[g]))
    split_of: dict[str, str] = {}
    assigned = 0
    for group in order:
        label = min(counts[group], key=lambda name: (kept[name], name))
        assigned += sizes[group]
        behind = {name: share * assigned - filled[name] for name, share in shares.items()}
        fitting = [name for name in shares if wanted[name][label] >= counts[group][label]]
        if fitting:
            name = max(fitting, key=lambda s: (wanted[s][label] / shares[s], behind[s]))
        else:
            name = max(shares, key=lambda s: behind[s])
        split_of[group] = name
        filled[name] += sizes[group]
        for one, count in counts[group].items():
            wanted[name][one] -= count
    # An empty split takes the smallest group of the largest split.
    for name in shares:
        if name not in split_of.values():
            largest = Counter(split_of.values()).most_common(1)[0][0]
            split_of[min((g for g in groups if split_of[g] == largest), key=lambda g: (sizes[g], rank[g]))] = name
    return split_of


def _bounds(shares: list[float], total: int) -> list[tuple[int, int]]:
    """(first, last) of each share of `total` items, none empty."""
    bounds, first, used = [], 0, 0.0
    for position, share in enumerate(shares):
        used += share
        later = len(shares) - position - 1
        last = total if later == 0 else min(max(round(used * total), first + 1), total - later)
        bounds.append((first, last))
        first = last
    return bounds
