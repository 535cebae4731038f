"""Prior knowledge about faces: the action units of each expression, and its region of valence and arousal.

`facial_priors.json` contains the tables and their sources; users can pass a file of the same format, which
`emovit facial fit` writes. `facial_knowledge` draws conclusions from the tables.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from lavis_emovit.errors import DataError
from lavis_emovit.settings import Settings, nearest_name, read_settings_file

# The union of the units that DISFA, BP4D and Aff-Wild2 code (12 each).
FACIAL_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26)

# Probability of a unit that all prototypes of an expression have, or none, where the tables do not state one.
_IN_PROTOTYPES, _IN_NO_PROTOTYPE = 0.85, 0.05
CENTRAL_90 = 1.6449
"""Standard deviations on each side of the mean that hold the central 90 % of a normal distribution."""

_PACKAGED = Path(__file__).with_name("facial_priors.json")


class Prototype(Settings):
    """Action units that together form an expression, with the source (a key of `sources`)."""

    units: tuple[int, ...]
    source: str


class Region(Settings):
    """Lowest and highest valence and arousal of an expression, in [-1, 1], with the source."""

    valence: tuple[float, float]
    arousal: tuple[float, float]
    source: str

    @field_validator("valence", "arousal")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not -1.0 <= value[0] < value[1] <= 1.0:
            raise ValueError("must be the lowest and the highest value, between -1 and 1")
        return value

    def distance(self, valence: float, arousal: float) -> float:
        """How far a point is outside, on the axis with the larger distance; 0 inside."""
        sides = ((valence, self.valence), (arousal, self.arousal))
        return max(max(low - value, value - high, 0.0) for value, (low, high) in sides)

    def center(self) -> tuple[float, float]:
        return sum(self.valence) / 2, sum(self.arousal) / 2


class UnitPrior(Settings):
    """How often, and how strongly, a unit is active in an expression."""

    probability: float = Field(gt=0.0, lt=1.0)
    source: str
    intensity: float | None = Field(default=None, ge=0.0, le=5.0)  # mean of the active unit
    intensity_sd: float | None = Field(default=None, gt=0.0)
    counts: dict[str, tuple[int, int]] = Field(default_factory=dict)  # source of records -> active, coded


class AffectPrior(Settings):
    """Mean and standard deviation of valence and arousal of an expression."""

    valence: tuple[float, float]
    arousal: tuple[float, float]
    source: str
    counts: dict[str, int] = Field(default_factory=dict)  # source of records -> faces

    @field_validator("valence", "arousal")
    @classmethod
    def _has_a_spread(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not (-1.0 <= value[0] <= 1.0 and value[1] > 0.0):
            raise ValueError("must be a mean between -1 and 1 and a standard deviation above 0")
        return value


class PairPrior(Settings):
    """Faces by the activity of two units that were both coded."""

    units: tuple[int, int]
    both: int = Field(ge=0)
    first_only: int = Field(ge=0)
    second_only: int = Field(ge=0)
    neither: int = Field(ge=0)


class ExpressionPrior(Settings):
    """Prototypes and region of one expression. The prototype of a neutral face has no units."""

    prototypes: tuple[Prototype, ...] = Field(min_length=1)
    region: Region
    # Share of the faces; null: all expressions are equally frequent.
    share: float | None = Field(default=None, gt=0.0, le=1.0)
    # Null: probabilities come from the prototypes. Units that are not named are rare.
    units: dict[int, UnitPrior] | None = None
    affect: AffectPrior | None = None  # null: the region is read as the central 90 % of a normal distribution
    counts: dict[str, int] = Field(default_factory=dict)  # source of records -> faces

    def probability(self, unit: int) -> float:
        """Probability that a unit is active."""
        if self.units is not None:
            return self.units[unit].probability if unit in self.units else _IN_NO_PROTOTYPE
        share = sum(unit in item.units for item in self.prototypes) / len(self.prototypes)
        return _IN_NO_PROTOTYPE + share * (_IN_PROTOTYPES - _IN_NO_PROTOTYPE)

    def axis(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation of `valence` or `arousal`."""
        if self.affect is not None:
            found: tuple[float, float] = getattr(self.affect, name)
            return found
        low, high = getattr(self.region, name)
        return (low + high) / 2, (high - low) / (2 * CENTRAL_90)


class TeacherPrior(Settings):
    """How a teacher labels each expression: its confusion matrix.

    Attributes:
        confusion: expression -> label that the teacher states -> probability, sum 1.
        counts: source of records -> expression -> label -> faces, in which a face counts by the votes for each label.
    """

    confusion: dict[str, dict[str, Annotated[float, Field(gt=0.0, le=1.0)]]]
    source: str
    counts: dict[str, dict[str, dict[str, NonNegativeFloat]]] = Field(default_factory=dict)

    @field_validator("confusion")
    @classmethod
    def _rows_sum_to_1(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for name, row in value.items():
            if abs(math.fsum(row.values()) - 1.0) > 1e-6:
                raise ValueError(f"the probabilities of '{name}' must sum to 1 (they sum to {math.fsum(row.values())})")
        return value


class FacialPriors(Settings):
    version: int  # version of the tables, recorded with results
    sources: dict[str, str]
    units: dict[int, str]  # number of an action unit -> its FACS name
    expressions: dict[str, ExpressionPrior]
    pairs: tuple[PairPrior, ...] = ()  # how often units occur together, beyond what expressions explain
    smoothing: float = Field(default=5.0, gt=0.0)  # faces by which `pairs` are smoothed
    teachers: dict[str, TeacherPrior] = Field(default_factory=dict)  # name and version -> how far to trust it
    # Exponent of the likelihood of 1, 2, ... of the teachers together: below 1 if they share errors.
    exponents: tuple[PositiveFloat, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> FacialPriors:
        for name, prior in self.expressions.items():
            named = {unit for prototype in prior.prototypes for unit in prototype.units} | set(prior.units or ())
            strays = sorted(named - set(self.units))
            if strays:
                raise ValueError(f"expression '{name}' uses action units that are missing in 'units': {strays}")
            cited = {prototype.source for prototype in prior.prototypes} | {prior.region.source}
            cited |= {unit.source for unit in (prior.units or {}).values()}
            cited |= {prior.affect.source} if prior.affect is not None else set()
            if cited - set(self.sources):
                raise ValueError(f"expression '{name}' cites {sorted(cited - set(self.sources))}, missing in 'sources'")
        for title, teacher in self.teachers.items():
            if teacher.source not in self.sources:
                raise ValueError(f"teacher '{title}' cites '{teacher.source}', missing in 'sources'")
            if teacher.confusion.keys() != self.expressions.keys():
                raise ValueError(f"teacher '{title}' must have a row for each of {', '.join(self.expressions)}")
        if len(self.exponents) != len(self.teachers):
            raise ValueError("'exponents' must have one number for each number of teachers together, from 1 to all")
        missing = sorted(set(FACIAL_UNITS) - set(self.units))
        if missing:
            raise ValueError(f"'units' must also name action units {missing}")
        return self

    def unit_name(self, unit: int) -> str:
        """The FACS name of an action unit; a general one for a number that the tables do not contain."""
        return self.units.get(unit, "facial action")

    def region(self, expression: str) -> Region:
        """Region of an expression. DataError if the tables do not contain it."""
        return self._prior(expression).region

    def agreement(self, expression: str, active: Collection[int], units: Collection[int] = FACIAL_UNITS) -> float:
        """Dice coefficient of active units with the expression's best prototype, in [0, 1]; only `units` count."""
        seen = set(active) & set(units)
        scores = []
        for prototype in self._prior(expression).prototypes:
            wanted = set(prototype.units) & set(units)
            total = len(wanted) + len(seen)
            # Without expected and active units, only a prototype without any unit agrees.
            if_empty = 1.0 if not prototype.units else 0.0
            scores.append(2 * len(wanted & seen) / total if total else if_empty)
        return max(scores)

    def expressions_of_units(
        self, active: Collection[int], units: Collection[int] = FACIAL_UNITS
    ) -> list[tuple[str, float]]:
        """Expressions that agree at all with active units, with their agreement, best first."""
        scored = [(name, self.agreement(name, active, units)) for name in self.expressions]
        return sorted((item for item in scored if item[1] > 0.0), key=lambda item: (-item[1], item[0]))

    def expressions_of_point(self, valence: float, arousal: float) -> list[str]:
        """Expressions whose region contains a point, the nearest center first."""

        found = []
        for name, prior in self.expressions.items():
            if not prior.region.distance(valence, arousal):
                center = prior.region.center()
                found.append(((center[0] - valence) ** 2 + (center[1] - arousal) ** 2, name))
        return [name for _, name in sorted(found)]

    def _prior(self, expression: str) -> ExpressionPrior:
        if expression not in self.expressions:
            hint = nearest_name(expression, list(self.expressions))
            raise DataError(f"the tables contain no expression '{expression}'{hint}")
        return self.expressions[expression]


def facial_priors(path: str | os.PathLike[str] | None = None) -> FacialPriors:
    """The tables of a JSON file, or the packaged ones (None). ConfigError lists all problems of the file."""
    return _packaged() if path is None else read_settings_file(FacialPriors, Path(path), "priors")


@cache
def _packaged() -> FacialPriors:
    return read_settings_file(FacialPriors, _PACKAGED, "priors")
