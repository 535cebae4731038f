"""Faults of the machine, each on a real process: SIGTERM and SIGUSR1 in a step and in a validation, a second signal, a
full disk at any file, SIGKILL at each file operation of a save beside the training and of one that replaces another.

Properties: after each of them the same command goes on and ends bit for bit like a run that nothing disturbed; the exit
code and the message say what happened, without a traceback; what is on the disk is whole.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import LAST_STEP, assert_same_run, exit_code_of, in_fork

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "checkpoints"))
from saved_states import make_saver, make_state

from lavis_emovit import train
from lavis_emovit.checkpoints import checkpoint as cp
from lavis_emovit.distributed.signals import EXIT_STOPPED
from lavis_emovit.evaluation.adapters.lavis_model import LavisModel
from lavis_emovit.runners.engines.torch_engine import TorchEngine
from lavis_emovit.runners.logs import read_log
from lavis_emovit.runners.run_folder import RunFolder
from lavis_emovit.train import run_recipe


def slowed(owner: type, name: str, seconds: float) -> None:
    """Make a method of a class take longer, in this process from now on."""
    real = getattr(owner, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return real(*args, **kwargs)

    setattr(owner, name, slow)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def num_steps(run: Path) -> int:
    return sum(row["event"] == "step" for row in read_log(run / "log.jsonl"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize("is_async", [True, False])
def test_a_stop_signal_finishes_the_step_and_saves(
    straight: Path, recipe: Callable[..., Path], tmp_path: Path, name: str, is_async: bool, capfd
) -> None:
    path = recipe("stopped.yaml", output_dir="stopped", save_every_steps=2, async_save=is_async)

    def command() -> int:
        slowed(TorchEngine, "train_step", 0.05)
        return train.main(["--cfg-path", str(path)])

    run = tmp_path / "stopped"
    process = in_fork(command)
    wait_for(lambda: num_steps(run) >= 7)
    os.kill(process.pid, getattr(signal, name))
    assert exit_code_of(process) == EXIT_STOPPED == 75
    message = capfd.readouterr().err
    assert f"{name}: the run stops after this step" in message and "Traceback" not in message
    done = num_steps(run)
    assert 7 <= done < LAST_STEP
    assert f"{name}: stopped after step {done} of {LAST_STEP}" in message
    saved = cp.list_checkpoints(run / "checkpoints")[-1]
    assert cp.verify_checkpoint(saved).step == done, "nothing that was done is lost"
    run_recipe(path)
    assert_same_run(straight, run)


def test_a_stop_signal_to_the_whole_process_group_lets_the_readers_finish(
    straight: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """Schedulers signal every process of a job, those that read images among them; the step needs them to its end."""
    path = recipe("stopped.yaml", output_dir="stopped", save_every_steps=2, num_workers=1)

    def command() -> int:
        os.setsid()
        slowed(TorchEngine, "train_step", 0.1)
        return train.main(["--cfg-path", str(path)])

    run = tmp_path / "stopped"
    process = in_fork(command)
    wait_for(lambda: num_steps(run) >= 2)
    os.killpg(process.pid, signal.SIGTERM)
    assert exit_code_of(process) == EXIT_STOPPED
    assert cp.verify_checkpoint(cp.list_checkpoints(run / "checkpoints")[-1]).step == num_steps(run)
    run_recipe(path)
    assert_same_run(straight, run)


def test_a_second_signal_ends_the_run_at_once(recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe(evaluate_before=False)

    def command() -> int:
        slowed(TorchEngine, "train_step", 30)
        return train.main(["--cfg-path", str(path)])

    process = in_fork(command)
    wait_for(lambda: (tmp_path / "run" / "log.jsonl").exists())
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.2)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGTERM)
    started = time.monotonic()
    assert exit_code_of(process) == -signal.SIGTERM
    assert time.monotonic() - started < 10


def test_a_stop_signal_in_a_validation_loses_only_the_validation(
    straight: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    path = recipe("stopped.yaml", output_dir="stopped", save_every_steps=2, batch_size_eval=1)
    same = recipe("same.yaml", output_dir="same", save_every_steps=2, batch_size_eval=1)
    run_recipe(same)

    def command() -> int:
        slowed(LavisModel, "score", 0.05)
        return train.main(["--cfg-path", str(path)])

    run = tmp_path / "stopped"
    process = in_fork(command)
    wait_for(lambda: num_steps(run) == 5)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    assert exit_code_of(process) == EXIT_STOPPED
    assert not any(row.get("stage") == "during" for row in read_log(run / "log.jsonl"))
    saved = cp.list_checkpoints(run / "checkpoints")[-1]
    state = json.loads((saved / "state.json").read_text())["position"]
    assert (state["step"], state["best"]) == (5, None)
    run_recipe(path)
    assert_same_run(tmp_path / "same", run)


@pytest.mark.parametrize("limit_bytes", [600, 2500, 4000, 12000])
def test_a_full_disk_is_told_and_survived(
    straight: Path, recipe: Callable[..., Path], tmp_path: Path, limit_bytes: int, capfd
) -> None:
    """No file may grow beyond a limit, as on a full disk: settings, predictions, log, checkpoints meet it in turn."""
    path = recipe("full.yaml", output_dir="full", save_every_steps=2)

    def command() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
        return train.main(["--cfg-path", str(path)])

    assert exit_code_of(in_fork(command)) == 2
    message = capfd.readouterr().err
    assert "File too large" in message and "error: " in message
    assert "Traceback" not in message
    for checkpoint in cp.list_checkpoints(tmp_path / "full" / "checkpoints"):
        cp.verify_checkpoint(checkpoint)
    run_recipe(path)
    assert_same_run(straight, tmp_path / "full")


def test_a_run_that_is_refused_early_leaves_nothing(recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe(evaluate=True, checkpoint=str(tmp_path / "nowhere"))
    assert train.main(["--cfg-path", str(path)]) == 2
    assert not (tmp_path / "run").exists()
    assert train.main(["--cfg-path", str(path), "--options", "run.checkpoint=null"]) == 0


@pytest.mark.parametrize("is_async", [True, False])
def test_killed_at_each_file_operation_of_a_save_that_replaces_another(
    tmp_path: Path, stand_in: Any, is_async: bool
) -> None:
    """The only checkpoint of a run is saved anew (its step was validated after it): one of the two is always there."""
    operation, num_kills = 1, 0
    while True:
        root = tmp_path / str(operation)
        with make_saver(root, is_async=False) as saver:
            saver.save(make_state(6))

        def replace_it(root: Path = root, operation: int = operation) -> None:
            stand_in.kill_at_file_operation(operation)
            with make_saver(root, is_async=is_async) as saver:
                saver.save(make_state(6, best=6))

        code = exit_code_of(in_fork(replace_it))
        cp.remove_leftovers(root)  # what opening the run's folder does
        found, rejected = cp.newest_checkpoint(root)
        assert found is not None and not rejected
        path, manifest = found
        assert manifest.step == 6
        assert [other.name for other in root.iterdir()] == [path.name]
        if code == 0:
            break
        assert code == -signal.SIGKILL
        num_kills += 1
        operation += 1
        shutil.rmtree(root)
    assert num_kills > 8


def test_a_folder_that_a_killed_process_held_opens_again(recipe: Callable[..., Path], tmp_path: Path) -> None:
    from lavis_emovit.runners.config import Config

    config = Config.load(recipe())

    def hold() -> None:
        RunFolder.open(config)
        os.kill(os.getpid(), signal.SIGKILL)

    assert exit_code_of(in_fork(hold)) == -signal.SIGKILL
    assert (tmp_path / "run" / ".lock-owner.json").exists()
    with RunFolder.open(config) as folder:
        folder.begin(config)
    assert not (tmp_path / "run" / ".lock-owner.json").exists()
