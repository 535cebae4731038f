"""Generation restricted to given answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lavis_emovit.models.token_tree import TokenTree


class Choices:
    """The possible answers, as a tree of their tokens; generated rows have `num_start_tokens` tokens before an answer.

    Args:
        rows: token ids of the choices.
        end_id: the token that ends an answer.

    ValueError if two choices have the same tokens.
    """

    def __init__(self, choices: Sequence[str], rows: Sequence[list[int]], end_id: int, num_start_tokens: int = 0):
        self.choices = list(choices)
        for index, row in enumerate(rows):
            if row in rows[:index]:
                other = self.choices[rows.index(row)]
                raise ValueError(f"choices {other!r} and {self.choices[index]!r} have the same tokens")
        self.longest = max(len(row) for row in rows)
        self._tree = TokenTree(rows)
        self._end = end_id
        self._num_start = num_start_tokens

    def allowed_tokens(self, _row: int, generated: torch.Tensor) -> list[int]:
        """Possible next tokens; for `prefix_allowed_tokens_fn` of transformers."""
        node = self._tree.walk(generated.tolist()[self._num_start :])
        if node is None:  # the answer has ended
            return [self._end]
        allowed = self._tree.next_tokens(node)
        return allowed if self._tree.row_ending_at(node) is None else [*allowed, self._end]

    def choice_of(self, tokens: Sequence[int]) -> str:
        """The choice with these tokens."""
        node = self._tree.walk(tokens)
        row = None if node is None else self._tree.row_ending_at(node)
        if row is None:
            raise RuntimeError(f"generation left the choices: tokens {list(tokens)}")
        return self.choices[row]
