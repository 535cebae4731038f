"""Properties, on the shipped tiny weights and the drawn sample set: the quick start's recipe runs from nothing to
report; stopped in its middle and started again it ends bit for bit the same; only what is to learn has changed; a tuned
checkpoint loads through LAVIS's own loading."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent / "ranks"))

from jobs import stop_before

from lavis_emovit.paths import list_checkpoints
from lavis_emovit.runners.logs import read_log
from lavis_emovit.train import run_recipe

SMALL = (
    "datasets.emoset_sketch.build_info.images.storage=small_sketch",
    "datasets.emoset_sketch.build_info.prepare.draw.images_per_class=10",
    "run.max_epoch=2",
    "run.global_batch_size=16",
    "run.save_every_steps=2",
    "run.num_threads=1",
    "run.num_report_answers=2",
    "run.device=cpu",
    "run.keep_last=9",
)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of drawn data for all tests here."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def tune(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    monkeypatch.setenv("EMOVIT_DATA", str(data_root))
    monkeypatch.chdir(tmp_path)

    def run(name: str, *options: str) -> dict[str, Any]:
        return run_recipe("projects/emovit/quickstart.yaml", [*SMALL, f"run.output_dir={name}", *options])

    return run


def test_stopped_and_started_again_ends_the_same(tune: Callable[..., dict], tmp_path: Path) -> None:
    straight = tune("straight")
    stop_before(4, lambda: tune("stopped"))
    torch.manual_seed(123)
    assert tune("stopped") == straight
    last, other = (list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("straight", "stopped"))
    assert last.name == other.name
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (last / name).read_bytes() == (other / name).read_bytes(), name

    # From nothing to report, and only what learns has changed.
    page = (tmp_path / "straight" / "report.html").read_text()
    assert "data:image" in page
    tuned = load_file(last / "model.safetensors")
    config = OmegaConf.create({**OmegaConf.load(tmp_path / "straight" / "config.yaml").model})
    model = registry.get_model_class("emovit_tiny").from_config(config)
    assert set(tuned) == set(model.trained_parameter_names())
    assert straight["frozen_fingerprint"] == model.frozen_fingerprint()
    untuned = model.trained_state_dict()
    unchanged = {name for name, tensor in tuned.items() if torch.equal(tensor, untuned[name])}
    # Nothing reads what the last layer makes of the question's own tokens, so nothing can teach it.
    last_text_layer = {name for name in tuned if re.search(r"layer\.3\.(intermediate|output)\.", name)}
    assert unchanged <= last_text_layer

    # LAVIS's own way of loading a tuned model.
    loaded = registry.get_model_class("emovit_tiny").from_config(
        OmegaConf.merge(config, {"load_finetuned": True, "finetuned": str(last)})
    )
    for name, tensor in loaded.trained_state_dict().items():
        assert torch.equal(tensor, tuned[name]), name


@pytest.mark.slow
def test_the_command_killed_in_its_middle_ends_the_same(tune: Callable[..., dict], tmp_path: Path) -> None:
    """`python -m lavis.train` with torch's own choice of threads, ended by SIGKILL between two saves."""
    options = [*(option for option in SMALL if "num_threads" not in option), "run.max_epoch=3", "run.report=false"]

    def command(name: str) -> subprocess.Popen:
        recipe = ["--cfg-path", "projects/emovit/quickstart.yaml"]
        return subprocess.Popen(
            [sys.executable, "-m", "lavis.train", *recipe, "--options", *options, f"run.output_dir={name}"]
        )

    def num_steps(name: str) -> int:
        return sum(row["event"] == "step" for row in read_log(tmp_path / name / "log.jsonl"))

    assert command("straight").wait(900) == 0
    killed = command("killed")
    while num_steps("killed") < 5:
        assert killed.poll() is None
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "metrics.json").exists()
    assert command("killed").wait(900) == 0
    last, other = (list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("straight", "killed"))
    assert last.name == other.name
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (last / name).read_bytes() == (other / name).read_bytes(), name
    assert num_steps("straight") == num_steps("killed")


def test_evaluation_of_the_run(tune: Callable[..., dict], tmp_path: Path) -> None:
    trained = tune("trained", "run.max_epoch=1", "run.report=false")
    evaluation = run_recipe(
        "projects/emovit/eval/quickstart.yaml",
        [
            *SMALL[:2],
            "run.checkpoint=trained",
            "run.output_dir=evaluation",
            "run.num_threads=1",
            "run.batch_size_eval=3",
        ],
    )
    before, after = (
        {row["instance_id"]: row["scores"] for row in map(json.loads, (tmp_path / path).read_text().splitlines())}
        for path in ("trained/predictions/test-after.jsonl", "evaluation/predictions/test-after.jsonl")
    )
    assert before.keys() == after.keys()
    for instance_id, scores in before.items():
        assert after[instance_id] == pytest.approx(scores, abs=1e-4), "the size of a batch must not move the scores"
    assert evaluation["splits"]["test"]["after"]["num_samples"] == trained["splits"]["test"]["after"]["num_samples"] > 0
