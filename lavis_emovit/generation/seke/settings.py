"""Settings of the completion: how often and in which form to ask, when to stop, what to discard."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lavis_emovit.settings import EachOnce, Settings

LevelName = Literal["expression", "affect", "units"]
LEVELS: tuple[LevelName, ...] = ("expression", "affect", "units")

Verification = Literal["off", "rules", "doubtful", "always"]
Variation = Literal["wording", "order", "crop", "mirror", "prior"]
VARIATIONS: tuple[Variation, ...] = ("wording", "order", "crop", "mirror", "prior")


class Limits(Settings):
    """One threshold for the uncertainty (`Spread.total`) of each item: expression, valence, arousal, each unit."""

    # Entropy of the votes divided by the logarithm of the number of classes.
    expression: float = Field(ge=0.0, le=1.0)
    # valence, arousal: standard deviation, on the scale of [-1, 1].
    valence: float = Field(ge=0.0, le=1.0)
    arousal: float = Field(ge=0.0, le=1.0)
    units: float = Field(ge=0.0, le=1.0)  # of each unit by itself: entropy of its votes in bits
    unit: dict[int, float] = Field(default_factory=dict)  # action unit -> threshold that replaces `units`

    def of(self, item: str) -> float:
        """Threshold of `expression`, `valence`, `arousal` or `unit:<number>`."""
        if (unit := item.removeprefix("unit:")) != item:
            return self.unit.get(int(unit), self.units)
        value: float = getattr(self, item)
        return value


class SekeSettings(Settings):
    """Settings of the completion. The default numbers are ours; those of the paper are not public."""

    # Names of teachers (`emovit facial teachers`) that answer in place of a chat model, in the order in which they are
    # asked: the first `n0` about every face, the others while it is uncertain.
    teachers: Annotated[tuple[str, ...], EachOnce] = ()
    teacher_reviewer: str | None = None  # one more teacher that reviews blindly
    n0: int = Field(default=4, ge=1, le=100)
    n_max: int = Field(default=8, ge=1, le=100)
    sampling: bool = True  # False requests one answer
    adaptive: bool = True  # False requests `n0` answers for every face
    # In how many forms (views) a face is asked about; the answers take turns.
    num_views: int = Field(default=4, ge=1, le=32)
    # What differs between the views. Empty: all answers share one prompt.
    vary: Annotated[tuple[Variation, ...], EachOnce] = VARIATIONS
    prior: bool = True  # use the tables in prompts and rules
    priors: str | None = None  # JSON file of tables, such as one of `emovit facial fit`; null: the packaged ones
    # Request no further answer about an item when it is at or below its threshold.
    enough: Limits = Limits(expression=0.25, valence=0.15, arousal=0.15, units=0.75)
    # Discard items above these thresholds unless the review corrects them.
    too_much: Limits = Limits(expression=0.6, valence=0.4, arousal=0.4, units=0.9)
    # Error rate of kept values that `--check` fits `too_much` for; an error of valence or arousal is above 0.2.
    max_error: float = Field(default=0.1, gt=0.0, lt=1.0)
    # `off`; `rules` only; rules, and a review by the model where rules or votes are in doubt (`doubtful`); rules and a
    # review of every face (`always`).
    verification: Verification = "always"
    # What the reviewer sees: the `proposal` that it keeps, corrects or discards; or only the face (`blind`): it answers
    # the question without tables, and items on which it differs are rejected.
    review: Literal["proposal", "blind"] = "proposal"
    # Difference of valence or arousal up to which a blind reviewer agrees.
    blind_tolerance: float = Field(default=0.3, ge=0.0, le=2.0)
    # How often `n0` more answers about rejected items are requested before they are discarded. They count together with
    # all earlier ones, so asking again cannot select a wanted answer.
    resamples: int = Field(default=0, ge=0, le=10)
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
    # `answers` or `review` -> file with a custom prompt. A custom prompt for answers has no other wordings.
    prompt_files: dict[Literal["answers", "review"], str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _teachers_can_answer(self) -> SekeSettings:
        if self.teacher_reviewer is not None:
            if not self.teachers or self.teacher_reviewer in self.teachers:
                raise ValueError("teacher_reviewer must be another teacher than those of `teachers`, which it reviews")
            if self.review != "blind":
                raise ValueError("a teacher cannot read a proposal, so its review is blind; set review to `blind`")
        if self.teachers and self.resamples:
            raise ValueError("teachers always give the same answer, so set resamples to 0")
        return self

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
