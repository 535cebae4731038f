"""What the known levels of a face say about the others: expression, valence and arousal, action units.

The tables describe each expression by probabilities of units and by normal distributions of valence and arousal. Known
levels give the probability of each expression (Bayes' rule, with levels independent given the expression), and these
give all other levels, so any level informs the other two. Counts of pairs correct units that occur together more or
less often than the expressions explain.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from lavis_emovit.emotion.facial import FACIAL_UNITS, FacialPriors, PairPrior


@dataclass(frozen=True)
class Evidence:
    """Known levels; each may be missing."""

    expression: str | None = None
    valence: float | None = None
    arousal: float | None = None
    units: Mapping[int, bool] = field(default_factory=dict)  # coded action unit -> active or not
    intensities: Mapping[int, float] = field(default_factory=dict)  # of active units, if they are known
    # Expression -> probability by a program: `expression` is only the likeliest, and these take the place of how
    # frequent each one is.
    votes: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.expression, self.valence, self.arousal)) or bool(self.units)


@dataclass(frozen=True)
class Mixture:
    """Distribution of valence or arousal: (probability of an expression, its mean, its standard deviation)."""

    parts: tuple[tuple[float, float, float], ...]

    @property
    def mean(self) -> float:
        return math.fsum(weight * mean for weight, mean, _ in self.parts)

    @property
    def sd(self) -> float:
        second = math.fsum(weight * (mean**2 + sd**2) for weight, mean, sd in self.parts)
        return math.sqrt(max(0.0, second - self.mean**2))

    def plausibility(self, value: float) -> float:
        """Probability of a value at least as extreme, on both sides together; at most 1."""
        below = math.fsum(
            weight * math.erfc((mean - value) / (sd * math.sqrt(2))) / 2 for weight, mean, sd in self.parts
        )
        return min(1.0, 2 * min(below, 1 - below))


@dataclass(frozen=True)
class Beliefs:
    """What follows from the evidence."""

    expressions: dict[str, float]  # expression -> probability; they sum to 1
    valence: Mixture
    arousal: Mixture
    units: dict[int, float]  # unit that is not in the evidence -> probability that it is active
    intensities: dict[int, float]  # the same units -> expected intensity if active, where the tables have any

    def likeliest(self) -> list[tuple[str, float]]:
        """Expressions with their probabilities, the highest first."""
        return sorted(self.expressions.items(), key=lambda item: (-item[1], item[0]))


def infer(
    priors: FacialPriors,
    evidence: Evidence,
    *,
    classes: Collection[str] | None = None,
    units: Collection[int] = FACIAL_UNITS,
    seen: Mapping[str, float] | None = None,
) -> Beliefs:
    """Conclusions from known levels.

    Args:
        classes: expressions that are possible; None: all in the tables. An expression in the evidence that the tables
            do not contain is ignored.
        units: units to conclude on.
        seen: expression -> probability by somebody who looked at the face and took all expressions as equally
            frequent, so proportional to the likelihood of the face. It counts unless the expression is known without
            votes.

    Raises:
        ValueError: `seen` excludes all expressions that are possible.
    """
    names = [name for name in priors.expressions if classes is None or name in classes] or list(priors.expressions)
    votes = {name: evidence.votes[name] for name in names if evidence.votes.get(name, 0.0) > 0.0}
    if evidence.expression in priors.expressions and not votes:
        weights = {str(evidence.expression): 1.0}
    else:
        names = [name for name in votes or names if seen is None or seen.get(name, 0.0) > 0.0]
        if not names:
            raise ValueError("no possible expression was seen")
        logs = {
            name: math.log(votes[name] if votes else frequency(priors, name)) + _log_likelihood(priors, name, evidence)
            for name in names
        }
        weights = _normalised({name: log + (math.log(seen[name]) if seen else 0.0) for name, log in logs.items()})
    tables = priors.expressions
    open_units = [unit for unit in units if unit not in evidence.units]
    means: dict[int, float] = {}
    for unit in open_units:
        found = [
            (weight * prior.probability, prior.intensity)
            for name, weight in weights.items()
            if (prior := (tables[name].units or {}).get(unit)) is not None and prior.intensity is not None
        ]
        if total := math.fsum(weight for weight, _ in found):
            means[unit] = math.fsum(weight * intensity for weight, intensity in found if intensity is not None) / total
    valence, arousal = (
        Mixture(tuple((weight, *tables[name].axis(axis)) for name, weight in weights.items()))
        for axis in ("valence", "arousal")
    )
    active = {unit: _active(priors, weights, evidence, unit) for unit in open_units}
    return Beliefs(weights, valence, arousal, active, means)


def frequency(priors: FacialPriors, expression: str) -> float:
    """Share of the faces with an expression."""
    share = priors.expressions[expression].share
    return share if share is not None else 1 / len(priors.expressions)


def _log_likelihood(priors: FacialPriors, name: str, evidence: Evidence) -> float:
    prior = priors.expressions[name]
    found = []
    for axis in ("valence", "arousal"):
        value = getattr(evidence, axis)
        if value is not None:
            found.append(_log_density(value, *prior.axis(axis)))
    for unit, is_active in evidence.units.items():
        probability = prior.probability(unit)
        found.append(math.log(probability if is_active else 1 - probability))
        graded = (prior.units or {}).get(unit)
        if is_active and unit in evidence.intensities and graded is not None and graded.intensity is not None:
            found.append(_log_density(evidence.intensities[unit], graded.intensity, graded.intensity_sd or 1.0))
    return math.fsum(found)


def _log_density(value: float, mean: float, sd: float) -> float:
    """Of a normal distribution."""
    return -(((value - mean) / sd) ** 2) / 2 - math.log(sd * math.sqrt(2 * math.pi))


def _normalised(logs: Mapping[str, float]) -> dict[str, float]:
    highest = max(logs.values())
    shares = {name: math.exp(value - highest) for name, value in logs.items()}
    total = math.fsum(shares.values())
    return {name: share / total for name, share in shares.items()}


def _active(priors: FacialPriors, weights: Mapping[str, float], evidence: Evidence, unit: int) -> float:
    """Probability of a unit by the expressions, corrected by the known unit with the strongest own connection."""
    probability = _share(priors, weights, unit)
    shifts = [0.0]
    for pair in priors.pairs:
        other = {pair.units[0]: pair.units[1], pair.units[1]: pair.units[0]}.get(unit)
        if other is not None and other in evidence.units:
            # Centred, so that the correction does not change how frequent the unit is on average.
            shifts.append(own_association(priors, pair) * (evidence.units[other] - _share(priors, weights, other)))
    odds = probability / (1 - probability) * math.exp(max(shifts, key=abs))
    return odds / (1 + odds)


def _share(priors: FacialPriors, weights: Mapping[str, float], unit: int) -> float:
    return math.fsum(weight * priors.expressions[name].probability(unit) for name, weight in weights.items())


def own_association(priors: FacialPriors, pair: PairPrior) -> float:
    """Logarithm of the odds ratio of two units in the counts, minus the one that the expressions explain.

    The counts are smoothed by `priors.smoothing` faces that follow the expressions, so without counts it is 0.
    """
    shares = {name: frequency(priors, name) for name in priors.expressions}
    total = math.fsum(shares.values())
    explained = [0.0, 0.0, 0.0, 0.0]  # both, the first only, the second only, neither
    for name, share in shares.items():
        one, two = (priors.expressions[name].probability(unit) for unit in pair.units)
        for place, probability in enumerate((one * two, one * (1 - two), (1 - one) * two, (1 - one) * (1 - two))):
            explained[place] += share / total * probability
    counts = (pair.both, pair.first_only, pair.second_only, pair.neither)
    smoothed = [count + priors.smoothing * cell for count, cell in zip(counts, explained)]
    return _log_odds_ratio(smoothed) - _log_odds_ratio(explained)


def _log_odds_ratio(cells: list[float]) -> float:
    both, first, second, neither = cells
    return math.log(both * neither / (first * second))
