"""Text lengths of samples, estimated from the index, for length buckets and token budgets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import Field

from lavis_emovit.settings import Settings
from lavis_emovit.shards.index import ShardIndex


class LengthBucketSettings(Settings):
    """Steps of similar text length."""

    window_steps: int = Field(default=16, ge=1)  # steps that are sorted by length together
    # Most tokens of one micro-batch, including padding; null: only the number of samples is limited.
    max_tokens: int | None = Field(default=None, ge=1)
    # For models that read an image once for all of its questions, in a row without padding: most tokens of an image,
    # which then count too. null: every question is a row, and only its text counts.
    image_tokens: int | None = Field(default=None, ge=1)
    # Characters per token; the index counts characters because it has no tokenizer.
    chars_per_token: float = Field(default=4.0, gt=0.0)
    # Tokens that every question has in addition to its text (query tokens, prompt frame).
    fixed_tokens: int = Field(default=36, ge=0)


class TokenLengths:
    """Pairs of each sample and their tokens, int [N] each.

    Attributes:
        longest: tokens of the longest pair.
        total: tokens of all pairs.
        image: tokens of the image, if its pairs share it, else 0.
    """

    def __init__(self, num_pairs: np.ndarray, longest: np.ndarray, total: np.ndarray, image: np.ndarray | None = None):
        self.num_pairs, self.longest, self.total = num_pairs, longest, total
        self.image = np.zeros_like(total) if image is None else image

    @classmethod
    def from_index(
        cls,
        index: ShardIndex,
        samples: np.ndarray,
        settings: LengthBucketSettings,
        *,
        kinds: Sequence[str] | None = None,
        max_pairs: int | None = None,
    ) -> TokenLengths:
        """Lengths of selected samples. With `max_pairs` every epoch selects other pairs; they are then upper bounds."""
        tokens = (
            np.ceil(index.columns["pair_chars"] / settings.chars_per_token).astype(np.int64) + settings.fixed_tokens
        )
        tokens[~index.pairs_of_kinds(kinds)] = 0
        sums = np.concatenate([[0], np.cumsum(tokens)])
        counts = np.concatenate([[0], np.cumsum(tokens > 0)])
        starts, stops = index.pair_starts[samples], index.pair_starts[samples + 1]
        longest = np.zeros(len(samples), np.int64)
        if len(samples):
            # Every other piece is what lies between two selected samples; a final zero keeps all bounds inside.
            bounds = np.stack([starts, stops], axis=1).reshape(-1)
            longest = np.maximum.reduceat(np.append(tokens, 0), bounds)[::2]
        num_pairs, total = counts[stops] - counts[starts], sums[stops] - sums[starts]
        longest = np.where(num_pairs > 0, longest, 0)
        if max_pairs is not None:
            kept = np.minimum(num_pairs, max_pairs)
            total = np.where(num_pairs > 0, total * kept // np.maximum(num_pairs, 1), 0)
            num_pairs = kept
        return cls(num_pairs, longest, total, np.full_like(total, settings.image_tokens or 0))

    @classmethod
    def joined(cls, parts: Sequence[TokenLengths]) -> TokenLengths:
        """The lengths of several datasets, one after the other."""
        columns = zip(*((part.num_pairs, part.longest, part.total, part.image) for part in parts))
        return cls(*map(np.concatenate, columns))

    def together(self, numbers: Sequence[int]) -> int:
        """Tokens that a micro-batch of samples takes: in one row without padding, or with every pair padded to the
        longest one."""
        chosen = list(numbers)
        if self.image[chosen].any():
            return int(self.image[chosen].sum() + self.total[chosen].sum())
        return int(self.num_pairs[chosen].sum()) * int(self.longest[chosen].max(initial=0))


def padding_share(lengths: TokenLengths, batches: Iterable[Sequence[int] | np.ndarray]) -> float:
    """Share of padding among the text tokens of batches, with every pair padded to the longest one of its batch."""
    used = padded = 0
    for batch in batches:
        numbers = np.asarray(batch, dtype=np.int64)
        if len(numbers):
            used += int(lengths.total[numbers].sum())
            padded += int(lengths.num_pairs[numbers].sum()) * int(lengths.longest[numbers].max())
    return 1.0 - used / padded if padded else 0.0
