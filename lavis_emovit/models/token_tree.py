"""Several token rows as one tree: what rows begin with alike is there once.

Scoring computes each node once for all candidates that pass through it; constrained generation walks from the root and
may only go where a node has children.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class TokenTree:
    """The tree of a list of token rows. Nodes are numbered, parents before their children.

    Attributes:
        tokens: token id of each node.
        parents: number of the node before it, -1 for those that rows begin with.
        depths: 1 for those that rows begin with.
        paths: for each row the nodes of its tokens.
        inner: nodes that something follows, in order. Only these have to be read by a model: what a leaf is worth is
            known at its parent.
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
        """The node that tokens lead to from the root (-1), None where they lead out of the tree."""
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
        """The row whose last token a node is, None where no row ends."""
        return self._ends.get(node)

    def inner_ancestry(self) -> torch.Tensor:
        """bool [K, K] over the inner nodes: may the node of the row attend to the node of the column?

        A node attends to itself and to the nodes before it on its way from the root, all of which are inner ones.
        """
        slots = {node: slot for slot, node in enumerate(self.inner)}
        ancestry = torch.eye(len(self.inner), dtype=torch.bool)
        for node, slot in slots.items():
            if self.parents[node] >= 0:
                ancestry[slot] |= ancestry[slots[self.parents[node]]]
        return ancestry
