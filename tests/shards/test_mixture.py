"""Mixtures of datasets.

- Without counts an epoch has every sample of every dataset once.
- With counts every part of an epoch has about the share of each dataset, and each dataset's samples repeat in passes,
  each once per pass, across epochs; any piece is the same alone.
- Dropped samples are skipped, and the pass of their dataset goes on; a dataset of dropped samples alone is refused.
- The counts of a curriculum are those computed by hand, and impossible ratios are refused.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.errors import DataError
from lavis_emovit.shards.curriculum import Curriculum, MixtureStage
from lavis_emovit.shards.mixture import MixtureOrder
from lavis_emovit.shards.order import EpochOrder

HASHES = ("a", "b", "c")


def _mixture(sizes, epoch=0, **options):
    return MixtureOrder(HASHES[: len(sizes)], 5, epoch, [[size] for size in sizes], **options)


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=3).filter(any), epoch=st.integers(0, 3))
def test_without_counts_every_sample_appears_once(sizes, epoch):
    order = _mixture(sizes, epoch=epoch)
    assert sorted(order.keys(0, len(order))) == [(epoch, sample) for sample in range(sum(sizes))]


@given(
    sizes=st.lists(st.integers(1, 90), min_size=3, max_size=3),
    of_epochs=st.lists(st.lists(st.integers(0, 120), min_size=3, max_size=3).filter(any), min_size=1, max_size=4),
    data=st.data(),
)
def test_counts_are_exact_and_spread(sizes, of_epochs, data):
    owner = np.repeat([0, 1, 2], sizes)
    offsets = np.cumsum([0, *sizes])
    starts, keys = [0, 0, 0], []
    for epoch, counts in enumerate(of_epochs):
        order = _mixture(sizes, epoch, counts=counts, starts=starts)
        own = order.keys(0, len(order))
        found = np.array([owner[sample] for _, sample in own])
        assert len(own) == sum(counts) and np.bincount(found, minlength=3).tolist() == counts
        # Nowhere in an epoch does a dataset have three images more or fewer than its share.
        for number, count in enumerate(counts):
            expected = np.arange(1, len(own) + 1) * count / len(own)
            assert abs(np.cumsum(found == number) - expected).max() < 3
        start = data.draw(st.integers(0, len(own)))
        stop = data.draw(st.integers(start, len(own)))
        assert _mixture(sizes, epoch, counts=counts, starts=starts).keys(start, stop) == own[start:stop]
        starts = [before + count for before, count in zip(starts, counts)]
        keys += own
    for number, size in enumerate(sizes):
        own = [(own_pass, sample - offsets[number]) for own_pass, sample in keys if owner[sample] == number]
        expected = [
            (own_pass, sample)
            for own_pass in range(-(-len(own) // size))
            for sample in EpochOrder(HASHES[number], 5, own_pass, [size]).take(0, size).tolist()
        ]
        assert own == expected[: len(own)]


def test_dropped_samples_are_skipped_and_passes_go_on():
    sizes, seed = [7, 4], 5
    passes = {
        n: [EpochOrder(HASHES[n], seed, p, [size]).take(0, size).tolist() for p in range(9)]
        for n, size in enumerate(sizes)
    }
    first = _mixture(sizes, 0, counts=[5, 3])
    assert first.stops() == [5, 3]
    is_dropped = np.zeros(11, bool)
    is_dropped[[passes[0][0][5], passes[0][1][0], 7 + passes[1][0][0]]] = True
    second = _mixture(sizes, 1, counts=[5, 3], starts=[5, 3], is_dropped=is_dropped)
    found = second.keys(0, 8)
    # Of the first dataset the second of the two samples that are left of its pass, then of the next pass without its
    # first and the dropped one, wherever that is.
    own = [key for key in found if key[1] < 7]
    expected = [(0, passes[0][0][6])] + [(1, sample) for sample in passes[0][1] if not is_dropped[sample]]
    assert own == expected[:5]
    later = [(p, 7 + sample) for p in range(3) for sample in passes[1][p]][3:]
    kept = [key for key in later if not is_dropped[key[1]]]
    assert [key for key in found if key[1] >= 7] == kept[:3]
    # Positions in the passes, those of skipped samples included.
    assert second.stops() == [7 + passes[0][1].index(own[-1][1]) + 1, 3 + later.index(kept[2]) + 1]
    with pytest.raises(DataError, match="all of them are dropped"):
        _mixture(sizes, 1, counts=[5, 3], is_dropped=np.arange(11) >= 7)
    assert len(_mixture(sizes, 1, counts=[5, 0], is_dropped=np.arange(11) >= 7).keys(0, 5)) == 5


def test_positions_are_shuffled():
    order = _mixture([900, 300], counts=[900, 300])
    owners = [tuple(sample < 900 for _, sample in order.keys(first, first + 60)) for first in range(0, 1200, 60)]
    assert len(set(owners)) == 20


def test_a_curriculum_has_the_ratios_computed_by_hand():
    curriculum = Curriculum(
        [
            MixtureStage(2, (1, 0, 0)),
            MixtureStage(4, (0, 3, 1), is_linear=True),
            MixtureStage(1, (0.2, 0.2, 0.6)),
        ]
    )
    curriculum.check(3)
    # By hand: a quarter of the way from (1, 0, 0) to (0, 3/4, 1/4) is (3/4, 3/16, 1/16), and so on.
    expected = [
        [100, 0, 0],
        [100, 0, 0],
        [75, 19, 6],  # 75, 18.75, 6.25
        [50, 38, 12],  # 50, 37.5, 12.5: the first of the two halves is rounded up
        [25, 56, 19],  # 25, 56.25, 18.75
        [0, 75, 25],
        [20, 20, 60],
        [20, 20, 60],
    ]
    assert [curriculum.counts(epoch, 100) for epoch in range(8)] == expected
    assert curriculum.starts(4, 100) == [325, 57, 18]
    assert curriculum.shares(2) == [Fraction(3, 4), Fraction(3, 16), Fraction(1, 16)]


@given(
    ratios=st.lists(st.sampled_from([0, 1, 2, 5, 0.5, 0.1, 0.123457]), min_size=2, max_size=4).filter(any),
    num_samples=st.integers(1, 500),
)
def test_counts_are_the_shares_rounded(ratios, num_samples):
    counts = Curriculum([MixtureStage(1, tuple(ratios))]).counts(0, num_samples)
    assert sum(counts) == num_samples
    for count, ratio in zip(counts, ratios):
        assert abs(count - num_samples * ratio / sum(ratios)) < 1 + 1e-9
        assert not count or ratio


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ((1,), "1 ratios for 2 datasets"),
        ((1, -1), "one of them above 0, got 1, -1"),
        ((0, 0), "one of them above 0, got 0, 0"),
        ((1, float("nan")), "ratios must be 0 or more"),
    ],
)
def test_impossible_ratios_are_refused(ratios, expected):
    with pytest.raises(DataError, match=expected):
        Curriculum([MixtureStage(1, ratios)]).check(2)


def test_empty_datasets_are_refused():
    with pytest.raises(DataError, match="has no samples"):
        _mixture([5, 0], counts=[1, 1])
