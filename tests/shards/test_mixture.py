"""Mixtures of datasets.

- Without ratios an epoch has every sample of every dataset once.
- With ratios every pattern has exactly each dataset's share, and each dataset's samples repeat in passes, each once per
  pass, across epochs; any piece is computed alone.
- Impossible ratios are refused.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.errors import DataError
from lavis_emovit.shards.mixture import MixtureOrder, pattern_counts
from lavis_emovit.shards.order import EpochOrder

HASHES = ("a", "b", "c")


def _mixture(sizes, ratios=None, epoch=0, **options):
    return MixtureOrder(HASHES[: len(sizes)], 5, epoch, [[size] for size in sizes], ratios=ratios, **options)


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=3).filter(any), epoch=st.integers(0, 3))
def test_without_ratios_every_sample_appears_once(sizes, epoch):
    order = _mixture(sizes, epoch=epoch)
    assert sorted(order.keys(0, len(order))) == [(epoch, sample) for sample in range(sum(sizes))]


@given(
    sizes=st.lists(st.integers(1, 90), min_size=2, max_size=3),
    weights=st.lists(st.sampled_from([1, 2, 5, 0.5, 0.1]), min_size=3, max_size=3),
    data=st.data(),
)
def test_ratios_are_exact(sizes, weights, data):
    ratios = weights[: len(sizes)]
    counts = pattern_counts(ratios, len(sizes))
    for count, ratio in zip(counts, ratios):
        assert count * sum(ratios) == pytest.approx(sum(counts) * ratio)
    orders = [_mixture(sizes, ratios, epoch, epoch_size=100) for epoch in range(3)]
    length, pattern = len(orders[0]), sum(counts)
    assert length % pattern == 0 and length >= 100
    keys = [key for order in orders for key in order.keys(0, length)]
    offsets = [sum(sizes[:number]) for number in range(len(sizes))]
    dataset_of = [number for number, size in enumerate(sizes) for _ in range(size)]
    for first in range(0, len(keys), pattern):
        found = Counter(dataset_of[sample] for _, sample in keys[first : first + pattern])
        assert [found[number] for number in range(len(sizes))] == counts
    for number, size in enumerate(sizes):
        own = [(own_pass, sample - offsets[number]) for own_pass, sample in keys if dataset_of[sample] == number]
        expected = [
            (own_pass, sample)
            for own_pass in range(-(-len(own) // size))
            for sample in EpochOrder(HASHES[number], 5, own_pass, [size]).take(0, size).tolist()
        ]
        assert own == expected[: len(own)]
    start = data.draw(st.integers(0, length))
    stop = data.draw(st.integers(start, length))
    assert _mixture(sizes, ratios, 1, epoch_size=100).keys(start, stop) == orders[1].keys(0, length)[start:stop]


def test_positions_are_shuffled_in_every_pattern():
    order = _mixture([900, 300], [3, 1])
    assert pattern_counts([0.75, 0.25], 2) == pattern_counts([3, 1], 2) == [48, 16]
    patterns = {tuple(sample < 900 for _, sample in order.keys(first, first + 64)) for first in range(0, 1152, 64)}
    assert len(patterns) == 18


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1], "1 ratios for 2 datasets"),
        ([1, 0], "ratios must be above 0, got 1, 0"),
        ([1, float("nan")], "ratios must be above 0"),
        ([0.123456789, 1], "round them to fewer digits"),
    ],
)
def test_impossible_ratios_are_refused(ratios, expected):
    with pytest.raises(DataError, match=expected):
        _mixture([5, 5], ratios)


def test_empty_datasets_are_refused():
    with pytest.raises(DataError, match="has no samples"):
        _mixture([5, 0], [1, 1])
