"""Agreement of completed levels with the truth, and whether the stated uncertainty ranks the errors."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lavis_emovit.emotion.facial import FACIAL_UNITS
from lavis_emovit.generation.seke.levels import AXES, Levels, level_of
from lavis_emovit.generation.seke.settings import LEVELS, LevelName
from lavis_emovit.generation.seke.votes import Estimate

AFFECT_ERROR = 0.2  # a larger difference on an axis counts as an error in the ranking by uncertainty


@dataclass(frozen=True)
class Pair:
    """A face with known truth."""

    truth: Levels  # levels labelled by people
    levels: Levels  # completed levels, without discarded ones
    estimate: Estimate | None = None  # uncertainties and values before verification, or None


def accuracy(pairs: Sequence[Pair]) -> float | None:
    """Share of correct expressions among the kept ones."""
    kept = [pair for pair in pairs if pair.truth.expression is not None and pair.levels.expression is not None]
    return sum(pair.levels.expression == pair.truth.expression for pair in kept) / len(kept) if kept else None


def ccc(pairs: Sequence[Pair]) -> float | None:
    """Mean concordance correlation coefficient of valence and arousal (Lin, Biometrics 45, 1989)."""
    kept = [pair for pair in pairs if pair.truth.has("affect") and pair.levels.has("affect")]
    values = [
        concordance([getattr(pair.truth, name) for pair in kept], [getattr(pair.levels, name) for pair in kept])
        for name in ("valence", "arousal")
    ]
    return None if None in values else sum(filter(None, values)) / 2


def concordance(one: Sequence[float], other: Sequence[float]) -> float | None:
    """2 cov / (var + var + (difference of means)^2); None for fewer than two values or without variance."""
    count = len(one)
    if count < 2:
        return None
    mean, mean_other = math.fsum(one) / count, math.fsum(other) / count
    covariance = math.fsum((a - mean) * (b - mean_other) for a, b in zip(one, other)) / count
    spread = math.fsum((a - mean) ** 2 for a in one) / count + math.fsum((b - mean_other) ** 2 for b in other) / count
    total = spread + (mean - mean_other) ** 2
    return 2 * covariance / total if total > 0 else None


def units_f1(pairs: Sequence[Pair]) -> float | None:
    """Mean F1 score over units, except units that are inactive in truth and levels of every face."""
    counts: dict[int, list[int]] = {}
    for pair in pairs:
        for unit, active in pair.levels.units.items():
            if unit in pair.truth.units:
                hit, wrong = counts.setdefault(unit, [0, 0]), active != pair.truth.units[unit]
                hit[0] += active and not wrong
                hit[1] += wrong
    scores = [2 * hit / (2 * hit + wrong) for hit, wrong in counts.values() if hit or wrong]
    return sum(scores) / len(scores) if scores else None


MEASURES: dict[LevelName, tuple[str, Callable[[Sequence[Pair]], float | None]]] = {
    "expression": ("accuracy", accuracy),
    "affect": ("CCC", ccc),
    "units": ("F1", units_f1),
}


def auroc(scores: Sequence[float], is_error: Sequence[bool]) -> float | None:
    """Probability that an error has a higher score than a correct value; None without errors or correct values."""
    if len(set(is_error)) < 2:
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(is_error, scores))


def rank_errors(pairs: Sequence[Pair], part: str = "total") -> dict[LevelName, float | None]:
    """AUROC of the stated uncertainty against the errors before verification, by level.

    Expression: a wrong label. Affect: a difference above `AFFECT_ERROR`, counted per axis. Units: a wrong unit, counted
    per unit. `part` is `total`, `within` or `between` of `Spread`.
    """
    found: dict[LevelName, list[tuple[float, bool]]] = {level: [] for level in LEVELS}
    for pair in pairs:
        for item, spread in (pair.estimate.spreads if pair.estimate else {}).items():
            assert pair.estimate is not None
            score, truth = getattr(spread, part), pair.truth.get(item)
            if score is not None and truth is not None:
                found[level_of(item)].append((score, is_error(item, pair.estimate.levels.get(item), truth)))
    return {level: auroc([score for score, _ in rows], [bad for _, bad in rows]) for level, rows in found.items()}


def is_error(item: str, stated: Any, truth: Any, tolerance: float = AFFECT_ERROR) -> bool:
    """Whether a value is wrong; a valence or arousal by more than the tolerance."""
    return bool(abs(stated - truth) > tolerance if item in AXES else stated != truth)


def measure(
    pairs: Sequence[Pair], levels: Sequence[LevelName] = LEVELS, *, num_resamples: int = 300, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """All measures, with 95 % bootstrap intervals over faces.

    By level: name of the measure, `value`, `low`, `high`, `kept` (share of the faces that have the level; of units, of
    all labelled units), and AUROC of the stated uncertainty: `auroc` (total), `auroc_within` and `auroc_between`.
    """
    rng = random.Random(f"bootstrap/{seed}")
    ranks = {part: rank_errors(pairs, part) for part in ("total", "within", "between")}
    result: dict[str, dict[str, Any]] = {}
    for level in levels:
        name, function = MEASURES[level]
        relevant = [pair for pair in pairs if pair.truth.has(level)]
        if not relevant:
            continue
        kept = [pair for pair in relevant if pair.levels.has(level)]
        drawn = (function(rng.choices(kept, k=len(kept))) for _ in range(num_resamples if kept else 0))
        values = sorted(value for value in drawn if value is not None)
        result[level] = {
            "measure": name,
            "value": _rounded(function(kept)),
            "low": _rounded(values[int(0.025 * len(values))]) if values else None,
            "high": _rounded(values[min(len(values) - 1, int(0.975 * len(values)))]) if values else None,
            "num_faces": len(relevant),
            "kept": _rounded(_share_kept(relevant, level)),
            "auroc": _rounded(ranks["total"][level]),
            "auroc_within": _rounded(ranks["within"][level]),
            "auroc_between": _rounded(ranks["between"][level]),
        }
    return result


def _share_kept(pairs: Sequence[Pair], level: LevelName) -> float:
    if level != "units":
        return sum(pair.levels.has(level) for pair in pairs) / len(pairs)
    labelled = [unit in pair.levels.units for pair in pairs for unit in pair.truth.units if unit in FACIAL_UNITS]
    return sum(labelled) / len(labelled) if labelled else 0.0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
