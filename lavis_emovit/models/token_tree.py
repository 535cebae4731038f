"""Token rows as a tree, in which common beginnings exist once.

Scoring computes each node once for all candidates that share it; constrained generation walks the tree from the root.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class TokenTree:
    """The tree of a list of token rows. Nodes are numbered, parents before their children.

    Attributes:
        tokens: token id of each node.
        parents: number of the node before it, -1 for first tokens.
        depths: 1 for first tokens.
        paths: for each row the nodes of its tokens.
        inner: nodes with children, in order. A model reads only these, because a leaf is predicted at its parent.
    """

    def __init__(self, rows: Sequence[Sequence[int]]):
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.paths: list[list[int]] = []
        self._children: dict[int, dict[int, int]] = {-1: {}}
        for row in rows:
            node = -1
            path = []
            for token in row:
                node = self._child(node, token)
                path.append(node)
            self.paths.append(path)
        self.inner = [node for node in range(len(self.tokens)) if self._children[node]]
        self._ends = {path[-1]: row for row, path in enumerate(self.paths) if path}

    def _child(self, parent: int, token: int) -> int:
        children = self._children[parent]
        if token not in children:
            node = children[token] = len(self.tokens)
            self.tokens.append(token)
            self.parents.append(parent)
            self.depths.append(1 if parent < 0 else self.depths[parent] + 1)
            self._children[node] = {}
        return children[token]

    def walk(self, tokens: Sequence[int]) -> int | None:
        """The node at the end of tokens from the root (-1), or None if they are not in the tree."""
        node = -1
        for token in tokens:
            following = self._children[node].get(token)
            if following is None:
                return None
            node = following
        return node

    def next_tokens(self, node: int) -> list[int]:
        """Tokens that may follow a node."""
        return list(self._children[node])

    def row_ending_at(self, node: int) -> int | None:
        """The row whose last token a node is, or None."""
        return self._ends.get(node)

    def inner_ancestry(self) -> torch.Tensor:
        """bool [K, K] over the inner nodes: whether the row's node attends to the column's, itself or an ancestor."""
        slots = {node: slot for slot, node in enumerate(self.inner)}
        ancestry = torch.eye(len(self.inner), dtype=torch.bool)
        for node, slot in slots.items():
            if self.parents[node] >= 0:
                ancestry[slot] |= ancestry[slots[self.parents[node]]]
        return ancestry
