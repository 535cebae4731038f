"""What questions and their images left in the attention, read by all answers to a question.

Legend: `N` questions, `G` answers to each, `P` tokens of the longest question with its image, `T` tokens of an answer
so far, `H` heads of keys, `R` heads of queries for each of them, `D` width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class SharedPrefix:
    """Keys and values of questions, once for each question; an answer has a row with its own.

    So a step of writing reads those of a question once, not for each answer, and nothing is copied for a group.

    Args:
        layers: number of a layer -> keys and values, each [N, H, P, D], padded on the left.
        is_read: what is no padding, bool [N, P].
    """

    def __init__(self, layers: Mapping[int, tuple[torch.Tensor, torch.Tensor]], is_read: torch.Tensor):
        self._layers, self._is_read = layers, is_read

    @property
    def num_tokens(self) -> int:
        """P."""
        return self._is_read.shape[1]

    def attend(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        window: int | None,
        *,
        scaling: float | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Attention [N * G, 1, H * R, D] of a layer, for the last token of each answer.

        Args:
            query: [N * G, H * R, 1, D].
            key, value: of the answers, [N * G, H, T, D].
            window: how many tokens are seen, with the own one; None for all.
        """
        keys_NHPD, values_NHPD = self._layers[module.layer_idx]
        num_questions, num_heads, num_before, width = keys_NHPD.shape
        num_rows, num_written = len(query), key.shape[2]
        scale = width**-0.5 if scaling is None else scaling
        # A question's answers stand in one matrix: [N, H, G * R, ...].
        grouped = (num_questions, -1, num_heads, query.shape[1] // num_heads)
        own_HRD = query.reshape(num_rows, num_heads, -1, width) * scale
        question_GRD = own_HRD.view(*grouped, width).transpose(1, 2).flatten(2, 3)
        before = question_GRD @ keys_NHPD.transpose(-1, -2)
        own = (own_HRD @ key.transpose(-1, -2)).view(*grouped, num_written).transpose(1, 2).flatten(2, 3)
        is_seen = self._is_read
        if window is not None:
            last = num_before + num_written - 1
            is_seen = is_seen & (torch.arange(num_before, device=is_seen.device) > last - window)
            own[..., : max(0, num_written - window)] = float("-inf")
        before = before.masked_fill(~is_seen[:, None, None], float("-inf"))
        weights = torch.cat([before, own], dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        before, own = weights.split([num_before, num_written], dim=-1)
        own_HRT = own.unflatten(2, (-1, grouped[3])).transpose(1, 2).reshape(num_rows, num_heads, -1, num_written)
        found = (before @ values_NHPD).unflatten(2, (-1, grouped[3])).transpose(1, 2)
        return (found.reshape(num_rows, num_heads, -1, width) + own_HRT @ value).reshape(num_rows, 1, -1, width)
