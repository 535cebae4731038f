"""Properties: a run that was stopped after any step and started again ends bit for bit like one that was not (weights,
optimizer, position, log, predictions), also when it was killed at a file operation; what a run may not go on from is
refused by name; nothing is written outside the output folder; a finished run does not train again."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lavis.common.registry import registry
from runs import LAST_STEP, assert_same_run, exit_code_of, in_fork, stop_after
from safetensors.torch import load_file

from lavis_emovit.checkpoints.checkpoint import verify_checkpoint
from lavis_emovit.checkpoints.finding import check_belongs
from lavis_emovit.errors import ConfigError, UserError, WeightsError
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.models.protocol import AnswerLoss
from lavis_emovit.paths import list_checkpoints
from lavis_emovit.runners.engines.base import NonFiniteError
from lavis_emovit.runners.logs import read_log
from lavis_emovit.train import run_recipe


def test_a_run_learns_and_its_files_are_whole(straight: Path) -> None:
    rows = read_log(straight / "log.jsonl")
    steps = [row for row in rows if row["event"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, LAST_STEP + 1))
    assert [row["epoch"] for row in steps] == [1] * 5 + [2] * 5 + [3] * 5
    assert [row["num_images"] for row in steps] == [5, 5, 5, 5, 2] * 3
    assert steps[-1]["loss"] < 0.7 * steps[0]["loss"]
    evals = [(row["split"], row["stage"], row["step"]) for row in rows if row["event"] == "eval"]
    assert evals == [
        ("test", "before", 0),
        ("val", "during", 5),
        ("val", "during", 10),
        ("val", "during", 15),
        ("test", "after", 15),
    ]
    for path in list_checkpoints(straight / "checkpoints"):
        verify_checkpoint(path)
    after = read_predictions(straight / "predictions" / "test-after.jsonl")
    assert [row.answer is not None for row in after] == [True] * 3 + [False] * 9
    assert all((straight / row.image).is_file() for row in after[:3])
    summary = json.loads((straight / "metrics.json").read_text())
    accuracy = sum(row.prediction == row.label for row in after) / len(after)
    assert summary["splits"]["test"]["after"]["accuracy"] == pytest.approx(accuracy)


def test_a_short_run_tells_how_many_steps_it_has(recipe: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run_recipe(recipe(max_steps=7, log_every_steps=1))
    told = [message.split("  ")[0] for message in caplog.messages if message.startswith("epoch ")]
    assert "epoch 1/3 5/5" in told and "epoch 2/3 2/2" in told
    assert not [message for message in told if message.startswith("epoch 2/3") and not message.endswith("/2")]


def test_what_learns_is_counted_at_the_start(recipe: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run_recipe(recipe(max_epoch=1))
    # Width 8: norm, eight places and 26 letters learn; the encoder of 48 values does not.
    learns = 2 * 8 + 8 * 8 + 26 * 8 + 26
    assert any(f"{learns} of {learns + 48 * 8 + 8} parameters are trained" in message for message in caplog.messages)


def test_a_report_is_written(recipe: Callable[..., Path], tmp_path: Path) -> None:
    run_recipe(recipe(report=True, max_epoch=1))
    page = (tmp_path / "run" / "report.html").read_text()
    accuracy = json.loads((tmp_path / "run" / "metrics.json").read_text())["splits"]["test"]["after"]["accuracy"]
    assert f"{100 * accuracy:.1f}" in page
    assert "There are no figures after tuning" not in page


def test_the_best_checkpoint_is_the_one_evaluated(recipe: Callable[..., Path], tmp_path: Path) -> None:
    run_recipe(recipe(keep_last=1))
    rows = read_log(tmp_path / "run" / "log.jsonl")
    values = {row["step"]: row["metrics"]["accuracy"] for row in rows if row.get("stage") == "during"}
    best_step = max(values, key=lambda step: (values[step], -step))
    summary = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert summary["best"] == {"step": best_step, "metric": "accuracy", "value": values[best_step]}
    assert summary["checkpoint"] == f"ckpt-{best_step:08d}"
    kept = [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert kept == sorted({f"ckpt-{best_step:08d}", f"ckpt-{LAST_STEP:08d}"})


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3, 5, 6, 8, 10, 14])
def test_stopped_and_started_again_ends_the_same(
    straight: Path, recipe: Callable[..., Path], tmp_path: Path, num_steps: int
) -> None:
    stopped = recipe("stopped.yaml", output_dir="stopped", save_every_steps=2)
    with pytest.MonkeyPatch.context() as patched:
        stop_after(patched, num_steps)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(stopped)
    torch.manual_seed(num_steps)  # whatever the process that goes on has done before
    run_recipe(stopped)
    assert_same_run(straight, tmp_path / "stopped")


def test_stopped_at_every_step_ends_the_same(straight: Path, recipe: Callable[..., Path], tmp_path: Path) -> None:
    stopped = recipe("stopped.yaml", output_dir="stopped", save_every_steps=1)
    starts = 0
    while not (tmp_path / "stopped" / "metrics.json").exists():
        starts += 1
        with pytest.MonkeyPatch.context() as patched:
            stop_after(patched, 1)
            try:
                run_recipe(stopped)
            except KeyboardInterrupt:
                continue
    assert starts > LAST_STEP / 2
    assert_same_run(straight, tmp_path / "stopped")


def test_worker_processes_and_micro_batches_change_no_sample(
    straight: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    run_recipe(recipe("workers.yaml", output_dir="workers", save_every_steps=2, num_workers=1))
    assert_same_run(straight, tmp_path / "workers")


def test_micro_batches_give_the_same_weights(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Without dropout, whose random numbers follow the forward passes, the cut into micro-batches must not matter."""
    weights, losses = [], []
    for size in (None, 2, 1):
        path = recipe(f"micro{size}.yaml", output_dir=f"micro{size}", micro_batch_size=size)
        run_recipe(path, ["model.dropout=0"])
        run = tmp_path / f"micro{size}"
        weights.append(load_file(list_checkpoints(run / "checkpoints")[-1] / "model.safetensors"))
        losses.append([row["loss"] for row in read_log(run / "log.jsonl") if row["event"] == "step"])
    for other_weights, other_losses in zip(weights[1:], losses[1:]):
        assert other_losses == pytest.approx(losses[0], rel=1e-5)
        for name, tensor in weights[0].items():
            torch.testing.assert_close(other_weights[name], tensor, rtol=1e-4, atol=1e-5)


def test_killed_at_random_moments_ends_the_same(straight: Path, recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe("killed.yaml", output_dir="killed", save_every_steps=1)
    num_kills, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        process = in_fork(lambda: run_recipe(path))
        # Longer and longer, so that the run comes to its end on a slow machine too.
        process.join(random.uniform(0.05, 0.15) * (1 + num_kills))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            num_kills += 1
        code = exit_code_of(process)
    assert code == 0
    assert num_kills > 0
    assert_same_run(straight, tmp_path / "killed")


@pytest.mark.parametrize(("num_epochs", "every"), [(2, 17), pytest.param(1, 1, marks=pytest.mark.slow)])
def test_killed_at_a_file_operation_ends_the_same(
    recipe: Callable[..., Path], tmp_path: Path, stand_in: Any, num_epochs: int, every: int
) -> None:
    """SIGKILL before the 1st, 18th, 35th ... (when slow: before every single) flush or rename of the run."""
    settings = {"save_every_steps": 2, "max_epoch": num_epochs}
    run_recipe(recipe("straight.yaml", output_dir="straight", **settings))
    path = recipe("killed.yaml", output_dir="killed", **settings)
    killed = tmp_path / "killed"
    file_operation, num_kills = 1, 0

    def run_until_killed() -> None:
        stand_in.kill_at_file_operation(file_operation)
        run_recipe(path)

    while exit_code_of(in_fork(run_until_killed)) == -signal.SIGKILL:
        num_kills += 1
        for checkpoint in list_checkpoints(killed / "checkpoints"):
            verify_checkpoint(checkpoint)
        run_recipe(path)
        assert_same_run(tmp_path / "straight", killed, last_step=5 * num_epochs)
        assert not list((killed / "checkpoints").glob("*.tmp-*"))
        shutil.rmtree(killed)
        file_operation += every
    assert num_kills > 20 * num_epochs / every


def test_a_finished_run_is_not_trained_again(
    straight: Path, recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop_after(monkeypatch, 0)
    before = (straight / "log.jsonl").read_bytes()
    with caplog.at_level("INFO"):
        run_recipe(recipe("straight.yaml", output_dir="straight", save_every_steps=2))
    assert "is already finished" in caplog.text
    assert (straight / "log.jsonl").read_bytes() == before


def test_changed_settings_are_listed_and_refused(straight: Path, recipe: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError) as refusal:
        run_recipe(recipe(output_dir="straight", init_lr=0.01, seed=4), ["model.width=16"])
    for line in ("run.init_lr: 0.05 -> 0.01", "run.seed: 3 -> 4", "model.width: 8 -> 16"):
        assert line in str(refusal.value)
    assert "keep_last" not in str(refusal.value)


def test_settings_that_change_nothing_computed_may_change(straight: Path, recipe: Callable[..., Path]) -> None:
    run_recipe(recipe(output_dir="straight", num_workers=1, log_every_steps=1, keep_last=1))


def test_an_earlier_run_is_deleted_only_when_asked_for(straight: Path, recipe: Callable[..., Path]) -> None:
    notes = straight / "notes.txt"
    notes.write_text("mine")
    path = recipe(output_dir="straight", init_lr=0.01)
    with pytest.raises(ConfigError, match=r"run\.overwrite=true"):
        run_recipe(path, ["run.resume=never"])
    run_recipe(path, ["run.resume=never", "run.overwrite=true"])
    rates = [row["lr"] for row in read_log(straight / "log.jsonl") if row["event"] == "step"]
    assert max(rates) == pytest.approx(0.01)
    assert notes.read_text() == "mine"


def test_damaged_newest_checkpoint_is_passed_over_by_name(
    straight: Path, recipe: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = recipe("stopped.yaml", output_dir="stopped", save_every_steps=2)
    with pytest.MonkeyPatch.context() as patched:
        stop_after(patched, 9)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(path)
    newest = list_checkpoints(tmp_path / "stopped" / "checkpoints")[-1]
    content = bytearray((newest / "optimizer.safetensors").read_bytes())
    content[-1] ^= 0x10
    (newest / "optimizer.safetensors").write_bytes(content)
    with caplog.at_level("INFO"):
        run_recipe(path)
    assert f"checkpoint {newest.name} is skipped" in caplog.text
    assert "optimizer.safetensors" in caplog.text
    assert "resuming from ckpt-00000006: step 6 of 15, epoch 2, next sample 5 of 22" in caplog.text
    assert_same_run(straight, tmp_path / "stopped")


def test_no_usable_checkpoint_is_refused(straight: Path, recipe: Callable[..., Path]) -> None:
    (straight / "metrics.json").unlink()
    for path in list_checkpoints(straight / "checkpoints"):
        (path / "MANIFEST.json").unlink()
    with pytest.raises(UserError, match=r"no checkpoint in .* can be used"):
        run_recipe(recipe(output_dir="straight"))


@pytest.fixture
def stopped(recipe: Callable[..., Path]) -> Path:
    """The recipe of a run that was stopped in its middle."""
    path = recipe("stopped.yaml", output_dir="stopped")
    with pytest.MonkeyPatch.context() as patched:
        stop_after(patched, 7)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(path)
    return path


def test_other_training_data_is_refused(stopped: Path, monkeypatch: pytest.MonkeyPatch, stand_in) -> None:
    real = stand_in.StandInDataset.__init__

    def changed(self: Any, split: str, num_samples: int) -> None:
        real(self, split, num_samples)
        self.index_hash = "0" * 64

    monkeypatch.setattr(stand_in.StandInDataset, "__init__", changed)
    with pytest.raises(UserError, match=r"trained on data with index .* the training data has 000000000000"):
        run_recipe(stopped)


def test_other_frozen_weights_are_refused(stopped: Path, monkeypatch: pytest.MonkeyPatch, stand_in) -> None:
    monkeypatch.setattr(stand_in.StandInModel, "frozen_fingerprint", lambda self: "f" * 64)
    with pytest.raises(WeightsError, match="trained with frozen weights"):
        run_recipe(stopped)


@pytest.mark.parametrize("changed", ["run.max_steps=4", "run.max_epoch=1", "run.global_batch_size=22"])
def test_a_run_that_ends_before_its_checkpoint_is_refused(straight: Path, recipe: Callable[..., Path], changed: str):
    path, key = recipe(output_dir="straight"), changed.partition("=")[0]
    before = {name: (straight / name).read_bytes() for name in ("config.yaml", "metrics.json", "log.jsonl")}
    with pytest.raises(
        UserError, match=r"ckpt-00000015: is at step 15, but this run ends at step [345]\. Set run\.max_"
    ):
        run_recipe(path, [changed, f"run.allow_changed={key}"])
    assert {name: (straight / name).read_bytes() for name in before} == before
    run_recipe(path)


@pytest.mark.parametrize("more", [set(), {"a_new_part"}])
@pytest.mark.parametrize("less", [0, 1])
def test_a_checkpoint_of_other_trained_parts_is_refused(straight: Path, more: set[str], less: int) -> None:
    path = list_checkpoints(straight / "checkpoints")[-1]
    names = sorted(load_file(path / "model.safetensors"))
    num_other = len(more) + less
    expected = f"trains .*{num_other} parameters differ.*Set model.trained_parts" if num_other else "frozen weights"
    facts: dict[str, Any] = {"index_hash": None, "frozen_fingerprint": "f" * 64}
    with pytest.raises(WeightsError, match=expected):
        check_belongs(path, verify_checkpoint(path), trained={*names[less:], *more}, **facts)


def test_a_named_checkpoint_is_gone_on_from(
    straight: Path, recipe: Callable[..., Path], tmp_path: Path, stopped: Path
) -> None:
    checkpoint = straight / "checkpoints" / "ckpt-00000008"
    path = recipe("fork.yaml", output_dir="fork", save_every_steps=2, resume=str(checkpoint))
    run_recipe(path)
    steps = [row["step"] for row in read_log(tmp_path / "fork" / "log.jsonl") if row["event"] == "step"]
    assert steps == list(range(9, LAST_STEP + 1))
    last, other = (list_checkpoints(run / "checkpoints")[-1] for run in (straight, tmp_path / "fork"))
    assert (last / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()

    with pytest.raises(ConfigError, match=r"run\.seed: 3 -> 9"):
        run_recipe(recipe("other.yaml", output_dir="other", seed=9, resume=str(checkpoint)))
    with pytest.raises(ConfigError, match="has later checkpoints"):
        earlier = tmp_path / "stopped" / "checkpoints" / "ckpt-00000005"
        shutil.copytree(earlier, tmp_path / "copy" / "ckpt-00000005")
        shutil.copytree(earlier, tmp_path / "stopped" / "checkpoints" / "ckpt-00000009")
        run_recipe(stopped, [f"run.resume={tmp_path / 'copy' / 'ckpt-00000005'}"])


def test_not_finite_stops_with_the_samples_named(recipe: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError) as stop:
        run_recipe(recipe(save_every_steps=1), ["model.poison_step=6"])
    facts = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert facts["step"] == 6
    assert len(facts["instance_ids"]) >= 5
    assert all(instance_id.startswith("train/") for instance_id in facts["instance_ids"])
    assert facts["instance_ids"][0] in str(stop.value)
    assert list_checkpoints(tmp_path / "run" / "checkpoints")[-1].name == "ckpt-00000006"
    assert [row["step"] for row in read_log(tmp_path / "run" / "log.jsonl") if row["event"] == "step"][-1] == 6


def test_cut_texts_are_counted_told_once_and_summed_up(
    recipe: Callable[..., Path], tmp_path: Path, stand_in, caplog: pytest.LogCaptureFixture
) -> None:
    """Pairs of every image that is the first of its batch, in micro-batches, over a start that was stopped."""
    real, firsts = stand_in.StandInModel.answer_loss, []

    def answer_loss(self: Any, samples: dict) -> AnswerLoss:
        pairs = [pair for pair, image in enumerate(samples["image_index"].tolist()) if image == 0]
        firsts.append([samples["instance_id"][pair] for pair in pairs])
        return replace(real(self, samples), noted={"num_truncated_answers": pairs, "num_unsupervised": []})

    path = recipe(micro_batch_size=2, save_every_steps=1, evaluate_before=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stand_in.StandInModel, "answer_loss", answer_loss)
        with pytest.MonkeyPatch.context() as stopped:
            stop_after(stopped, 4)
            with pytest.raises(KeyboardInterrupt):
                run_recipe(path)
        rows = [row for row in read_log(tmp_path / "run" / "log.jsonl") if row["event"] == "step"]
        # A batch of five images goes in three micro-batches of 2, 2 and 1.
        assert [row["num_truncated_answers"] for row in rows] == [
            sum(len(ids) for ids in firsts[3 * step : 3 * step + 3]) for step in range(4)
        ]
        assert {row["num_unsupervised"] for row in rows} == {0}
        (warning,) = [record.getMessage() for record in caplog.records if "first:" in record.getMessage()]
        assert "answers were cut at model.max_output_txt_len" in warning and f"(first: {firsts[0][0]};" in warning
        run_recipe(path)
    total = sum(len(ids) for ids in firsts)
    (summary,) = [record.getMessage() for record in caplog.records if "in the whole run" in record.getMessage()]
    assert f": {total} answers were cut" in summary


def test_nothing_is_written_outside_the_output_folder(recipe: Callable[..., Path], tmp_path: Path) -> None:
    library = Path(registry.get_path("library_root"))
    in_library = {path for path in library.rglob("*") if "__pycache__" not in path.parts}
    run_recipe(recipe(output_dir="deep/er/run", tensorboard=True))
    outside = {path for path in tmp_path.rglob("*") if path.is_file()} - set((tmp_path / "deep/er/run").rglob("*"))
    assert outside == {tmp_path / "recipe.yaml"}
    assert {path for path in library.rglob("*") if "__pycache__" not in path.parts} == in_library
    assert list((tmp_path / "deep/er/run/tensorboard").glob("events*"))


def test_evaluation_of_a_finished_run_repeats_its_figures(
    straight: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    trained = json.loads((straight / "metrics.json").read_text())
    best = straight / "checkpoints" / trained["checkpoint"]
    for number, checkpoint in enumerate((straight, best)):
        path = recipe(output_dir=f"evaluation{number}", evaluate=True, checkpoint=str(checkpoint))
        summary = run_recipe(path)
        assert summary["splits"]["test"] == {"after": trained["splits"]["test"]["after"]}
        assert not (tmp_path / f"evaluation{number}" / "checkpoints").exists()
    untuned = run_recipe(recipe(output_dir="untuned", evaluate=True))
    assert untuned["splits"]["test"] == {"before": trained["splits"]["test"]["before"]}


def test_an_evaluation_does_not_write_into_a_training_run(straight: Path, recipe: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="choose another folder for the evaluation"):
        run_recipe(recipe(output_dir="straight", evaluate=True))


def test_a_checkpoint_to_evaluate_that_is_not_there(recipe: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a checkpoint folder nor the folder of a run"):
        run_recipe(recipe(evaluate=True, checkpoint=str(tmp_path / "nowhere")))


def test_a_split_that_is_not_there(recipe: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="split 'dev' is not in dataset 'emo_stand_in', which has train, val, test"):
        run_recipe(recipe(valid_splits=["dev"]))
