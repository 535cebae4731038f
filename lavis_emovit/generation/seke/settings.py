"""Settings of the completion: how often to ask, when to stop, what to discard."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lavis_emovit.settings import Settings

LevelName = Literal["expression", "affect", "units"]
LEVELS: tuple[LevelName, ...] = ("expression", "affect", "units")

Verification = Literal["off", "rules", "doubtful", "always"]


class Limits(Settings):
    """One threshold per measure of uncertainty."""

    # Entropy of the votes divided by the logarithm of the number of classes, in [0, 1].
    expression: float = Field(ge=0.0, le=1.0)
    # The larger standard deviation of valence and arousal, on their scale of [-1, 1].
    affect: float = Field(ge=0.0, le=1.0)
    # Mean over units of p (1 - p), where p is the share of answers with an active unit; at most 0.25.
    units: float = Field(ge=0.0, le=0.25)


class SekeSettings(Settings):
    """Settings of the completion. The default numbers are ours; those of the paper are not public."""

    n0: int = Field(default=3, ge=1, le=100)
    n_max: int = Field(default=8, ge=1, le=100)
    sampling: bool = True  # False requests one answer
    adaptive: bool = True  # False requests `n0` answers for every face
    prior: bool = True  # use the tables in prompts and rules
    priors: str | None = None  # JSON file of tables, such as one of `emovit facial fit`; null: the packaged ones
    # Request no further answer when every missing level is at or below these thresholds.
    enough: Limits = Limits(expression=0.25, affect=0.15, units=0.06)
    # Discard levels above these thresholds unless the review corrects them.
    too_much: Limits = Limits(expression=0.6, affect=0.4, units=0.16)
    # `off`; `rules` only; rules, and a review by the model where rules or votes are in doubt (`doubtful`); rules and a
    # review of every face (`always`).
    verification: Verification = "always"
    # Allowed distance of a point from the region of its expression.
    region_tolerance: float = Field(default=0.2, ge=0.0, le=2.0)
    # Probability of the valence or arousal, given the units, below which the two contradict each other.
    least_plausible: float = Field(default=0.05, ge=0.0, le=1.0)
    # How much better the prototype of another expression may fit the units.
    units_margin: float = Field(default=0.34, ge=0.0, le=1.0)
    active_from: float = Field(default=1.0, gt=0.0)  # lowest intensity of an active unit, for units coded by people
    instructions: bool = True
    # Also write explanations from the intensities of the units: observation, interpretation, conclusion.
    explanations: bool = False
    # `answers` or `review` -> file with a custom prompt.
    prompt_files: dict[Literal["answers", "review"], str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _n0_is_not_above_n_max(self) -> SekeSettings:
        if self.sampling and self.adaptive and self.n0 > self.n_max:
            raise ValueError(f"n0 ({self.n0}) must not be above n_max ({self.n_max})")
        return self

    @property
    def num_first(self) -> int:
        return self.n0 if self.sampling else 1

    @property
    def num_most(self) -> int:
        return self.n_max if self.sampling and self.adaptive else self.num_first
