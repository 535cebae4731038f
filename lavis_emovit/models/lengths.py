"""Lengths of texts: groups of similar length, so that little padding is computed, and texts that are too long.

A group runs as one rectangle, its rows padded to the longest of the group. In addition to its tokens, every rectangle
has a fixed cost: kernels start, and a GPU reads all weights again. The groups minimise the total cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

# Cost of one more pass, in tokens. It is small on a CPU; a GPU reads every weight again, which takes as long as
# computing a few hundred tokens (weights of 2 bytes, about 300 operations per byte of bandwidth).
PASS_COST_TOKENS = {"cpu": 16, "cuda": 384}


@dataclass(frozen=True)
class PassSizes:
    """What a forward pass of a model ran over; sizes of several passes add up.

    Attributes:
        num_images: encoded images; each frame of a clip counts.
        num_reads: images read by the Q-Former, once per question.
        num_question_tokens: question tokens that the Q-Former reads, as the language model's tokenizer counts them.
        real_positions: positions of the language model without padding; of encoder and decoder, if it has both.
        run_positions: the same with padding.
        num_supervised: answer tokens, where logits are computed.
    """

    num_images: int
    num_reads: int
    num_question_tokens: int
    real_positions: tuple[int, ...]
    run_positions: tuple[int, ...]
    num_supervised: int

    def __add__(self, other: PassSizes) -> PassSizes:
        return PassSizes(
            self.num_images + other.num_images,
            self.num_reads + other.num_reads,
            self.num_question_tokens + other.num_question_tokens,
            tuple(map(sum, zip(self.real_positions, other.real_positions))),
            tuple(map(sum, zip(self.run_positions, other.run_positions))),
            self.num_supervised + other.num_supervised,
        )

    @property
    def padding_share(self) -> float:
        """Share of the language model's positions that are padding."""
        run = sum(self.run_positions)
        return 1.0 - sum(self.real_positions) / run if run else 0.0


def add_sizes(first: PassSizes | None, second: PassSizes | None) -> PassSizes | None:
    """The sum of two sizes; None counts as nothing."""
    return first + second if first is not None and second is not None else first or second


def positions_of(
    lengths: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Real positions, and positions with padding, of rows that run in groups; for each of a row's lengths."""
    real = tuple(sum(side) for side in zip(*lengths))
    longest = [(len(group), [max(side) for side in zip(*(lengths[row] for row in group))]) for group in groups]
    return real, tuple(sum(count * sides[side] for count, sides in longest) for side in range(len(real)))


def length_groups(lengths: Sequence[Sequence[int]], pass_cost_tokens: int) -> list[list[int]]:
    """Split rows into the groups with the least total cost when each is padded to its longest row.

    Rows are sorted by total length, and dynamic programming finds the cheapest split of that order: quadratic in the
    rows of a batch, which are hundreds at most.

    Args:
        lengths: of each row in tokens; several (encoder and decoder) are padded separately.
        pass_cost_tokens: cost of a group in addition to its rectangle.

    Returns:
        row numbers of each group, ascending; groups from short to long.
    """
    order = sorted(range(len(lengths)), key=lambda row: (sum(lengths[row]), row))
    best: list[tuple[float, int]] = [(0.0, 0)]  # cost of the first k rows, and the start of their last group
    for end in range(1, len(order) + 1):
        longest = [0] * len(lengths[order[0]])
        cheapest = (float("inf"), 0)
        for start in range(end - 1, -1, -1):
            longest = [max(pair) for pair in zip(longest, lengths[order[start]])]
            cost = best[start][0] + pass_cost_tokens + (end - start) * sum(longest)
            cheapest = min(cheapest, (cost, start))
        best.append(cheapest)
    groups: list[list[int]] = []
    end = len(order)
    while end:
        start = best[end][1]
        groups.insert(0, sorted(order[start:end]))
        end = start
    return groups


def pass_cost(device: torch.device) -> int:
    """Cost of one more pass on a device, in tokens."""
    return PASS_COST_TOKENS.get(device.type, PASS_COST_TOKENS["cuda"])


def in_given_order(parts: Sequence[torch.Tensor], groups: Sequence[Sequence[int]]) -> torch.Tensor:
    """Join the results of groups in the order that the rows had before grouping."""
    order = [row for group in groups for row in group]
    if len(parts) == 1 and order == sorted(order):
        return parts[0]
    places = torch.empty(len(order), dtype=torch.long)
    places[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(list(parts))[places.to(parts[0].device)]


def longer_than(tokenizer: Any, texts: Sequence[str], max_tokens: int, with_special_tokens: bool) -> list[int]:
    """Numbers of the texts with more than `max_tokens` tokens."""
    # A token covers a byte or more, so most texts do not have to be tokenised.
    long = [number for number, text in enumerate(texts) if len(text.encode()) + 2 > max_tokens]
    if not long:
        return []
    rows = tokenizer([texts[number] for number in long], add_special_tokens=with_special_tokens)["input_ids"]
    return [number for number, row in zip(long, rows) if len(row) > max_tokens]
