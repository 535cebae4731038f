"""Properties of what a recipe may ask of training: each setting does what it says on a whole run, and a run with all of
them that is stopped at any step and started again ends bit for bit the same; what a recipe asks for is in the log."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from runs import assert_same_run, stop_after
from safetensors.torch import load_file

from lavis_emovit.errors import ConfigError
from lavis_emovit.models.protocol import AnswerLoss
from lavis_emovit.paths import list_checkpoints
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.evaluator import Evaluator
from lavis_emovit.runners.logs import read_log
from lavis_emovit.train import run_recipe

EVERYTHING = {
    "ema_decay": 0.8,
    "eval_every_steps": 4,
    "eval_every_epochs": 2,
    "save_every_steps": 3,
    "max_steps": 13,
    "micro_batch_size": 2,
    "lr_sched": "linear_warmup_linear_lr",
    "valid_splits": ["val", "test"],
    "best_metric": "calibration.brier",
    "keep_last": 2,
}


def rows(run: Path, event: str) -> list[dict]:
    return [row for row in read_log(run / "log.jsonl") if row["event"] == event]


@pytest.mark.parametrize("every", [1, 5])
def test_everything_at_once_stopped_and_started_again(recipe: Callable[..., Path], tmp_path: Path, every: int) -> None:
    run_recipe(recipe("straight.yaml", output_dir="straight", **EVERYTHING))
    path = recipe("stopped.yaml", output_dir="stopped", **{**EVERYTHING, "save_every_steps": every})
    for _ in range(100):
        with pytest.MonkeyPatch.context() as patched:
            stop_after(patched, max(every, 2))
            try:
                run_recipe(path)
                break
            except KeyboardInterrupt:
                torch.manual_seed(1)
    assert_same_run(tmp_path / "straight", tmp_path / "stopped", last_step=13)
    validations = [
        (row["step"], row["epoch"]) for row in rows(tmp_path / "stopped", "eval") if row["stage"] == "during"
    ]
    # Every 4 steps, at the end of every second epoch of 5, and at the end; two splits each.
    assert validations == [p for p in [(4, 0.8), (8, 1.6), (10, 2), (12, 2.4), (13, 2.6)] for _ in range(2)]


@pytest.mark.parametrize("micro_batch", [14, 15, 16])
def test_stopped_between_micro_batches_goes_back_to_the_last_save(
    recipe: Callable[..., Path], tmp_path: Path, stand_in: Any, micro_batch: int
) -> None:
    """A step has three micro-batches, the last of an epoch one: the 14th begins step 6, which follows on a save."""
    settings = {"micro_batch_size": 2, "save_every_steps": 5, "ema_decay": 0.9}
    run_recipe(recipe("straight.yaml", output_dir="straight", **settings))
    path = recipe("stopped.yaml", output_dir="stopped", **settings)
    real, calls = stand_in.StandInModel.answer_loss, [0]

    def answer_loss(self: Any, samples: dict) -> AnswerLoss:
        calls[0] += 1
        if calls[0] == micro_batch:
            raise KeyboardInterrupt
        return real(self, samples)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stand_in.StandInModel, "answer_loss", answer_loss)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(path)
    assert [row["step"] for row in rows(tmp_path / "stopped", "step")][-1] == 5
    run_recipe(path)
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")


def test_the_average_is_evaluated_saved_and_what_training_does_not_see(
    recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """The moving average of saved weights, worked out here, is what a checkpoint's model is; training is as without."""
    run_recipe(recipe("plain.yaml", output_dir="plain", save_every_steps=1, valid_splits=[]))
    run_recipe(recipe("ema.yaml", output_dir="ema", save_every_steps=1, valid_splits=[], ema_decay=0.6))
    plain, averaged = (list_checkpoints(tmp_path / name / "checkpoints") for name in ("plain", "ema"))
    stand_in = sys.modules["stand_in"].StandInModel(8, 0.2)
    expected = {name: value.double() for name, value in stand_in.trained_state_dict().items()}
    for step, (path, with_average) in enumerate(zip(plain, averaged)):
        weights = load_file(path / "model.safetensors")
        raw = load_file(with_average / "model_raw.safetensors")
        decay = min(0.6, (1 + step) / (10 + step))
        for name, value in expected.items():
            assert torch.equal(raw[name], weights[name]), "the average must not touch the training"
            expected[name] = decay * value + (1 - decay) * weights[name].double()
        for name, value in load_file(with_average / "model.safetensors").items():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    # The last evaluation is that of the average: an evaluation of the checkpoint by itself gives the same figures.
    tuned = json.loads((tmp_path / "ema" / "metrics.json").read_text())["splits"]["test"]["after"]
    other = json.loads((tmp_path / "plain" / "metrics.json").read_text())["splits"]["test"]["after"]
    again = run_recipe(recipe("evaluation.yaml", output_dir="evaluation", evaluate=True, checkpoint=str(averaged[-1])))
    assert again["splits"]["test"]["after"] == tuned
    assert tuned["calibration"] != other["calibration"]


def metrics_that_give(values: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the validations of a run have these accuracies, one after the other."""
    real, left = Evaluator.evaluate, list(values)

    def evaluate(self: Any, benchmark: Any, stage: str, when: str) -> dict:
        metrics = real(self, benchmark, stage, when)
        return {**metrics, "accuracy": left.pop(0)} if stage == "during" else metrics

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)


@pytest.mark.parametrize(
    ("mode", "values", "best_step", "last_step"),
    [
        ("auto", [0.5, 0.6, 0.6, 0.4, 0.9, 0.9, 0.9], 4, 8),  # an equal value is no better one: steps 6 and 8 are not
        ("min", [0.5, 0.6, 0.4, 0.4, 0.3, 0.5, 0.5], 10, 14),
        ("max", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], 14, 15),
    ],
)
def test_early_end_by_patience(
    recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    values: list[float],
    best_step: int,
    last_step: int,
) -> None:
    metrics_that_give([*values, 0.0 if mode != "min" else 1.0], monkeypatch)
    settings = {"eval_every_steps": 2, "early_stop_patience": 2, "best_mode": mode, "keep_last": 1}
    summary = run_recipe(recipe(**settings))
    assert summary["best"]["step"] == best_step
    assert summary["step"] == last_step
    assert summary["checkpoint"] == f"ckpt-{best_step:08d}"


@pytest.mark.parametrize(("name", "wanted"), [("macro_f1", max), ("calibration.ece", min), ("num_invalid", min)])
def test_any_number_chooses_the_best(
    recipe: Callable[..., Path], tmp_path: Path, name: str, wanted: Callable[..., Any]
) -> None:
    summary = run_recipe(recipe(best_metric=name))
    values = {}
    for row in rows(tmp_path / "run", "eval"):
        value = row["metrics"]
        for key in name.split("."):
            value = value[key]
        if row["stage"] == "during":
            values[row["step"]] = value
    best = wanted(values.values())
    first = min(step for step, value in values.items() if value == best)
    assert summary["best"] == {"step": first, "metric": name, "value": best}


def test_a_metric_that_is_none_is_refused_before_anything_is_trained(
    recipe: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"run\.best_metric: no number 'makro_f1' .*did you mean 'macro_f1'"):
        run_recipe(recipe(best_metric="makro_f1"))
    assert not (tmp_path / "run").exists()


def test_a_changed_setting_goes_on_when_allowed(recipe: Callable[..., Path], tmp_path: Path, caplog) -> None:
    path = recipe(save_every_steps=1, valid_splits=[])
    with pytest.MonkeyPatch.context() as patched:
        stop_after(patched, 6)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(path)
    run_recipe(path, ["run.lr_sched=constant_lr", "run.init_lr=0.02", "run.allow_changed=run.lr_sched,run.init_lr"])
    rates = {row["step"]: row["lr"] for row in rows(tmp_path / "run", "step")}
    assert len(rates) == 15
    assert rates[6] != 0.02 and {rates[step] for step in range(7, 16)} == {0.02}
    assert "run.init_lr: 0.05 -> 0.02" in caplog.text
    assert "init_lr: 0.02" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_finished_run_continues_with_an_allowed_change(recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe()
    before = run_recipe(path)
    longer = ["run.max_epoch=4", "run.allow_changed=run.max_epoch"]
    after = run_recipe(path, longer)
    steps = [row["step"] for row in rows(tmp_path / "run", "step")]
    assert steps == list(range(1, 21))
    assert (tmp_path / "run" / "checkpoints" / "ckpt-00000020").is_dir() and before != after
    assert run_recipe(path, longer) == after, "finished with the new settings"


def test_a_loss_out_of_line_is_flagged(
    recipe: Callable[..., Path], tmp_path: Path, stand_in, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """One batch of step 26 has ten times the loss; the run is stopped just before, so the window is read back."""
    real = stand_in.StandInModel.answer_loss
    path = recipe(max_epoch=6, save_every_steps=25, valid_splits=[], init_lr=1e-4, warmup_steps=0)
    seen = [0]

    def answer_loss(self: Any, samples: dict) -> AnswerLoss:
        seen[0] += 1
        loss = real(self, samples)
        return replace(loss, loss_sum=loss.loss_sum * 10) if seen[0] == 26 else loss

    monkeypatch.setattr(stand_in.StandInModel, "answer_loss", answer_loss)
    with pytest.MonkeyPatch.context() as patched:
        stop_after(patched, 25)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(path)
    run_recipe(path)
    assert [row["step"] for row in rows(tmp_path / "run", "step") if row.get("loss_spike")] == [26]
    assert "step 26: loss" in caplog.text and "out of line" in caplog.text


def test_wandb_gets_the_numbers_and_goes_on_under_one_id(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict] = []
    logged: list[dict] = []
    finished: list[bool] = []

    def init(**kwargs: Any) -> Any:
        started.append(kwargs)
        return SimpleNamespace(
            log=logged.append, finish=lambda: finished.append(True), define_metric=lambda *args, **kwargs: None
        )

    module = ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    path = recipe(wandb=True, wandb_project="feelings", save_every_steps=2)
    with pytest.MonkeyPatch.context() as patched:
        stop_after(patched, 4)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(path)
    run_recipe(path)
    assert [start["id"] for start in started] == [started[0]["id"]] * 2
    assert {start["project"] for start in started} == {"feelings"}
    assert started[0]["config"]["run"]["init_lr"] == 0.05
    steps = [row["step"] for row in logged if "train/loss" in row]
    assert steps == [1, 2, 3, 4, *range(5, 16)]
    assert any("eval/val/accuracy" in row for row in logged)
    assert finished == [True, True]


@pytest.mark.parametrize(
    ("package", "changes", "words"),
    [
        ("wandb", {"run": {"wandb": True}}, r"run\.wandb: the package wandb is not installed: pip install wandb"),
        ("deepspeed", {"run": {"engine": "deepspeed"}}, r"run\.engine: .*lavis-emovit\[deepspeed\]"),
        ("peft", {"model": {"lora": {"parts": ["language_model"]}}}, r"model\.lora: .*lavis-emovit\[lora\]"),
        (
            "bitsandbytes",
            {"model": {"frozen_precision": "nf4"}},
            r"frozen_precision: .*lavis-emovit\[quantize\]",
        ),
    ],
)
def test_missing_extras_are_told_before_a_model_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, changes: dict[str, Any], words: str
) -> None:
    values: dict[str, Any] = {
        "model": {"arch": "emovit_tiny", **changes.get("model", {})},
        "datasets": {"emoset_sketch": {}},
        "run": {"output_dir": "x", "max_epoch": 1, "global_batch_size": 2, "init_lr": 1e-3, **changes.get("run", {})},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=words):
        Config.load(tmp_path / "recipe.yaml")
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    Config.load(tmp_path / "recipe.yaml")


def test_compiling_what_a_model_does_not_have_is_refused(recipe: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"run\.compile: this model has no part 'qformer'"):
        run_recipe(recipe(compile=["qformer"]))
