"""The order of samples.

- An order is a permutation, the same at every call, different for every epoch, seed and index; a stored one never
  changes.
- The slices of all ranks of a step are exactly its positions, in order, for any number of ranks and micro-batches:
  nothing is lost, duplicated or moved, and all ranks have the same number of micro-batches.
- Neighbours in the order are not neighbours in the index: labels of class-sorted input are not correlated if all shards
  are shuffled together, and by 1/W in windows of W shards.
- Shards of any sizes, also empty ones, give an exact order; reading stays inside a window of shards; any piece of an
  order is computed alone, in the same time at every position of ten million samples.
- Length buckets keep an epoch exact and its steps as long as before, group similar lengths, and stay pure.
"""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_emovit.shards.order import (
    EpochOrder,
    LengthBucketOrder,
    num_micro_batches,
    num_steps,
    step_slices,
)


def sample_order(index_hash, seed, epoch, num_samples):
    """An epoch in which all samples are shuffled together."""
    return EpochOrder(index_hash, seed, epoch, [num_samples]).take(0, num_samples)


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
    """With a changed order every resumed run would continue with other samples."""
    assert list(sample_order("abc", 42, 3, 10)) == [5, 7, 6, 9, 1, 0, 3, 4, 8, 2]
    digest = hashlib.sha256(sample_order("abc", 1, 2, 100_000).tobytes()).hexdigest()
    assert digest == "193f881027eaa073497147e143f93be6e6ea397f7f138d841b6542489d71dead"


def autocorrelation(labels):
    labels = labels - labels.mean()
    return np.mean(labels[:-1] * labels[1:]) / np.mean(labels**2)


def test_labels_of_sorted_input_are_not_correlated():
    labels = np.repeat(np.arange(8), 1000)
    # For 8,000 independent draws, 99.9 % are within 3.3 / sqrt(8000).
    assert abs(autocorrelation(labels[sample_order("abc", 0, 0, 8000)])) < 0.037
    assert abs(autocorrelation(labels[EpochOrder("abc", 0, 0, [100] * 80).take(0, 8000)])) < 0.037


def test_labels_in_windows_of_w_shards_correlate_by_1_over_w():
    labels = np.repeat(np.arange(8), 25_000)
    found = [
        autocorrelation(labels[EpochOrder("abc", seed, 0, [100] * 2000, window_blocks=16).take(0, 200_000)])
        for seed in range(3)
    ]
    assert np.mean(found) == pytest.approx(1 / 16, rel=0.25)


@given(
    sizes=st.lists(st.sampled_from([0, 1, 2, 7, 40]), min_size=1, max_size=12).filter(any),
    window=st.integers(1, 14),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_block_shuffling_is_exact(sizes, window, seed, data):
    total = sum(sizes)
    order = EpochOrder("hash", seed, 2, sizes, window)
    whole = order.take(0, total)
    assert sorted(whole) == list(range(total)) and len(order) == total
    if window >= len(sizes):
        np.testing.assert_array_equal(whole, sample_order("hash", seed, 2, total))
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    again = EpochOrder("hash", seed, 2, np.array(sizes), window)
    np.testing.assert_array_equal(again.take(start, stop), whole[start:stop])
    assert order.keys(start, stop) == [(2, sample) for sample in whole[start:stop].tolist()]
    # Positions of a window come from no more shards than it holds.
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    for first, last in zip(order.window_starts[:-1], order.window_starts[1:]):
        assert len(set(shard_of[whole[first:last]])) <= window
    with pytest.raises(IndexError):
        order.take(0, total + 1)


def test_a_jump_takes_the_same_time_anywhere():
    sizes = np.full(10_000, 1000)
    times = []
    for position in (0, 5_000_000, 9_999_990):
        start = time.process_time()
        piece = EpochOrder("hash", 0, 1, sizes).take(position, position + 10)
        times.append(time.process_time() - start)
        assert len(set(piece.tolist())) == 10
    assert max(times) < 1.0


@given(
    num_samples=st.integers(1, 150),
    step_size=st.integers(1, 20),
    window_steps=st.integers(1, 6),
    data=st.data(),
)
def test_length_buckets_are_exact(num_samples, step_size, window_steps, data):
    rng = np.random.default_rng(num_samples)
    lengths = rng.integers(1, 500, num_samples)
    order = EpochOrder("hash", 1, 4, [num_samples])
    buckets = LengthBucketOrder(order, lengths, step_size, window_steps)
    whole = buckets.keys(0, num_samples)
    assert sorted(whole) == [(4, sample) for sample in range(num_samples)] and len(buckets) == num_samples
    start = data.draw(st.integers(0, num_samples))
    assert LengthBucketOrder(order, lengths, step_size, window_steps).keys(start, num_samples) == whole[start:]
    # The steps of a window have the samples at its positions in the other order.
    size = step_size * window_steps
    for first in range(0, num_samples, size):
        last = min(first + size, num_samples)
        assert sorted(whole[first:last]) == sorted(order.keys(first, last))


def test_length_buckets_group_similar_lengths():
    lengths = np.random.default_rng(0).integers(1, 500, 3000)
    buckets = LengthBucketOrder(EpochOrder("hash", 1, 0, [3000]), lengths, 16, 32)
    found = lengths[[sample for _, sample in buckets.keys(0, 2992)]].reshape(-1, 16)
    spread = (found.max(axis=1) - found.min(axis=1)).mean()
    assert spread < 40
    # The steps are in random order, so that training does not go from short to long.
    assert abs(autocorrelation(found.mean(axis=1))) < 0.2


@given(
    num_samples=st.integers(1, 120),
    global_batch=st.integers(1, 40),
    world_size=st.integers(1, 9),
    micro_batch=st.integers(1, 12),
)
def test_slices_divide_every_step_exactly(num_samples, global_batch, world_size, micro_batch):
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
    with pytest.raises(IndexError, match="step 3 is outside the epoch of 3 steps"):
        step_slices(10, 4, 3, 0, 1, 4)
    with pytest.raises(IndexError):
        step_slices(10, 4, -1, 0, 1, 4)
