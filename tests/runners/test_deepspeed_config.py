"""Properties: the files that come with the package are accepted, named as what they do, and found under the path of the
docs; what the recipe decides is refused in a file by both names, all of it at once, and "auto" counts as not said; what
DeepSpeed gets has the recipe's clipping; ranks and devices that do not fit are refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lavis_emovit.checkpoints.training_state import EngineState
from lavis_emovit.distributed.devices import choose_device
from lavis_emovit.distributed.processes import Launch
from lavis_emovit.errors import ConfigError, WeightsError
from lavis_emovit.runners.engines.deepspeed_config import (
    DECIDED_BY_RECIPE,
    full_config,
    offloads_optimizer,
    read_deepspeed_config,
)
from lavis_emovit.runners.engines.deepspeed_state import load_partitioned_state
from lavis_emovit.runners.engines.loss_scale import LossScale
from lavis_emovit.runners.settings import RunSettings

FOLDER = Path(__file__).resolve().parents[2] / "projects" / "emovit" / "deepspeed"
_MOMENTS = ("exp_avg", "exp_avg_sq")
SETTINGS = {"output_dir": "x", "max_epoch": 1, "global_batch_size": 8, "init_lr": 0.1}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_files_of_the_package(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # not where the checkout lies
    said = read_deepspeed_config(f"projects/emovit/deepspeed/{path.name}")
    assert path.stem.startswith(f"zero{said['zero_optimization']['stage']}")
    assert offloads_optimizer(said) == path.stem.endswith("offload")


def test_the_default_is_there() -> None:
    assert len(list(FOLDER.glob("*.json"))) == 6
    assert read_deepspeed_config(RunSettings(**SETTINGS).deepspeed_config)["zero_optimization"]["stage"] == 2


def written(tmp_path: Path, values: Any) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    return str(path)


def test_all_that_the_recipe_decides_is_refused_by_both_names(tmp_path: Path) -> None:
    values = {**dict.fromkeys(DECIDED_BY_RECIPE, 1), "zero_optimization": {"stage": 2}, "steps_per_printt": 3}
    with pytest.raises(ConfigError) as refusal:
        read_deepspeed_config(written(tmp_path, values))
    for key, where in DECIDED_BY_RECIPE.items():
        assert f"{key}: the recipe decides it with {where}" in str(refusal.value)
    assert "did you mean 'steps_per_print'" in str(refusal.value)


def test_auto_counts_as_not_said(tmp_path: Path) -> None:
    values = {
        "train_batch_size": "auto",
        "optimizer": {"type": "auto", "params": {"lr": "auto"}},
        "fp16": {"enabled": False, "loss_scale": 0},
        "zero_optimization": {"stage": 3, "reduce_bucket_size": "auto"},
    }
    assert read_deepspeed_config(written(tmp_path, values)) == {"zero_optimization": {"stage": 3}}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([], "expected an object"),
        ({}, "zero_optimization: missing"),
        ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage: expected 0, 1, 2 or 3"),
        ({"zero_optimization": {"stage": True}}, "zero_optimization.stage"),
        ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, "offload_param: needs stage 3"),
        ({"zero_optimization": {"stage": 0, "offload_optimizer": {"device": "cpu"}}}, "needs stage 1, 2 or 3"),
        ({"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme"}}}, "cpu or none"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, values: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_deepspeed_config(written(tmp_path, values))


def test_a_file_that_is_not_there_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.deepspeed_config: no file nowhere\.json"):
        read_deepspeed_config("nowhere.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        read_deepspeed_config(str(tmp_path / "broken.json"))


def test_deepspeed_gets_the_recipes_clipping() -> None:
    run = RunSettings(**SETTINGS, max_grad_norm=0.5)
    assert full_config({"zero_optimization": {"stage": 2}}, run, 4)["gradient_clipping"] == 0.5
    config = full_config({"zero_optimization": {"stage": 0}, "steps_per_print": 7}, run, 4)
    assert (config["gradient_clipping"], config["steps_per_print"], config["train_batch_size"]) == (0.0, 7, 4)


def test_optimizer_state_of_another_model_or_with_uneven_counts_is_refused() -> None:
    trained = {"a": nn.Parameter(torch.zeros(2)), "b": nn.Parameter(torch.zeros(3))}
    vectors = SimpleNamespace(
        single_partition_of_fp32_groups=[torch.zeros(5)], bit16_groups=[list(trained.values())], optimizer=None
    )
    tensors = {f"{moment}.{name}": torch.zeros_like(trained[name]) for name in trained for moment in _MOMENTS}
    with pytest.raises(WeightsError, match="state for 'c'"):
        load_partitioned_state(vectors, trained, EngineState(tensors, {"adamw_steps": {"a": 1, "b": 1, "c": 1}}))
    with pytest.raises(WeightsError, match=r"'b' has done 1 optimizer steps, others 3.*run\.engine=torch"):
        load_partitioned_state(vectors, trained, EngineState(tensors, {"adamw_steps": {"a": 3, "b": 1}}))
    wrong = {**tensors, "exp_avg.b": torch.zeros(4)}
    with pytest.raises(WeightsError, match=r"exp_avg of 'b': shape \[4\], expected \[3\]"):
        load_partitioned_state(vectors, trained, EngineState(wrong, {"adamw_steps": {"a": 2, "b": 2}}))


@pytest.mark.parametrize(
    ("name", "launch", "found", "device"),
    [
        ("auto", Launch(), 0, "cpu"),
        ("cpu", Launch(), 8, "cpu"),
        ("auto", Launch(), 8, "cuda:0"),
        ("cuda:3", Launch(), 8, "cuda:3"),
        ("cuda", Launch(11, 16, 3, 8, "torchrun"), 8, "cuda:3"),
        ("auto", Launch(11, 16, 3, 8, "slurm"), 1, "cuda:0"),  # one GPU for each task, and no other is seen
    ],
)
def test_each_rank_takes_the_gpu_of_its_number(
    monkeypatch: pytest.MonkeyPatch, name: str, launch: Launch, found: int, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    assert choose_device(name, launch) == torch.device(device)


@pytest.mark.parametrize(
    ("name", "launch", "named"),
    [
        ("cuda:1", Launch(0, 2, 0, 2, "torchrun"), r"run\.device=cuda, and each takes"),
        ("auto", Launch(3, 4, 3, 4, "torchrun"), "4 processes on this machine, torch sees 2 GPUs"),
        ("cuda:5", Launch(), "torch sees 2 GPUs"),
    ],
)
def test_more_ranks_than_gpus_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, launch: Launch, named: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=named):
        choose_device(name, launch)


def test_the_loss_scale_goes_as_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossScale, "GROWTH_INTERVAL", 3)
    own, theirs = LossScale(enabled=True), torch.amp.GradScaler("cpu")
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.0)
    theirs.set_growth_interval(3)
    for overflow in (True, False, False, False, True, True, False, False, False, False):
        theirs.scale((weight * (float("inf") if overflow else 1.0)).sum()).backward()
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        own.update(overflow=overflow)
        assert own.state() == theirs.state_dict()
    again = LossScale(enabled=True)
    again.load(theirs.state_dict())
    assert again.state() == own.state()
