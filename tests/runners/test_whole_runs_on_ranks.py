"""Whole runs of two processes, from command to metrics.

Properties: a signal to one rank stops both after the same step with all saved, and the run goes on to the end of one
that nothing disturbed, on two processes bit for bit and on one with the same samples and losses; a loss that is not
finite on one rank stops both before the step and names the samples of both.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import LAST_STEP, assert_same_run, exit_code_of, in_fork
from safetensors.torch import load_file

from lavis_emovit import train
from lavis_emovit.checkpoints.checkpoint import verify_checkpoint
from lavis_emovit.distributed.signals import EXIT_STOPPED
from lavis_emovit.models.protocol import AnswerLoss
from lavis_emovit.paths import list_checkpoints
from lavis_emovit.runners.engines.torch_engine import TorchEngine
from lavis_emovit.runners.logs import read_log
from lavis_emovit.train import run_recipe

Ranks = list[multiprocessing.Process]


def start_ranks(path: Path, prepare: Callable[[int], None] = lambda rank: None) -> Ranks:
    """The training command on two processes that meet on this machine, each with everything loaded already."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def command(rank: int) -> int:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        prepare(rank)
        return train.main(["--cfg-path", str(path)])

    return [in_fork(lambda rank=rank: command(rank)) for rank in range(2)]


def finish(ranks: Ranks) -> list[int | None]:
    return [exit_code_of(process) for process in ranks]


def step_rows(run: Path) -> list[dict]:
    return [row for row in read_log(run / "log.jsonl") if row["event"] == "step"]


@pytest.fixture
def undisturbed(recipe: Callable[..., Path], tmp_path: Path) -> Path:
    assert finish(start_ranks(recipe("two.yaml", output_dir="two", save_every_steps=2, ema_decay=0.9))) == [0, 0]
    return tmp_path / "two"


def test_a_signal_to_one_rank_stops_both(
    undisturbed: Path, recipe: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = recipe("stopped.yaml", output_dir="stopped", save_every_steps=2, ema_decay=0.9)
    run = tmp_path / "stopped"

    def slow(rank: int) -> None:
        real = TorchEngine.train_step

        def train_step(self: Any, *arguments: Any) -> Any:
            time.sleep(0.1)
            return real(self, *arguments)

        TorchEngine.train_step = train_step

    ranks = start_ranks(path, slow)
    end = time.monotonic() + 60
    while len(step_rows(run)) < 6 and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(ranks[1].pid, signal.SIGTERM)
    assert finish(ranks) == [EXIT_STOPPED, EXIT_STOPPED]
    message = capfd.readouterr().err
    assert message.count("SIGTERM: stopped after step") == 1, "rank 0 alone tells it"
    done = len(step_rows(run))
    assert 6 <= done < LAST_STEP
    assert verify_checkpoint(list_checkpoints(run / "checkpoints")[-1]).step == done

    assert finish(start_ranks(path)) == [0, 0]
    assert_same_run(undisturbed, run)


def test_saved_on_two_and_gone_on_with_on_one(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Without dropout, whose random numbers are drawn by rank: the same samples, sums rounded differently."""
    settings = {"save_every_steps": 2, "lr_sched": "constant_lr", "model": {"arch": "emovit_stand_in", "dropout": 0}}
    run_recipe(recipe("one.yaml", output_dir="one", **settings))
    assert finish(start_ranks(recipe("two.yaml", output_dir="two", max_steps=7, **settings))) == [0, 0]
    (tmp_path / "two" / "metrics.json").unlink()
    run_recipe(recipe("two.yaml", output_dir="two", allow_changed=["run.max_steps"], **settings))
    one, two = step_rows(tmp_path / "one"), step_rows(tmp_path / "two")
    counts = ("step", "epoch", "num_images", "num_tokens")
    assert [[row[key] for key in counts] for row in one] == [[row[key] for key in counts] for row in two]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-5)
    weights, others = (
        load_file(list_checkpoints(tmp_path / name / "checkpoints")[-1] / "model.safetensors")
        for name in ("one", "two")
    )
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-4, atol=1e-5)


def test_not_finite_on_one_rank_stops_both_before_the_step(recipe: Callable[..., Path], tmp_path: Path, capfd) -> None:
    path = recipe(save_every_steps=1, valid_splits=[])

    def poison(rank: int) -> None:
        import stand_in

        real, calls = stand_in.StandInModel.answer_loss, [0]

        def answer_loss(self: Any, samples: dict) -> AnswerLoss:
            loss = real(self, samples)
            calls[0] += 1
            bad = rank == 1 and calls[0] == 4
            return replace(loss, loss_sum=loss.loss_sum * (float("nan") if bad else 1.0))

        stand_in.StandInModel.answer_loss = answer_loss

    assert finish(start_ranks(path, poison)) == [2, 2]
    message = capfd.readouterr().err
    assert message.count("error: step 3: loss is nan") == 1
    run = tmp_path / "run"
    facts = json.loads((run / "nonfinite.json").read_text())
    assert facts["step"] == 3
    pictures = {instance_id.split("#")[0] for instance_id in facts["instance_ids"]}
    assert len(pictures) == 5, "the samples of the whole global batch"
    last = list_checkpoints(run / "checkpoints")[-1]
    assert last.name == "ckpt-00000003"
    assert all(torch.isfinite(value).all() for value in load_file(last / "model.safetensors").values())
