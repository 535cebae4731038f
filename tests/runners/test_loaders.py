"""Properties: an epoch's steps begin where asked and hold every sample once; making a loader leaves torch's own random
numbers alone; what goes wrong in a worker process is told like anything else that goes wrong."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch

from lavis_emovit.errors import UserError
from lavis_emovit.runners.loaders import train_steps
from lavis_emovit.runners.settings import RunSettings


def make_settings(**changes: Any) -> RunSettings:
    values = {"output_dir": "x", "max_epoch": 2, "global_batch_size": 5, "init_lr": 1e-3, "device": "cpu", **changes}
    return RunSettings(**values)


def record_ids(steps: Any) -> list[list[str]]:
    return [[record_id for batch in step for record_id in batch["record_id"]] for step in steps]


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_steps_begin_where_asked(stand_in, micro_batch_size: int | None) -> None:
    dataset = stand_in.StandInDataset("train", 22)
    settings = make_settings(micro_batch_size=micro_batch_size)
    whole = record_ids(train_steps(dataset, settings, epoch=1, start_step=0))
    assert [len(step) for step in whole] == [5, 5, 5, 5, 2]
    assert sorted(chain.from_iterable(whole)) == sorted(f"train/{number}" for number in range(22))
    for start_step in range(6):
        assert record_ids(train_steps(dataset, settings, epoch=1, start_step=start_step)) == whole[start_step:]
    assert record_ids(train_steps(dataset, settings, epoch=0, start_step=0)) != whole


def test_micro_batches_are_never_larger_than_asked(stand_in) -> None:
    steps = train_steps(stand_in.StandInDataset("train", 22), make_settings(micro_batch_size=2), epoch=0, start_step=0)
    assert [len(batch["record_id"]) for batch in next(steps)] == [1, 2, 2]


def test_torchs_own_random_numbers_are_left_alone(stand_in) -> None:
    before = torch.random.get_rng_state()
    list(train_steps(stand_in.StandInDataset("train", 22), make_settings(), epoch=0, start_step=0))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_fault_is_told_alike_with_and_without_workers(
    stand_in, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    from lavis_emovit.errors import DataError

    def fails(self: Any, key: Any) -> Any:
        raise DataError("shard 3, sample 5: the picture is cut.\nBuild the shards again.")

    monkeypatch.setattr(stand_in.StandInDataset, "__getitem__", fails)
    steps = train_steps(
        stand_in.StandInDataset("train", 22), make_settings(num_workers=num_workers), epoch=0, start_step=0
    )
    with pytest.raises(UserError) as fault:
        next(steps)
    assert str(fault.value) == "shard 3, sample 5: the picture is cut.\nBuild the shards again."
