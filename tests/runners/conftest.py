"""Fixtures: recipes for the stand-in model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

STAND_IN_FOLDER = Path(__file__).resolve().parent / "stand_in"
sys.path[:0] = [str(STAND_IN_FOLDER), str(STAND_IN_FOLDER.parent)]
pytest.register_assert_rewrite("runs")

RUN = {
    "task": "emotion_instruction",
    "output_dir": "run",
    "max_epoch": 3,
    "global_batch_size": 5,
    "batch_size_eval": 5,
    "init_lr": 0.05,
    "warmup_steps": 3,
    "device": "cpu",
    "seed": 3,
    "num_threads": 1,
    "keep_last": 100,
    "tensorboard": False,
    "report": False,
    "num_report_answers": 3,
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def stand_in():
    """The module with the stand-in model and dataset, registered in LAVIS."""
    import stand_in

    return stand_in


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in) -> Callable[..., Path]:
    """Writes a recipe for the stand-in model; the working directory is the test's own folder."""
    monkeypatch.chdir(tmp_path)

    def write(name: str = "recipe.yaml", model: dict | None = None, **run: object) -> Path:
        path = tmp_path / name
        values = {
            "model": model or {"arch": "emovit_stand_in"},
            "datasets": {"emo_stand_in": {}},
            "run": {**RUN, **run},
        }
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture
def straight(recipe: Callable[..., Path], tmp_path: Path) -> Path:
    """A run that nothing disturbed."""
    from lavis_emovit.train import run_recipe

    run_recipe(recipe("straight.yaml", output_dir="straight", save_every_steps=2))
    return tmp_path / "straight"
