"""Text lengths of samples, from the index.

- Pairs, longest and total agree with the records, for all kinds and for some, and for any selection of samples.
- With `max_pairs` they are upper bounds.
- The padding share agrees with a hand count.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.token_lengths import LengthBucketSettings, TokenLengths, padding_share

SETTINGS = LengthBucketSettings(chars_per_token=3.0, fixed_tokens=5)


@pytest.mark.parametrize("kinds", [None, ["conversation"], ["reasoning", "categorical"], ["description"]])
@pytest.mark.parametrize("chosen", [range(23), range(0, 23, 3), [22], [0, 1, 22], []])
def test_they_agree_with_the_records(built, kinds, chosen):
    index = built[2]
    lengths = TokenLengths.from_index(index, np.array(chosen, np.int64), SETTINGS, kinds=kinds)
    capped = TokenLengths.from_index(index, np.array(chosen, np.int64), SETTINGS, kinds=kinds, max_pairs=1)
    assert len(lengths.longest) == len(chosen)
    for position, sample in enumerate(chosen):
        tokens = [
            math.ceil((len(item.question) + len(item.answer)) / 3) + 5
            for item in ShardReader(index).read(sample).record.instructions
            if kinds is None or item.kind in kinds
        ]
        assert lengths.num_pairs[position] == len(tokens)
        assert lengths.together([position]) == len(tokens) * max(tokens, default=0)
        assert lengths.total[position] == sum(tokens)
        assert capped.together([position]) == min(1, len(tokens)) * max(tokens, default=0)


def test_the_padding_share():
    lengths = TokenLengths(np.array([1, 2, 1]), np.array([10, 20, 5]), np.array([10, 30, 5]))
    # 10 + 30 used of 3 x 20; 5 of 5.
    assert padding_share(lengths, [[0, 1], [2]]) == pytest.approx(1 - 45 / 65)
    assert padding_share(lengths, [[], [0]]) == 0.0
