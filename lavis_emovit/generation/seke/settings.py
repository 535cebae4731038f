"""Settings of the completion: how often to ask, when to stop, what to discard."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lavis_emovit.settings import Settings

LevelName = Literal["expression", "affect", "units"]
LEVELS: tuple[LevelName, ...] = ("expression", "affect", "units")

Verification = Literal["off", "rules", "doubtful", "always"]


class Limits(Settings):
    """One threshold per measure of uncertainty.

    Attributes:
        expression: entropy of the votes divided by the logarithm of the number of classes, in [0, 1].
        affect: the larger standard deviation of valence and arousal, on their scale of [-1, 1].
        units: mean over units of p (1 - p), where p is the share of answers with an active unit; at most 0.25.
    """

    expression: float = Field(ge=0.0, le=1.0)
    affect: float = Field(ge=0.0, le=1.0)
    units: float = Field(ge=0.0, le=0.25)


class SekeSettings(Settings):
    """Settings of the completion. The default numbers are ours; those of the paper are not public.

    Attributes:
        n0: answers in the first round.
        n_max: highest number of answers.
        sampling: False requests one answer.
        adaptive: False requests `n0` answers for every face.
        prior: use the tables in prompts and rules.
        priors: file with custom tables.
        enough: request no further answer when every missing level is at or below these thresholds.
        too_much: discard levels above these thresholds unless the review corrects them.
        verification: `off`; `rules` only; rules, and a review by the model where rules or votes are in doubt
            (`doubtful`); rules and a review of every face (`always`).
        region_tolerance: allowed distance of a point from the region of its expression.
        units_margin: how much better the prototype of another expression may fit the units.
        active_from: lowest intensity of an active unit, for units coded by people.
        instructions: write instructions, from coarse to fine.
        prompt_files: `answers` or `review` -> file with a custom prompt.
    """

    n0: int = Field(default=3, ge=1, le=100)
    n_max: int = Field(default=8, ge=1, le=100)
    sampling: bool = True
    adaptive: bool = True
    prior: bool = True
    priors: str | None = None
    enough: Limits = Limits(expression=0.25, affect=0.15, units=0.06)
    too_much: Limits = Limits(expression=0.6, affect=0.4, units=0.16)
    verification: Verification = "always"
    region_tolerance: float = Field(default=0.2, ge=0.0, le=2.0)
    units_margin: float = Field(default=0.34, ge=0.0, le=1.0)
    active_from: float = Field(default=1.0, gt=0.0)
    instructions: bool = True
    prompt_files: dict[Literal["answers", "review"], str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _n0_is_not_above_n_max(self) -> SekeSettings:
        if self.sampling and self.adaptive and self.n0 > self.n_max:
            raise ValueError(f"n0 ({self.n0}) must not be above n_max ({self.n_max})")
        return self

    @property
    def num_first(self) -> int:
        """Number of answers in the first round."""
        return self.n0 if self.sampling else 1

    @property
    def num_most(self) -> int:
        """Highest number of answers."""
        return self.n_max if self.sampling and self.adaptive else self.num_first
