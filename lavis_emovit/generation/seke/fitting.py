"""Estimate tables of priors from labelled records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from lavis_emovit.emotion.facial import CENTRAL_90, FACIAL_UNITS, FacialPriors
from lavis_emovit.emotion.facial_knowledge import frequency
from lavis_emovit.errors import DataError
from lavis_emovit.generation.seke.levels import (
    PERSON,
    Case,
    Levels,
    evidence_of,
    known_levels,
    sources_of,
    without_generated,
)
from lavis_emovit.generation.seke.settings import LEVELS, LevelName
from lavis_emovit.records import EmotionRecord

FITTED = "fitted"
_LEAST_INTENSITY_SD = 0.25


@dataclass
class FaceCounts:
    """What labelled records say about faces, by the dataset that they come from."""

    faces: Counter[str] = field(default_factory=Counter)  # source -> faces with a level
    levels: Counter[tuple[str, LevelName]] = field(default_factory=Counter)  # (source, level) -> faces
    expressions: Counter[tuple[str, str]] = field(default_factory=Counter)  # (expression, source) -> faces
    points: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)  # the same -> points
    # (expression, unit, source) -> active or not of each face that has the unit coded.
    units: dict[tuple[str, int, str], list[bool]] = field(default_factory=dict)
    intensities: dict[tuple[str, int], list[float]] = field(default_factory=dict)  # of active units, by expression
    pairs: dict[tuple[int, int], Counter[tuple[bool, bool]]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)  # reason -> faces

    def add(self, record: EmotionRecord, base: FacialPriors, *, active_from: float, programs: bool) -> None:
        """Count the levels of a record. DataError if its emotion is not one of its set of faces."""
        record = without_generated(record)
        known = known_levels(record, active_from)
        sources = sources_of(record, known)
        kept = [level for level in LEVELS if known.has(level) and (programs or sources[level] == PERSON)]
        if not kept:
            self.skipped["faces without a level by people" if not programs else "faces without a level"] += 1
            return
        graded = evidence_of(Case(record, known, ()), base).intensities
        known = known.only(kept)
        self.faces[record.source] += 1
        self.levels.update((record.source, level) for level in kept)
        self._add_pairs(known)
        if known.expression is None:
            return
        if known.expression not in base.expressions:
            self.skipped[f"expression '{known.expression}' is not in the tables"] += 1
            return
        self._add_expression(known.expression, known, record.source, graded)

    def per_expression(self) -> dict[str, int]:
        """Expression -> faces of all sources."""
        found: Counter[str] = Counter()
        for (name, _), number in self.expressions.items():
            found[name] += number
        return dict(sorted(found.items()))

    def _add_pairs(self, known: Levels) -> None:
        coded = sorted(unit for unit in known.units if unit in FACIAL_UNITS)
        for one, two in combinations(coded, 2):
            self.pairs.setdefault((one, two), Counter())[known.units[one], known.units[two]] += 1

    def _add_expression(self, name: str, known: Levels, source: str, graded: Mapping[int, float]) -> None:
        self.expressions[name, source] += 1
        if known.valence is not None and known.arousal is not None:
            self.points.setdefault((name, source), []).append((known.valence, known.arousal))
        for unit, is_active in known.units.items():
            self.units.setdefault((name, unit, source), []).append(is_active)
            if is_active and unit in graded:
                self.intensities.setdefault((name, unit), []).append(graded[unit])


def count_faces(
    records: Iterable[EmotionRecord], base: FacialPriors, *, active_from: float = 1.0, programs: bool = False
) -> FaceCounts:
    """Count the levels of records; those of earlier runs of SEKE never count.

    Args:
        active_from: lowest intensity of an active unit.
        programs: count also values that come from tables of programs, such as OpenFace.

    Raises:
        DataError: an emotion is not one of its set of faces; records without any level.
    """
    counts = FaceCounts()
    for record in records:
        counts.add(record, base, active_from=active_from, programs=programs)
    if not counts.faces:
        raise DataError("no record has an expression, valence and arousal, or action units to estimate from")
    return counts


def fit_priors(counts: FaceCounts, base: FacialPriors, *, smoothing: float = 5.0) -> FacialPriors:
    """Tables estimated from counts, smoothed by `smoothing` faces that follow the tables `base`.

    A probability is (active + s p) / (coded + s), where p is that of `base` and s the smoothing; means are smoothed in
    the same way, and variances include the distance of the two means. What no face has stays as in `base`, with its
    source.

    Raises:
        DataError: `base` was estimated from records, whose faces would count twice.
    """
    if FITTED in base.sources:
        raise DataError("the base tables were themselves estimated from records; pass all of these records instead")
    total = counts.expressions.total()
    expressions = {}
    for name, prior in base.expressions.items():
        table = prior.model_dump(mode="json", exclude_none=True)
        by_source = {source: count for (found, source), count in sorted(counts.expressions.items()) if found == name}
        number = sum(by_source.values())
        table["share"] = (number + smoothing * frequency(base, name)) / (total + smoothing)
        table["counts"] = by_source
        table |= _affect(counts, base, name, smoothing)
        table["units"] = _units(counts, base, name, smoothing)
        likely = sorted(unit for unit, one in table["units"].items() if one["probability"] > 0.5)
        has_new = any(one["source"] == FITTED for one in table["units"].values())
        if has_new and likely not in [item["units"] for item in table["prototypes"]]:
            table["prototypes"].append({"units": likely, "source": FITTED})
        expressions[name] = table
    pairs = [
        {
            "units": units, "both": found[True, True], "first_only": found[True, False],
            "second_only": found[False, True], "neither": found[False, False],
        }
        for units, found in sorted(counts.pairs.items())
    ]  # fmt: skip
    listed = ", ".join(f"{source} ({number} faces)" for source, number in sorted(counts.faces.items()))
    origin = f"estimated from {listed}, smoothed by {smoothing:g} faces of the tables of version {base.version}"
    content: dict[str, Any] = {
        "version": base.version,
        "sources": {**base.sources, FITTED: origin},
        "units": base.units,
        "expressions": expressions,
        "pairs": pairs,
        "smoothing": smoothing,
    }
    return FacialPriors.model_validate(content)


def _affect(counts: FaceCounts, base: FacialPriors, name: str, smoothing: float) -> dict[str, Any]:
    """`affect` and `region` of an expression; nothing if no face has a point."""
    found = {source: points for (of, source), points in sorted(counts.points.items()) if of == name}
    points = [point for some in found.values() for point in some]
    if not points:
        return {}
    axes = {
        axis: smoothed_moments([point[place] for point in points], base.expressions[name].axis(axis), smoothing)
        for place, axis in enumerate(("valence", "arousal"))
    }
    spans = {axis: _central(*moments) for axis, moments in axes.items()}
    by_source = {source: len(some) for source, some in found.items()}
    return {"affect": {**axes, "source": FITTED, "counts": by_source}, "region": {**spans, "source": FITTED}}


def _central(mean: float, sd: float) -> tuple[float, float]:
    """The central 90 % of a normal distribution, within -1 and 1."""
    return max(-1.0, mean - CENTRAL_90 * sd), min(1.0, mean + CENTRAL_90 * sd)


def _units(counts: FaceCounts, base: FacialPriors, name: str, smoothing: float) -> dict[int, dict[str, Any]]:
    """The units of an expression: those of `base`, and all that are coded."""
    prior = base.expressions[name]
    coded = {unit for of, unit, _ in counts.units if of == name and unit in base.units}
    table: dict[int, dict[str, Any]] = {}
    for unit in sorted(coded | set(prior.units or ()) | {unit for item in prior.prototypes for unit in item.units}):
        stated = (prior.units or {}).get(unit)
        origin = stated.source if stated is not None else prior.prototypes[0].source
        entry: dict[str, Any] = {"probability": prior.probability(unit), "source": origin}
        if unit in coded:
            seen = {source: some for (of, u, source), some in sorted(counts.units.items()) if (of, u) == (name, unit)}
            active, number = sum(map(sum, seen.values())), sum(map(len, seen.values()))
            entry = {
                "probability": (active + smoothing * entry["probability"]) / (number + smoothing),
                "source": FITTED,
                "counts": {source: (sum(some), len(some)) for source, some in seen.items()},
            }
        everywhere = [value for (_, u), some in counts.intensities.items() if u == unit for value in some]
        if everywhere:
            usual = _moments(everywhere)
            mean, sd = smoothed_moments(counts.intensities.get((name, unit), []), usual, smoothing)
            entry |= {"intensity": mean, "intensity_sd": max(sd, _LEAST_INTENSITY_SD)}
        table[unit] = entry
    return table


def _moments(values: Collection[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def smoothed_moments(values: Collection[float], prior: tuple[float, float], smoothing: float) -> tuple[float, float]:
    """Mean and standard deviation of values together with `smoothing` faces of the given mean and deviation."""
    if not values:
        return prior
    mean, sd = _moments(values)
    total = len(values) + smoothing
    shift = mean - prior[0]
    variance = (len(values) * sd**2 + smoothing * prior[1] ** 2 + len(values) * smoothing / total * shift**2) / total
    return (len(values) * mean + smoothing * prior[0]) / total, math.sqrt(variance)
