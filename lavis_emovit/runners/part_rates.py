"""Learning rates by part of the model, and parts that rest: their names in a recipe, and one step of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import Settings, nearest_name


@dataclass(frozen=True)
class Rates:
    """Learning rates of one optimizer step.

    Attributes:
        others: of parts that `parts` does not have; None: they rest.
        parts: part -> its rate.
    """

    others: float | None
    parts: Mapping[str, float] = field(default_factory=dict)

    def of(self, part: str | None) -> float | None:
        """The rate of a part; None if it rests."""
        return self.others if part is None else self.parts.get(part, self.others)

    @property
    def highest(self) -> float:
        return max([*self.parts.values(), *([] if self.others is None else [self.others])])

    def fields(self, parts: Sequence[str]) -> dict[str, float]:
        """Columns of the log: `lr.<part>`, 0 for a part that rests."""
        return {f"lr.{part}": self.of(part) or 0.0 for part in parts}


def has_part_rates(run: RunSettings) -> bool:
    """Whether parts of the model differ in their learning rates."""
    return bool(run.part_lr or run.stages)


def part_problems(run: RunSettings, model: Settings | None) -> list[str]:
    """What is wrong with the names of parts in `run.part_lr` and `run.stages`; one line each."""
    named = {f"run.part_lr.{part}": part for part in run.part_lr}
    for number, stage in enumerate(run.stages):
        named |= {f"run.stages.{number}.parts.{part}": part for part in stage.parts}
    if not named or model is None or run.evaluate:
        return []
    known: Sequence[str] = getattr(model, "TRAINED_PARTS", ())
    learning = learning_parts(model)
    problems = []
    for key, part in named.items():
        if part not in known:
            problems.append(f"{key}: the model has no part '{part}'{nearest_name(part, list(known))}")
        elif part not in learning and getattr(model, "adapter", None) is None:  # whose parts its file names
            problems.append(f"{key}: {part} is not trained; add it to model.trained_parts or model.lora.parts")
    unnamed = [part for part in learning if part not in named.values()] if run.stages else []
    problems += [f"run.stages: {part} is trained, but no stage names it; add it, or freeze it" for part in unnamed]
    return problems


def learning_parts(model: Any) -> list[str]:
    """Parts of which a `model:` node trains anything, in the family's order."""
    lora = getattr(model, "lora", None)
    parts = {*getattr(model, "trained_parts", ()), *(lora.parts if lora is not None else ())}
    return [part for part in getattr(model, "TRAINED_PARTS", ()) if part in parts]
