"""What is known about faces: which action units make an expression, and where it lies in valence and arousal.

The tables stand in `facial_priors.json` with their sources; a file of one's own of the same form takes their place.
They are used both ways: from an expression to its likely units and region, and from units or a point to the likely
expressions.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import cache
from pathlib import Path

from pydantic import field_validator, model_validator

from lavis_emovit.errors import DataError
from lavis_emovit.settings import Settings, nearest_name, read_settings_file

# The union of the units that DISFA, BP4D and Aff-Wild2 code (12 each).
FACIAL_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26)

_PACKAGED = Path(__file__).with_name("facial_priors.json")


class Prototype(Settings):
    """Action units that together make an expression, and who says so (a key of `sources`)."""

    units: tuple[int, ...]
    source: str


class Region(Settings):
    """Where an expression lies: lowest and highest valence and arousal, in [-1, 1], and who says so."""

    valence: tuple[float, float]
    arousal: tuple[float, float]
    source: str

    @field_validator("valence", "arousal")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not -1.0 <= value[0] < value[1] <= 1.0:
            raise ValueError("must be lowest and highest, within -1 and 1")
        return value

    def distance(self, valence: float, arousal: float) -> float:
        """How far a point lies outside, along the axis where it is farther; 0 inside."""
        sides = ((valence, self.valence), (arousal, self.arousal))
        return max(max(low - value, value - high, 0.0) for value, (low, high) in sides)

    def middle(self) -> tuple[float, float]:
        """Valence and arousal in the middle."""
        return sum(self.valence) / 2, sum(self.arousal) / 2


class ExpressionPrior(Settings):
    """What is known about one expression."""

    prototypes: tuple[Prototype, ...]
    region: Region

    @field_validator("prototypes")
    @classmethod
    def _has_one(cls, value: tuple[Prototype, ...]) -> tuple[Prototype, ...]:
        if not value:
            raise ValueError("must have at least one prototype (one without units for a face at rest)")
        return value


class FacialPriors(Settings):
    """The tables.

    Attributes:
        version: of the tables; it is part of what a model is told, so results name it.
        sources: key -> citation.
        units: number of an action unit -> its FACS name.
        expressions: expression -> prototypes and region.
    """

    version: int
    sources: dict[str, str]
    units: dict[int, str]
    expressions: dict[str, ExpressionPrior]

    @model_validator(mode="after")
    def _hangs_together(self) -> FacialPriors:
        for name, prior in self.expressions.items():
            strays = sorted({unit for prototype in prior.prototypes for unit in prototype.units} - set(self.units))
            if strays:
                raise ValueError(f"expression '{name}' names action units without an entry in 'units': {strays}")
            cited = {prototype.source for prototype in prior.prototypes} | {prior.region.source}
            if cited - set(self.sources):
                raise ValueError(f"expression '{name}' cites {sorted(cited - set(self.sources))}, not in 'sources'")
        lacking = sorted(set(FACIAL_UNITS) - set(self.units))
        if lacking:
            raise ValueError(f"'units' must name action units {lacking}, too")
        return self

    def unit_shares(self, expression: str, units: Collection[int] = FACIAL_UNITS) -> dict[int, float]:
        """From an expression to its units: share of its prototypes that hold each of `units`."""
        prototypes = self._prior(expression).prototypes
        return {unit: sum(unit in item.units for item in prototypes) / len(prototypes) for unit in units}

    def region(self, expression: str) -> Region:
        """From an expression to its region. Raises DataError for an expression that the tables lack."""
        return self._prior(expression).region

    def agreement(self, expression: str, active: Collection[int], units: Collection[int] = FACIAL_UNITS) -> float:
        """How well active units fit an expression: Dice coefficient with its best prototype, in [0, 1].

        Args:
            expression: as in the tables.
            active: the units that are seen.
            units: those that were looked for; a prototype's other units don't count.
        """
        seen = set(active) & set(units)
        scores = []
        for prototype in self._prior(expression).prototypes:
            wanted = set(prototype.units) & set(units)
            total = len(wanted) + len(seen)
            # Nothing wanted and nothing seen is a full agreement only where nothing was ever wanted.
            alone = 1.0 if not prototype.units else 0.0
            scores.append(2 * len(wanted & seen) / total if total else alone)
        return max(scores)

    def expressions_of_units(
        self, active: Collection[int], units: Collection[int] = FACIAL_UNITS
    ) -> list[tuple[str, float]]:
        """From units to expressions: those that agree at all, with their agreement, best first."""
        scored = [(name, self.agreement(name, active, units)) for name in self.expressions]
        return sorted((item for item in scored if item[1] > 0.0), key=lambda item: (-item[1], item[0]))

    def expressions_of_point(self, valence: float, arousal: float) -> list[str]:
        """From a point to expressions: those whose region holds it, the nearest middle first."""

        def off_middle(name: str) -> float:
            middle = self.expressions[name].region.middle()
            return (middle[0] - valence) ** 2 + (middle[1] - arousal) ** 2

        holding = [name for name, prior in self.expressions.items() if not prior.region.distance(valence, arousal)]
        return sorted(holding, key=lambda name: (off_middle(name), name))

    def _prior(self, expression: str) -> ExpressionPrior:
        if expression not in self.expressions:
            raise DataError(
                f"no prior for the expression '{expression}'{nearest_name(expression, list(self.expressions))}"
            )
        return self.expressions[expression]


def facial_priors(path: str | os.PathLike[str] | None = None) -> FacialPriors:
    """Read the tables.

    Args:
        path: JSON file of the form of the packaged one, or None for that.

    Raises:
        ConfigError: it cannot be read or is not of that form; all problems are named.
    """
    return _packaged() if path is None else read_settings_file(FacialPriors, Path(path), "priors")


@cache
def _packaged() -> FacialPriors:
    return read_settings_file(FacialPriors, _PACKAGED, "priors")
