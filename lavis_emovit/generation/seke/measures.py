"""How close completed levels come to the truth, and whether stated uncertainty ranks the errors."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lavis_emovit.generation.seke.levels import Levels
from lavis_emovit.generation.seke.votes import Estimate

AFFECT_ERROR = 0.2
"""A point farther off than this, on either axis, counts as an error where uncertainty is to rank errors."""


@dataclass(frozen=True)
class Pair:
    """A face whose truth is known.

    Attributes:
        truth: by people.
        levels: what came back; levels that were discarded are not there.
        estimate: with the uncertainties and the values before verification, or None.
    """

    truth: Levels
    levels: Levels
    estimate: Estimate | None = None


def accuracy(pairs: Sequence[Pair]) -> float | None:
    """Share of right expressions among those that were kept."""
    kept = [pair for pair in pairs if pair.truth.expression is not None and pair.levels.expression is not None]
    return sum(pair.levels.expression == pair.truth.expression for pair in kept) / len(kept) if kept else None


def ccc(pairs: Sequence[Pair]) -> float | None:
    """Mean of the concordance correlation coefficients of valence and arousal (Lin, Biometrics 45, 1989)."""
    kept = [pair for pair in pairs if pair.truth.has("affect") and pair.levels.has("affect")]
    values = [
        concordance([getattr(pair.truth, name) for pair in kept], [getattr(pair.levels, name) for pair in kept])
        for name in ("valence", "arousal")
    ]
    numbers = [value for value in values if value is not None]
    return sum(numbers) / 2 if len(numbers) == 2 else None


def concordance(one: Sequence[float], other: Sequence[float]) -> float | None:
    """2 cov / (var + var + (difference of means)^2); None below two values or without any spread."""
    count = len(one)
    if count < 2:
        return None
    mean, mean_other = math.fsum(one) / count, math.fsum(other) / count
    covariance = math.fsum((a - mean) * (b - mean_other) for a, b in zip(one, other)) / count
    spread = math.fsum((a - mean) ** 2 for a in one) / count + math.fsum((b - mean_other) ** 2 for b in other) / count
    total = spread + (mean - mean_other) ** 2
    return 2 * covariance / total if total > 0 else None


def units_f1(pairs: Sequence[Pair]) -> float | None:
    """Mean over units of the F1 score of their being active, without units that never are, nor are said to be."""
    counts: dict[int, list[int]] = {}
    for pair in pairs:
        for unit, active in pair.levels.units.items():
            if unit in pair.truth.units:
                hit, wrong = counts.setdefault(unit, [0, 0]), active != pair.truth.units[unit]
                hit[0] += active and not wrong
                hit[1] += wrong
    scores = [2 * hit / (2 * hit + wrong) for hit, wrong in counts.values() if hit or wrong]
    return sum(scores) / len(scores) if scores else None


MEASURES: dict[str, tuple[str, Callable[[Sequence[Pair]], float | None]]] = {
    "expression": ("accuracy", accuracy),
    "affect": ("CCC", ccc),
    "units": ("F1", units_f1),
}


def auroc(scores: Sequence[float], is_error: Sequence[bool]) -> float | None:
    """Probability that an error has a higher score than what is right, ties counting half (Mann-Whitney).

    None where there are only errors, or none.
    """
    order = sorted(range(len(scores)), key=lambda index: scores[index])
    num_errors = sum(is_error)
    num_right = len(scores) - num_errors
    if not num_errors or not num_right:
        return None
    rank_sum, start = 0.0, 0
    while start < len(order):
        end = start
        while end < len(order) and scores[order[end]] == scores[order[start]]:
            end += 1
        # Ranks start + 1 to end share their mean.
        rank_sum += (start + 1 + end) / 2 * sum(is_error[index] for index in order[start:end])
        start = end
    return (rank_sum - num_errors * (num_errors + 1) / 2) / (num_errors * num_right)


def rank_errors(pairs: Sequence[Pair]) -> dict[str, float | None]:
    """AUROC of the stated uncertainty against the errors of the aggregate, before verification, by level.

    Expression: a wrong label. Affect: farther off than `AFFECT_ERROR`, on an axis; the axes are counted one by one.
    Units: a wrong unit, one by one.
    """
    found: dict[str, tuple[list[float], list[bool]]] = {name: ([], []) for name in MEASURES}

    def note(name: str, score: float | None, is_error: bool) -> None:
        if score is not None:
            found[name][0].append(score)
            found[name][1].append(is_error)

    for pair in pairs:
        if pair.estimate is None:
            continue
        before, truth = pair.estimate.levels, pair.truth
        if truth.expression is not None and before.expression is not None:
            note("expression", pair.estimate.expression, before.expression != truth.expression)
        for axis in ("valence", "arousal"):
            one, other = getattr(before, axis), getattr(truth, axis)
            if one is not None and other is not None:
                note("affect", getattr(pair.estimate, axis), abs(one - other) > AFFECT_ERROR)
        for unit, active in before.units.items():
            if unit in truth.units:
                note("units", pair.estimate.units.get(unit), active != truth.units[unit])
    return {name: auroc(scores, errors) for name, (scores, errors) in found.items()}


def measure(
    pairs: Sequence[Pair], levels: Sequence[str] = tuple(MEASURES), *, num_resamples: int = 300, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """All measures, with 95 % intervals by the bootstrap over faces.

    Returns:
        level -> name of the measure, `value`, `low`, `high`, `kept` (share of the faces that have the level), `auroc`.
    """
    rng = random.Random(f"bootstrap/{seed}")
    ranks = rank_errors(pairs)
    result: dict[str, dict[str, Any]] = {}
    for level in levels:
        name, function = MEASURES[level]
        relevant = [pair for pair in pairs if pair.truth.has(level)]  # type: ignore[arg-type]
        if not relevant:
            continue
        kept = [pair for pair in relevant if pair.levels.has(level)]  # type: ignore[arg-type]
        drawn = (function(rng.choices(kept, k=len(kept))) for _ in range(num_resamples if kept else 0))
        values = sorted(value for value in drawn if value is not None)
        result[level] = {
            "measure": name,
            "value": _rounded(function(kept)),
            "low": _rounded(values[int(0.025 * len(values))]) if values else None,
            "high": _rounded(values[min(len(values) - 1, int(0.975 * len(values)))]) if values else None,
            "num_faces": len(relevant),
            "kept": _rounded(len(kept) / len(relevant)),
            "auroc": _rounded(ranks[level]),
        }
    return result


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
