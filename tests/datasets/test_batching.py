"""Which samples a rank takes at which step.

- Put together, the ranks' batches of an epoch are the epoch's order: the same for any number of ranks and
  micro-batches, nothing lost or doubled, the short last step included.
- Going on at any step yields exactly the rest of the epoch.
- The samples of a step do not depend on the number of ranks or the size of micro-batches.
- A DataLoader yields the same batches for any number of workers.
- Evaluation batches hold every sample once, shared out among ranks.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lavis_emovit.datasets.batching import GlobalBatchSampler, SequentialBatchSampler
from lavis_emovit.datasets.collate import collate
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.shards.order import sample_order


def _steps(world_size=1, micro_batch=None, start_step=0, num_samples=50, global_batch=12, epoch=3):
    """Samples of each step, the ranks' shares put together."""
    samplers = [
        GlobalBatchSampler(
            num_samples, "hash", global_batch, 7, epoch, rank, world_size, micro_batch, start_step=start_step
        )
        for rank in range(world_size)
    ]
    assert len({len(sampler) for sampler in samplers}) == 1
    streams = [iter(sampler) for sampler in samplers]
    steps = []
    for step in range(start_step, samplers[0].num_steps):
        count = samplers[0].micro_batches_in_step(step)
        keys = [key for stream in streams for _ in range(count) for key in next(stream)]
        assert all(epoch_of == epoch for epoch_of, _ in keys)
        steps.append([sample for _, sample in keys])
        assert len(keys) == samplers[0].samples_in_step(step)
    assert all(next(stream, None) is None for stream in streams)
    return steps


@given(
    num_samples=st.integers(1, 100),
    global_batch=st.integers(1, 30),
    world_size=st.integers(1, 8),
    micro_batch=st.integers(1, 10) | st.none(),
)
def test_all_layouts_give_the_epochs_order(num_samples, global_batch, world_size, micro_batch):
    steps = _steps(world_size, micro_batch, num_samples=num_samples, global_batch=global_batch)
    assert [sample for step in steps for sample in step] == list(sample_order("hash", 7, 3, num_samples))
    assert steps == _steps(num_samples=num_samples, global_batch=global_batch)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_going_on_at_any_step_is_the_rest_of_the_epoch(world_size):
    whole = _steps(world_size, micro_batch=2)
    for start_step in range(len(whole) + 1):
        assert _steps(world_size, micro_batch=2, start_step=start_step) == whole[start_step:]


def test_length_counts_what_is_yielded():
    for start_step in range(6):
        sampler = GlobalBatchSampler(50, "hash", 12, 0, 0, 1, 2, micro_batch=4, start_step=start_step)
        assert len(sampler) == len(list(sampler))


@pytest.mark.parametrize(
    "wrong",
    [{"rank": 2, "world_size": 2}, {"global_batch": 0}, {"micro_batch": 0}, {"num_samples": 0}, {"start_step": 9}],
)
def test_impossible_layouts_are_refused(wrong):
    layout = {"num_samples": 50, "index_hash": "hash", "global_batch": 12, "seed": 0, "epoch": 0, **wrong}
    with pytest.raises(ValueError, match=r"cannot batch|lies outside the epoch"):
        GlobalBatchSampler(**layout)


def _batches(dataset, num_workers, start_step=0):
    sampler = GlobalBatchSampler(len(dataset), dataset.order_hash, 8, 1, 2, micro_batch=4, start_step=start_step)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=num_workers)
    return list(loader)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_and_resume_change_nothing(index, processors):
    dataset = EmotionShardDataset(index, processors[0], processors[2], seed=5, max_pairs=1)
    expected = _batches(dataset, 0)
    for found in (_batches(dataset, 1), _batches(dataset, 3), expected[:2] + _batches(dataset, 2, start_step=1)):
        assert len(found) == len(expected)
        for one, other in zip(expected, found):
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["image_index"], other["image_index"])
            names = ("text_input", "text_output", "instance_id", "label", "record_id")
            assert [one[name] for name in names] == [other[name] for name in names]
    ids = [name for batch in expected for name in batch["record_id"]]
    assert len(set(ids)) == len(ids) == 29


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 5), st.none() | st.integers(0, 70))
def test_evaluation_takes_every_sample_once(num_samples, batch_size, world_size, limit):
    samplers = [SequentialBatchSampler(num_samples, batch_size, rank, world_size, limit) for rank in range(world_size)]
    batches = [batch for sampler in samplers for batch in sampler]
    total = num_samples if limit is None else min(limit, num_samples)
    assert [sample for batch in batches for _, sample in batch] == list(range(total))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert sum(len(sampler) for sampler in samplers) == len(batches)


def test_empty_shares_become_empty_batches():
    sampler = GlobalBatchSampler(9, "hash", 8, 0, 0, rank=0, world_size=4, micro_batch=2)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == [2, 0]
    empty = collate([])
    assert empty["image"].shape[0] == 0
    assert empty["text_input"] == [] and empty["image_index"].dtype == torch.long
