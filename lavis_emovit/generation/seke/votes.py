"""Combine several answers about a face: vote, means, and uncertainty."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from lavis_emovit.generation.seke.levels import Case, Levels
from lavis_emovit.generation.seke.settings import LEVELS, LevelName, Limits


@dataclass(frozen=True)
class Estimate:
    """Combined levels with their uncertainties, which are None if the level is not requested or after one answer."""

    # Majority expression (the first named one of a tie), mean valence and arousal, units that are active in more than
    # half of the answers.
    levels: Levels
    expression: float | None = None  # entropy of the votes divided by the logarithm of the number of classes, in [0, 1]
    valence: float | None = None  # standard deviation of the sample (n - 1), as arousal
    arousal: float | None = None
    # Unit -> p (1 - p), where p is the share of answers with the active unit; at most 0.25.
    units: dict[int, float] = field(default_factory=dict)
    num_answers: int = 0

    def uncertainty(self, level: LevelName) -> float | None:
        """Uncertainty of a level: the larger one of valence and arousal, the mean over units."""
        if level == "expression":
            return self.expression
        if level == "units":
            return sum(self.units.values()) / len(self.units) if self.units else None
        return None if self.valence is None or self.arousal is None else max(self.valence, self.arousal)

    def above(self, limits: Limits) -> list[LevelName]:
        values = {level: self.uncertainty(level) for level in LEVELS}
        return [level for level, value in values.items() if value is not None and value > getattr(limits, level)]


def combine(answers: Sequence[Levels], case: Case) -> Estimate:
    """Combine one or more answers about a face; each answer contains all missing levels."""
    count = len(answers)
    many = count > 1
    expression = entropy = None
    if "expression" in case.wanted:
        votes = Counter(answer.expression for answer in answers)
        expression = votes.most_common(1)[0][0]
        if many:
            nats = -sum(number / count * math.log(number / count) for number in votes.values())
            entropy = max(0.0, nats / math.log(max(2, len(case.classes))))
    means: list[float | None] = [None, None]
    spreads: list[float | None] = [None, None]
    if "affect" in case.wanted:
        for axis, name in enumerate(("valence", "arousal")):
            values = [getattr(answer, name) for answer in answers]
            mean = math.fsum(values) / count
            means[axis] = min(1.0, max(-1.0, mean))
            if many:
                spreads[axis] = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    active: dict[int, bool] = {}
    variances: dict[int, float] = {}
    if "units" in case.wanted:
        for unit in case.units:
            share = sum(answer.units[unit] for answer in answers) / count
            active[unit] = share > 0.5
            if many:
                variances[unit] = share * (1.0 - share)
    levels = Levels(expression, means[0], means[1], active)
    return Estimate(levels, entropy, spreads[0], spreads[1], variances, count)
