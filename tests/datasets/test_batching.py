"""Which samples a rank takes at which step.

- Combined, the ranks' batches of an epoch are the epoch's order: the same for any number of ranks and micro-batches,
  nothing lost or duplicated, including the short last step.
- Resuming at any step yields exactly the rest of the epoch.
- The samples of a step do not depend on the number of ranks or the size of micro-batches.
- A DataLoader yields the same batches for any number of workers: for 1, 2, 3, 4 and 6 ranks with 0, 1 and 3 workers
  the samples of every step are the same.
- With a token budget no micro-batch exceeds it, except a single sample that is too long; all ranks have equally many.
- Length buckets of a dataset reduce its padding and keep everything else exact.
- Evaluation batches have every sample once, divided among ranks.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lavis_emovit.datasets.batching import GlobalBatchSampler
from lavis_emovit.datasets.collate import collate
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.shards.order import EpochOrder
from lavis_emovit.shards.token_lengths import LengthBucketSettings, TokenLengths, padding_share


def _steps(world_size=1, micro_batch=None, start_step=0, num_samples=50, global_batch=12, epoch=3):
    """Samples of each step, over all ranks."""
    samplers = [
        GlobalBatchSampler(
            EpochOrder("hash", 7, epoch, [num_samples]), global_batch, rank, world_size, micro_batch, start_step
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
def test_all_layouts_give_the_order_of_the_epoch(num_samples, global_batch, world_size, micro_batch):
    steps = _steps(world_size, micro_batch, num_samples=num_samples, global_batch=global_batch)
    assert [sample for step in steps for sample in step] == EpochOrder("hash", 7, 3, [num_samples]).take(
        0, num_samples
    ).tolist()
    assert steps == _steps(num_samples=num_samples, global_batch=global_batch)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_resuming_at_any_step_yields_the_rest_of_the_epoch(world_size):
    whole = _steps(world_size, micro_batch=2)
    for start_step in range(len(whole) + 1):
        assert _steps(world_size, micro_batch=2, start_step=start_step) == whole[start_step:]


def test_length_is_the_number_of_batches():
    for start_step in range(6):
        sampler = GlobalBatchSampler(EpochOrder("hash", 0, 0, [50]), 12, 1, 2, 4, start_step)
        assert len(sampler) == len(list(sampler))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 2, "world_size": 2},
        {"global_batch": 0},
        {"micro_batch": 0},
        {"order": EpochOrder("hash", 0, 0, [0])},
        {"start_step": 9},
    ],
)
def test_impossible_layouts_are_refused(wrong):
    layout = {"order": EpochOrder("hash", 0, 0, [50]), "global_batch": 12, **wrong}
    with pytest.raises(ValueError, match=r"cannot batch|is outside the epoch"):
        GlobalBatchSampler(**layout)


def _batches(dataset, num_workers, start_step=0):
    sampler = GlobalBatchSampler(dataset.epoch_order(1, 2, 8), 8, micro_batch=4, start_step=start_step)
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


def test_empty_shares_become_empty_batches():
    sampler = GlobalBatchSampler(EpochOrder("hash", 0, 0, [9]), 8, 0, 4, micro_batch=2)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == [2, 0]
    empty = collate([])
    assert empty["image"].shape[0] == 0
    assert empty["text_input"] == [] and empty["image_index"].dtype == torch.long


class Keys(torch.utils.data.Dataset):
    """Returns the requested key."""

    def __getitem__(self, key):
        return key


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_ranks_and_workers_never_move_a_sample(world_size, num_workers):
    sizes = [9, 0, 14, 7]
    order = EpochOrder("h", 7, 3, sizes, 2)
    expected = order.keys(0, 30)

    def loaded(start_step):
        """Keys of each step, over all ranks."""
        samplers = [
            GlobalBatchSampler(EpochOrder("h", 7, 3, sizes, 2), 12, rank, world_size, 5, start_step)
            for rank in range(world_size)
        ]
        streams = [
            iter(DataLoader(Keys(), batch_sampler=sampler, num_workers=num_workers, collate_fn=list))
            for sampler in samplers
        ]
        counts = list(samplers[0].micro_batch_counts())
        steps = [[key for stream in streams for _ in range(count) for key in next(stream)] for count in counts]
        assert all(next(stream, None) is None for stream in streams)
        return steps

    whole = loaded(0)
    assert whole == [expected[:12], expected[12:24], expected[24:]]
    if num_workers == 0:  # the start of a sampler does not depend on workers, which are slow to start
        for start_step in range(1, 4):
            assert loaded(start_step) == whole[start_step:]


@given(
    tokens=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 90)), min_size=1, max_size=60),
    global_batch=st.integers(1, 25),
    world_size=st.sampled_from([1, 2, 3, 4, 6]),
    micro_batch=st.integers(1, 12),
    max_tokens=st.integers(20, 400),
    start_step=st.integers(0, 2),
    image_tokens=st.sampled_from([0, 0, 30]),
)
def test_token_budgets_are_kept(tokens, global_batch, world_size, micro_batch, max_tokens, start_step, image_tokens):
    pairs, longest = (np.array(column) for column in zip(*tokens))
    texts = np.maximum(longest, pairs * longest - 3)
    lengths = TokenLengths(pairs, longest, texts, np.full_like(pairs, image_tokens))
    total = len(tokens)
    samplers = [
        GlobalBatchSampler(
            EpochOrder("h", 1, 0, [total]), global_batch, rank, world_size, micro_batch,
            token_lengths=lengths, max_tokens=max_tokens,
        )
        for rank in range(world_size)
    ]  # fmt: skip
    batches = [list(sampler) for sampler in samplers]
    counts = [list(sampler.micro_batch_counts()) for sampler in samplers]
    assert all(found == counts[0] for found in counts)
    assert {len(found) for found in batches} == {sum(counts[0])} == {len(samplers[0])}
    order = EpochOrder("h", 1, 0, [total]).take(0, total).tolist()
    first = 0
    for step, count in enumerate(counts[0]):
        own = [batch for found in batches for batch in found[first : first + count]]
        first += count
        numbers = [number for batch in own for _, number in batch]
        assert numbers == order[step * global_batch : (step + 1) * global_batch]
        for batch in own:
            used = [number for _, number in batch]
            assert len(used) <= micro_batch
            run = int(pairs[used].sum() * longest[used].max()) if used else 0
            if image_tokens:
                run = sum(image_tokens + int(texts[number]) for number in used)
            assert run <= max_tokens or len(used) == 1
    again = GlobalBatchSampler(
        EpochOrder("h", 1, 0, [total]), global_batch, 0, world_size, micro_batch,
        min(start_step, samplers[0].num_steps),
        token_lengths=lengths, max_tokens=max_tokens,
    )  # fmt: skip
    assert list(again) == batches[0][sum(counts[0][: min(start_step, len(counts[0]))]) :]


def test_a_token_budget_needs_lengths():
    with pytest.raises(ValueError, match="max_tokens needs token_lengths"):
        GlobalBatchSampler(EpochOrder("h", 0, 0, [9]), 3, max_tokens=10)


def test_length_buckets_of_a_dataset(index, processors):
    settings = LengthBucketSettings(window_steps=4, max_tokens=120, fixed_tokens=10, chars_per_token=1.0)
    plain = EmotionShardDataset(index, *processors[1:], seed=5)
    dataset = EmotionShardDataset(index, *processors[1:], seed=5, length_buckets=settings)
    assert plain.max_tokens is None and plain.token_lengths is None
    shares, found = [], []
    for one in (plain, dataset):
        numbers = [number for _, number in one.epoch_order(3, 1, 4).keys(0, 29)]
        found.append(sorted(numbers))
        shares.append(padding_share(dataset.token_lengths, [numbers[n : n + 4] for n in range(0, 29, 4)]))
    assert found[0] == found[1] == list(range(29))
    assert shares[1] < 0.85 * shares[0]
    sampler = GlobalBatchSampler(
        dataset.epoch_order(3, 1, 4), 4, token_lengths=dataset.token_lengths, max_tokens=dataset.max_tokens,
    )  # fmt: skip
    for batch in sampler:
        items = [dataset[key] for key in batch]
        lengths = [len(pair[0]) + len(pair[1]) + 10 for item in items for pair in item["pairs"]]
        assert len(lengths) * max(lengths) <= 120 or len(items) == 1
