"""The order of samples.

- An order is a permutation, the same at every call, another for every epoch, seed and index; a stored one never
  changes.
- The slices of all ranks of a step make up exactly its positions, in order, for any number of ranks and micro-batches:
  nothing is lost, doubled or moved, and all ranks have the same number of micro-batches.
- Neighbours in the order are not neighbours in the index: labels of class-sorted input show no correlation.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.shards.order import num_micro_batches, num_steps, sample_order, step_slices


@given(st.integers(0, 2**31), st.integers(0, 100), st.integers(1, 500))
def test_an_order_is_a_permutation_and_reproducible(seed, epoch, num_samples):
    order = sample_order("hash", seed, epoch, num_samples)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(num_samples))
    np.testing.assert_array_equal(order, sample_order("hash", seed, epoch, num_samples))


def test_epoch_seed_and_index_change_the_order():
    orders = [sample_order(*key, 200) for key in [("a", 0, 0), ("a", 0, 1), ("a", 1, 0), ("b", 0, 0)]]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_the_order_is_the_stored_one():
    """A changed order would send every resumed run to other samples."""
    assert list(sample_order("abc", 42, 3, 10)) == [5, 7, 6, 9, 1, 0, 3, 4, 8, 2]
    digest = hashlib.sha256(sample_order("abc", 1, 2, 100_000).tobytes()).hexdigest()
    assert digest == "193f881027eaa073497147e143f93be6e6ea397f7f138d841b6542489d71dead"


def test_labels_of_sorted_input_are_not_correlated():
    labels = np.repeat(np.arange(8), 1000)[sample_order("abc", 0, 0, 8000)] - 3.5
    correlation = np.mean(labels[:-1] * labels[1:]) / np.mean(labels**2)
    # Of 8,000 independent draws, 99.9 % lie within 3.3 / sqrt(8000).
    assert abs(correlation) < 0.037


@given(
    num_samples=st.integers(1, 120),
    global_batch=st.integers(1, 40),
    world_size=st.integers(1, 9),
    micro_batch=st.integers(1, 12),
)
def test_slices_share_out_every_step_exactly(num_samples, global_batch, world_size, micro_batch):
    taken = []
    for step in range(num_steps(num_samples, global_batch)):
        per_rank = [
            step_slices(num_samples, global_batch, step, rank, world_size, micro_batch) for rank in range(world_size)
        ]
        count = num_micro_batches(num_samples, global_batch, step, world_size, micro_batch)
        assert {len(slices) for slices in per_rank} == {count}
        sizes = [last - first for slices in per_rank for first, last in slices]
        assert max(sizes) <= micro_batch
        step_size = sum(sizes)
        assert step_size == min(global_batch, num_samples - step * global_batch)
        if step_size >= world_size * count:
            assert min(sizes) > 0
        taken += [position for slices in per_rank for first, last in slices for position in range(first, last)]
    assert taken == list(range(num_samples))


def test_steps_outside_the_epoch_are_refused():
    with pytest.raises(IndexError, match="step 3 lies outside the epoch of 3 steps"):
        step_slices(10, 4, 3, 0, 1, 4)
    with pytest.raises(IndexError):
        step_slices(10, 4, -1, 0, 1, 4)
