"""Test sets of faces, one per level, from labels by people only, optionally balanced over classes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors
from lavis_emovit.generation.seke.instructions import write_instructions
from lavis_emovit.generation.seke.levels import PERSON, Levels, known_levels, sources_of, without_generated
from lavis_emovit.generation.seke.settings import LevelName, SekeSettings
from lavis_emovit.records import EmotionRecord

NO_UNIT = "no unit"


def classes_of(levels: Levels, level: LevelName) -> list[str]:
    """Classes of a face in a level; empty if the level is not labelled.

    Expression: its name. Affect: the quadrant, where 0 counts as positive and high. Units: each active unit (`AU12`),
    or `no unit`.
    """
    if not levels.has(level):
        return []
    if level == "expression":
        return [str(levels.expression)]
    if level == "affect":
        valence, arousal = float(levels.valence or 0.0), float(levels.arousal or 0.0)
        return [f"{'positive' if valence >= 0 else 'negative'}, {'high' if arousal >= 0 else 'low'}"]
    coded = [unit for unit in FACIAL_UNITS if unit in levels.units]
    return ([f"AU{unit}" for unit in coded if levels.units[unit]] or [NO_UNIT]) if coded else []


def level_set(
    records: Iterable[EmotionRecord],
    level: LevelName,
    settings: SekeSettings,
    priors: FacialPriors,
    *,
    per_class: int | None = None,
    balanced: bool = False,
    seed: int = 0,
) -> list[EmotionRecord]:
    """The records that test a level, without generated levels and with the questions of this level only.

    Classes are filled one after the other, the rarest first, up to `per_class` faces; `balanced` limits every class to
    the size of the rarest one. A face with several active units counts for each of them, so frequent units can exceed
    the limit. The choice depends only on seed and ids. DataError if an emotion is not a facial expression.
    """
    found = [
        (record, names)
        for record in map(without_generated, records)
        if (names := _classes_by_people(record, level, settings.active_from))
    ]
    totals = Counter(name for _, names in found for name in names)
    limit = min([*([per_class] if per_class is not None else []), *(totals.values() if balanced else [])], default=None)
    chosen = {record.id for record, _ in found} if limit is None else _draw(found, totals, limit, f"{level}/{seed}")
    tested = []
    for record, _ in found:
        if record.id in chosen:
            bare = record.model_copy(update={"instructions": []})
            written = write_instructions(bare, priors, settings, seed=seed)
            kept = [item for item in written if item.provenance.startswith(f"seke:{level}/")]
            tested.append(bare.model_copy(update={"instructions": kept}))
    return tested


def count_classes(records: Sequence[EmotionRecord], level: LevelName, active_from: float) -> dict[str, int]:
    """Class -> number of faces, by labels of people; classes in alphabetical order, units by number."""
    found = (_classes_by_people(without_generated(record), level, active_from) for record in records)
    counts = Counter(name for names in found for name in names)
    return dict(sorted(counts.items(), key=lambda item: (len(item[0]) if level == "units" else 0, item[0])))


def _classes_by_people(record: EmotionRecord, level: LevelName, active_from: float) -> list[str]:
    known = known_levels(record, active_from)
    return classes_of(known, level) if sources_of(record, known).get(level) == PERSON else []


def _draw(found: Sequence[tuple[EmotionRecord, list[str]]], totals: Counter[str], limit: int, key: str) -> set[str]:
    order = sorted(found, key=lambda item: hashlib.sha256(f"{key}/{item[0].id}".encode()).digest())
    chosen: set[str] = set()
    counts: Counter[str] = Counter()
    for name in sorted(totals, key=lambda one: (totals[one], one)):
        for record, names in order:
            if counts[name] >= limit:
                break
            if name in names and record.id not in chosen:
                chosen.add(record.id)
                counts.update(names)
    return chosen
