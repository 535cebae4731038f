"""Many answers to one: the vote, the means, and how far the answers are apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from lavis_emovit.generation.seke.levels import Case, Levels
from lavis_emovit.generation.seke.settings import LevelName, Limits


@dataclass(frozen=True)
class Estimate:
    """What answers come to together.

    Attributes:
        levels: majority of the expressions (of equal ones the one that was named first), mean valence and arousal,
            units that more than half of the answers have.
        expression: entropy of the votes over the logarithm of the number of classes, in [0, 1].
        valence, arousal: standard deviation (of the sample, n - 1).
        units: unit -> p (1 - p), p being the share of answers with the unit active; at most 0.25.
        num_answers: that were used.

    Uncertainties are None where the level is not wanted, or where there is one answer only.
    """

    levels: Levels
    expression: float | None = None
    valence: float | None = None
    arousal: float | None = None
    units: dict[int, float] = field(default_factory=dict)
    num_answers: int = 0

    def uncertainty(self, level: LevelName) -> float | None:
        """Of a level: the larger one of valence and arousal, the mean of the units."""
        if level == "expression":
            return self.expression
        if level == "units":
            return sum(self.units.values()) / len(self.units) if self.units else None
        return None if self.valence is None or self.arousal is None else max(self.valence, self.arousal)

    def above(self, limits: Limits) -> list[LevelName]:
        """Levels whose uncertainty is above a limit."""
        found: list[LevelName] = []
        for level, limit in (("expression", limits.expression), ("affect", limits.affect), ("units", limits.units)):
            value = self.uncertainty(level)  # type: ignore[arg-type]
            if value is not None and value > limit:
                found.append(level)  # type: ignore[arg-type]
        return found


def combine(answers: Sequence[Levels], case: Case) -> Estimate:
    """Bring the answers about a face together.

    Args:
        answers: one or more, each with all the wanted levels.
        case: the face.
    """
    count = len(answers)
    many = count > 1
    expression = entropy = None
    if "expression" in case.wanted:
        votes = Counter(answer.expression for answer in answers)
        expression = votes.most_common(1)[0][0]
        if many:
            shares = [number / count for number in votes.values()]
            bits = -sum(share * math.log(share) for share in shares)
            entropy = max(0.0, bits / math.log(max(2, len(case.classes))))
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
