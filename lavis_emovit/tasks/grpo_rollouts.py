"""Groups of sampled answers, and the replacement of groups that teach nothing.

A group whose rewards are all equal is dead: its advantages are 0. DAPO (arXiv 2503.14476) calls it dynamic sampling
to draw other questions in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lavis_emovit.models.protocol import Batch
from lavis_emovit.rewards import Score

_EQUAL = 1e-6


@dataclass(frozen=True)
class Rollouts:
    """The groups of one batch.

    Attributes:
        batch: images and N questions.
        tensors: TRL's, with a row for each answer of the groups that are trained on, a group's next to each other.
        groups: numbers of the questions of these groups.
        texts, scores: of all answers that were sampled, G for each question.
        num_cut: sampled answers that were cut.
        num_sampled_tokens: of all sampled answers.
    """

    batch: Batch
    tensors: dict[str, torch.Tensor]
    groups: Sequence[int]
    texts: Sequence[str] = ()
    scores: Sequence[Score] = ()
    num_cut: int = 0
    num_sampled_tokens: int = 0

    @property
    def num_answers(self) -> int:
        """Answers that are trained on."""
        return len(self.tensors["completion_ids"])

    @property
    def num_tokens(self) -> int:
        """Their tokens in the loss."""
        return int(self.tensors["completion_mask"].sum())

    @property
    def size(self) -> int:
        """G."""
        return self.num_answers // len(self.groups)

    def dead(self) -> list[int]:
        """Places in `groups` of those whose rewards are all equal."""
        totals = [[score.total for score in self.scores_of(group)] for group in self.groups]
        return [place for place, some in enumerate(totals) if max(some) - min(some) <= _EQUAL]

    def scores_of(self, group: int) -> Sequence[Score]:
        return self.scores[group * self.size : (group + 1) * self.size]

    def without(self, places: Sequence[int]) -> Rollouts | None:
        """The other groups; None if there are none."""
        kept = [place for place in range(len(self.groups)) if place not in set(places)]
        if not kept:
            return None
        rows = [place * self.size + number for place in kept for number in range(self.size)]
        tensors = {name: tensor[rows] for name, tensor in self.tensors.items()}
        return Rollouts(self.batch, tensors, [self.groups[place] for place in kept])


def sample_groups(
    sample: Callable[[Batch], Rollouts], batch: Batch, max_rounds: int, draw: Callable[[int], Batch]
) -> Iterator[tuple[Rollouts, Rollouts | None]]:
    """Everything that is sampled for a micro-batch, and what of it is trained on, in its order.

    Args:
        max_rounds: how often dead groups are replaced; those of the last round stay.
        draw: a number of images -> a batch of as many others, with a question about each.
    """
    for number in range(max_rounds + 1):
        sampled = sample(batch)
        dead = sampled.dead() if number < max_rounds else []
        yield sampled, sampled.without(dead) if dead else sampled
        if not dead:
            return
        batch = draw(len(dead))


def blank_rollouts(batch: Batch, end_id: int, device: torch.device) -> Rollouts:
    """One answer that says nothing and has no advantage, for a process without samples."""
    one = torch.ones(1, 1, dtype=torch.long, device=device)
    tensors: dict[str, Any] = {
        "prompt_ids": 0 * one, "prompt_mask": one, "completion_ids": end_id * one, "completion_mask": one,
        "advantages": torch.zeros(1, device=device),
    }  # fmt: skip
    return Rollouts(batch, tensors, [0])
