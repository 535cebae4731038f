"""How many samples each dataset of a mixture has in each epoch: stages of ratios, one after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from lavis_emovit.errors import DataError


@dataclass(frozen=True)
class MixtureStage:
    """Epochs with one ratio.

    Attributes:
        epochs: how many.
        ratios: share of each dataset in any unit (`[3, 1]`, `[0.75, 0.25]`); 0: not in this stage.
        is_linear: the shares change in equal steps from those of the stage before; the last epoch has `ratios`.
    """

    epochs: int
    ratios: tuple[float, ...]
    is_linear: bool = False


class Curriculum:
    """The shares of each epoch; epochs after the last stage are as its last one."""

    def __init__(self, stages: Sequence[MixtureStage]):
        self.stages = tuple(stages)

    def check(self, num_datasets: int) -> None:
        """DataError for ratios that are negative, all 0, or not one per dataset."""
        for stage in self.stages:
            if len(stage.ratios) != num_datasets:
                raise DataError(f"{len(stage.ratios)} ratios for {num_datasets} datasets; give one per dataset")
            if any(not math.isfinite(ratio) or ratio < 0 for ratio in stage.ratios) or not any(stage.ratios):
                listed = ", ".join(f"{ratio:g}" for ratio in stage.ratios)
                raise DataError(f"ratios must be 0 or more, and one of them above 0, got {listed}")

    def shares(self, epoch: int) -> list[Fraction]:
        """Share of each dataset in an epoch, counted from 0; their sum is 1."""
        first, before = 0, self.stages[0]
        for stage in self.stages[:-1]:
            if epoch < first + stage.epochs:
                break
            first, before = first + stage.epochs, stage
        else:
            stage = self.stages[-1]
        own = _shares(stage.ratios)
        if not stage.is_linear:
            return own
        done = min(Fraction(1), Fraction(epoch - first + 1, stage.epochs))
        return [old + (new - old) * done for old, new in zip(_shares(before.ratios), own)]

    def counts(self, epoch: int, num_samples: int) -> list[int]:
        """Samples of each dataset in an epoch of `num_samples`, rounded by largest remainders, the first one first."""
        exact = [share * num_samples for share in self.shares(epoch)]
        counts = [math.floor(value) for value in exact]
        largest = sorted(range(len(exact)), key=lambda number: counts[number] - exact[number])
        for number in largest[: num_samples - sum(counts)]:
            counts[number] += 1
        return counts

    def starts(self, epoch: int, num_samples: int) -> list[int]:
        """Samples of each dataset in all epochs before this one."""
        earlier = [self.counts(number, num_samples) for number in range(epoch)]
        return [sum(counts) for counts in zip(*earlier)] if earlier else [0] * len(self.stages[0].ratios)


def _shares(ratios: Sequence[float]) -> list[Fraction]:
    # The decimal as written: 0.1 is one tenth, not the binary number next to it.
    exact = [Fraction(str(ratio)) for ratio in ratios]
    return [ratio / sum(exact) for ratio in exact]
