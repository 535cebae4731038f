"""How missing levels are asked for, when enough has been asked, and what is thrown away."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lavis_emovit.settings import Settings

LevelName = Literal["expression", "affect", "units"]
LEVELS: tuple[LevelName, ...] = ("expression", "affect", "units")

Verification = Literal["off", "rules", "doubtful", "always"]


class Limits(Settings):
    """One number for each measure of uncertainty.

    Attributes:
        expression: entropy of the votes over the logarithm of the number of classes, in [0, 1].
        affect: standard deviation of valence or arousal, whichever is larger, on their scale of [-1, 1].
        units: p (1 - p), p being the share of answers with the unit active, averaged over units; at most 0.25.
    """

    expression: float = Field(ge=0.0, le=1.0)
    affect: float = Field(ge=0.0, le=1.0)
    units: float = Field(ge=0.0, le=0.25)


class SekeSettings(Settings):
    """How missing levels are completed. The numbers are this package's own; those of the paper are not public.

    Attributes:
        n0: answers that are asked for at first.
        n_max: answers at most.
        sampling: False asks once.
        adaptive: False asks `n0` times, whatever the answers.
        prior: tell the model what the tables say about the levels that are known, and let the rules use them.
        priors: file with tables of one's own.
        enough: no more is asked for when every missing level is at or below these.
        too_much: levels above these are discarded in the end, unless the review corrects them.
        verification: `off`; `rules` only; rules and, where they or the votes leave a doubt, the model (`doubtful`);
            rules and the model for every face (`always`).
        region_tolerance: how far outside its expression's region a point may lie.
        units_margin: how much better than its own expression's another one's prototype may fit the units.
        active_from: intensity from which a unit that a person coded counts as active.
        instructions: write instructions, from coarse to fine.
        prompt_files: `answers` or `review` -> file with a prompt of one's own.
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
    def _first_is_not_above_the_most(self) -> SekeSettings:
        if self.sampling and self.adaptive and self.n0 > self.n_max:
            raise ValueError(f"n0 ({self.n0}) must not be above n_max ({self.n_max})")
        return self

    @property
    def num_first(self) -> int:
        """Answers in the first round."""
        return self.n0 if self.sampling else 1

    @property
    def num_most(self) -> int:
        """Answers at most."""
        return self.n_max if self.sampling and self.adaptive else self.num_first
