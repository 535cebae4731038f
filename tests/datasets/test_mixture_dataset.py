"""A mixture of datasets with the interface of one.

- Items are those of the datasets, in exact ratios, the same in every step for any number of workers and processes.
- Dropped samples leave their places to others of their dataset.
- Stages change the ratios, and may divide a dataset by the kinds of its instructions.
- Its hash changes with datasets and ratios, but not with more epochs of the last ones; faults reach the dataset they
  belong to.
- Invalid mixtures are refused.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch

from lavis_emovit.datasets.faults import FaultSettings
from lavis_emovit.datasets.mixture import EmotionMixtureDataset
from lavis_emovit.datasets.shard_dataset import EmotionShardDataset
from lavis_emovit.errors import DataError
from lavis_emovit.runners.loaders import train_steps
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.shards.curriculum import Curriculum, MixtureStage
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.token_lengths import LengthBucketSettings
from lavis_emovit.shards.writer import write_shards


@pytest.fixture(scope="module")
def other(tmp_path_factory, make_records):
    """Shards of seven more samples."""
    root = tmp_path_factory.mktemp("more")
    records = [record.model_copy(update={"id": f"more/{record.id}"}) for record in make_records(root, 7)]
    return write_shards(records, root, root / "out", samples_per_shard=3)


@pytest.fixture
def datasets(index, other, processors):
    return [EmotionShardDataset(item, *processors[1:], seed=5) for item in (index, other)]


def steps_of(dataset, epoch=0, num_workers=0, **options):
    values = {"output_dir": "nowhere", "max_epoch": 2, "global_batch_size": 8, "init_lr": 1e-3, "device": "cpu"}
    return list(
        train_steps(dataset, RunSettings(**values, num_workers=num_workers), epoch=epoch, start_step=0, **options)
    )


def ids_of(steps):
    return [record_id for step in steps for batch in step for record_id in batch["record_id"]]


def test_without_ratios_every_sample_appears_once(datasets):
    mixture = EmotionMixtureDataset(datasets)
    found = ids_of(steps_of(mixture))
    assert len(mixture) == len(found) == len(set(found)) == 36
    assert found != ids_of(steps_of(mixture, epoch=1))
    # Mixed, not one after the other.
    assert len({name.startswith("more/") for name in found[:18]}) == 2


def test_dropped_samples_leave_their_places_to_others(datasets):
    mixture = EmotionMixtureDataset(datasets, ratios=[3, 1], epoch_size=16)
    assert mixture.kept is None and mixture.stops(42, 0) == mixture.starts(1) == [12, 4]
    plain = steps_of(mixture)
    numbers = [number for step in plain for batch in step for number in batch["number"]]
    assert mixture.describe(29) == (mixture.names[1], f"{datasets[1].index.shards[0].name}, sample 0")
    is_dropped = np.zeros(36, bool)
    is_dropped[numbers[:5]] = True
    mixture.drop(is_dropped, [0, 0])
    assert mixture.kept.tolist() == sorted(set(range(36)) - set(numbers[:5]))
    again = [number for step in steps_of(mixture) for batch in step for number in batch["number"]]
    assert len(again) == 16 and sum(number >= 29 for number in again) == 4
    assert not set(again) & set(numbers[:5]) and set(numbers[5:]) <= set(again)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_ratios_are_exact_in_batches(datasets):
    mixture = EmotionMixtureDataset(datasets, ratios=[0.75, 0.25], epoch_size=64)
    steps = steps_of(mixture)
    found = ids_of(steps)
    assert len(mixture) == 64
    assert Counter(name.startswith("more/") for name in found) == {False: 48, True: 16}
    # The small set repeats more than twice, each sample once per pass.
    own = [name for name in found if name.startswith("more/")]
    assert len(set(own[:7])) == len(set(own[7:14])) == 7
    again = steps_of(mixture, num_workers=2)
    assert ids_of(again) == found
    assert all(torch.equal(a["image"], b["image"]) for one, two in zip(steps, again) for a, b in zip(one, two))


def test_stages_of_kinds_are_the_same_on_two_processes(index, datasets):
    parts = [datasets[0].of_kind("conversation"), datasets[0].of_kind("categorical"), datasets[1]]
    stages = [MixtureStage(1, (1, 0, 0)), MixtureStage(2, (0, 1, 1), is_linear=True)]
    mixture = EmotionMixtureDataset(parts, Curriculum(stages), epoch_size=40, names=("attributes", "emotion", "more"))
    names = ("attributes", "emotion", "more")
    expected = [(40, 0, 0), (20, 10, 10), (0, 20, 20)]
    for epoch, counts in enumerate(expected):
        assert mixture.counts(epoch) == dict(zip(names, counts))
        steps = steps_of(mixture, epoch)
        of_ranks = [steps_of(mixture, epoch, rank=rank, world_size=2) for rank in (0, 1)]
        assert [ids_of([step]) for step in steps] == [ids_of(pair) for pair in zip(*of_ranks)]
        found = Counter()
        for step in steps:
            for batch in step:
                assert sorted(set(batch["image_index"].tolist())) == list(range(len(batch["record_id"])))
                kinds = [kind_of(index, instance_id) for instance_id in batch["instance_id"]]
                of_images = dict(zip(batch["image_index"].tolist(), kinds))
                found.update(of_images.values())
        assert (found["conversation"], found["categorical"], found["more"]) == counts


def kind_of(index, instance_id):
    """Kind of the instruction of an instance; `more` for the second dataset."""
    if instance_id.startswith("more/"):
        return "more"
    record_id, place = instance_id.split("#")
    records = (ShardReader(index).read_record(number) for number in range(index.num_samples))
    return next(record for record in records if record.id == record_id).instructions[int(place)].kind


def test_a_kind_that_no_sample_has_is_refused(datasets):
    with pytest.raises(DataError, match="none of its samples has an instruction of the kinds explanation"):
        datasets[0].of_kind("explanation")


def test_the_hash_identifies_datasets_and_ratios(datasets):
    hashes = {
        EmotionMixtureDataset(*arguments).index_hash
        for arguments in [(datasets,), (datasets, [1, 1]), (datasets, [2, 1]), (datasets[:1],), (datasets, [2, 1], 90)]
    }
    assert len(hashes) == 5
    # As before there were ratios that change.
    parts = [[dataset.order_hash for dataset in datasets], None, None]
    assert EmotionMixtureDataset(datasets).index_hash == hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def test_a_run_can_be_extended(datasets):
    """With the same order of its earlier epochs."""

    def mixture(last, *, is_linear=False):
        stages = [MixtureStage(1, (1, 0)), MixtureStage(last, (1, 1), is_linear)]
        return EmotionMixtureDataset(datasets, Curriculum(stages), epoch_size=40)

    orders = [[mixture(last).epoch_order(5, epoch, 8).keys(0, 40) for epoch in range(3)] for last in (2, 5)]
    assert orders[0] == orders[1] and mixture(2).index_hash == mixture(5).index_hash
    assert mixture(2, is_linear=True).index_hash != mixture(5, is_linear=True).index_hash


def test_faults_reach_their_dataset(datasets, other, processors, tmp_path):
    folder = shutil.copytree(other.folder, tmp_path / "damaged")
    damaged = ShardIndex.load(folder)
    data = bytearray(damaged.local_path(0).read_bytes())
    data[int(damaged.columns["image_offset"][1]) + 9] ^= 1
    damaged.local_path(0).write_bytes(data)
    allowed = FaultSettings(max_share=0.5, max_class_share=1.0)
    second = EmotionShardDataset(damaged, *processors[1:], seed=5, faults=allowed)
    mixture = EmotionMixtureDataset([datasets[0], second])
    assert len(ids_of(steps_of(mixture))) == 36
    assert second.fault_log.counts == {"changed_bytes": 1}
    assert not datasets[0].fault_log.counts


def test_length_buckets_work_for_mixtures(index, other, processors, datasets):
    settings = LengthBucketSettings(window_steps=4, max_tokens=200)
    bucketed = [EmotionShardDataset(item, *processors[1:], seed=5, length_buckets=settings) for item in (index, other)]
    mixture = EmotionMixtureDataset(bucketed)
    assert sorted(ids_of(steps_of(mixture))) == sorted(ids_of(steps_of(EmotionMixtureDataset(datasets))))
    with pytest.raises(DataError, match="must have the same `length_buckets`"):
        EmotionMixtureDataset([datasets[0], bucketed[1]])


def test_invalid_mixtures_are_refused(datasets):
    with pytest.raises(DataError, match="needs at least one dataset"):
        EmotionMixtureDataset([])
    with pytest.raises(DataError, match="3 ratios for 2 datasets"):
        EmotionMixtureDataset(datasets, ratios=[1, 1, 1])
    with pytest.raises(DataError, match="more: no image in any epoch; raise the ratio or `epoch_size`"):
        EmotionMixtureDataset(datasets, ratios=[100, 1], epoch_size=10, names=("many", "more"))
