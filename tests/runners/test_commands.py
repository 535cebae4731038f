"""The commands of training and evaluation.

Properties:
- they end with 0, with 2 and a message without traceback, or with a traceback if `--debug` is set;
- `--help` and a refused recipe load neither torch, transformers nor a family of LAVIS;
- a recipe may name models and datasets that only another package registers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lavis_emovit import evaluate, train
from lavis_emovit.errors import UserError
from lavis_emovit.launch import launch


def test_training_and_evaluation_end_with_zero(recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = str(recipe(max_epoch=1))
    assert train.main(["--cfg-path", path]) == 0
    options = ["--options", "run.output_dir=evaluation", "run.checkpoint=run"]
    assert evaluate.main(["--cfg-path", path, *options]) == 0
    trained, evaluated = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("run", "evaluation"))
    assert evaluated["splits"]["test"]["after"] == trained["splits"]["test"]["after"]


def test_options_may_be_given_more_than_once(recipe: Callable[..., Path], tmp_path: Path) -> None:
    arguments = ["--cfg-path", str(recipe()), "--options", "run.max_epoch=1", "--options", "run.output_dir=there"]
    assert train.main(arguments) == 0
    assert (tmp_path / "there" / "metrics.json").exists()


def test_user_errors_end_with_two_and_no_traceback(
    recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--cfg-path", str(recipe(init_lrr=1))]) == 2
    message = capsys.readouterr().err
    assert "run.init_lrr: unknown key (did you mean 'init_lr'?)" in message
    assert "Traceback" not in message


def test_debug_shows_the_traceback(recipe: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="init_lrr"):
        train.main(["--cfg-path", str(recipe(init_lrr=1)), "--debug"])


def test_ctrl_c_ends_with_130(
    recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run_recipe", interrupted)
    assert train.main(["--cfg-path", str(recipe())]) == 130
    assert "resume from the newest checkpoint" in capsys.readouterr().err

    # A suite has no checkpoints.
    monkeypatch.setattr(evaluate, "run_evaluation", interrupted)
    assert evaluate.main(["--cfg-path", str(recipe())]) == 130
    assert "resume after the last answer" in capsys.readouterr().err


def test_half_a_launch_is_refused(
    recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train.main(["--cfg-path", str(recipe())]) == 2
    assert "RANK is not set" in capsys.readouterr().err


def test_help_needs_no_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (train, evaluate):
        with pytest.raises(SystemExit) as end:
            command.main(["--help"])
        assert end.value.code == 0
        assert "--cfg-path" in capsys.readouterr().out


SHOW_LOADED = """
import runpy, sys
command, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(command, run_name="__main__", alter_sys=True)
finally:
    heavy = {"torch", "transformers", "numpy", "pandas", "lavis.models", "lavis.tasks", "lavis.datasets.builders"}
    print("loaded:", *sorted(heavy & set(sys.modules)))
"""


def _run_and_show_loaded(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard error, and the heavy modules that a command loaded."""
    command = [sys.executable, "-c", SHOW_LOADED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr, done.stdout.rpartition("loaded:")[2].strip()


@pytest.mark.parametrize("command", ["lavis.train", "lavis.evaluate", "lavis_emovit.train"])
def test_help_loads_nothing_heavy(command: str) -> None:
    code, error, loaded = _run_and_show_loaded(command, "--help")
    assert (code, error, loaded) == (0, "", "")


@pytest.mark.parametrize(
    ("command", "recipe_file", "options", "problems"),
    [
        ("lavis.train", "nowhere.yaml", [], ["nowhere.yaml: no such recipe file"]),
        (
            "lavis.train",
            "projects/emovit/quickstart.yaml",
            ["run.init_lrr=1", "model.prompts=x", "datasets.emoset_sketch.kindz=1", "datasets.emosett.kinds=null"],
            ["did you mean 'init_lr'", "did you mean 'prompt'", "did you mean 'kinds'", "did you mean 'emoset'"],
        ),
        (
            "lavis.train",
            "projects/emovit/quickstart.yaml",
            ["model.arch=emovit_tine", "run.task=emotion_instructions", "datasets.emoset_sketch.type=large"],
            ["did you mean 'emovit_tiny'", "did you mean 'emotion_instruction'", "no type 'large' (valid: default)"],
        ),
        (
            "lavis.evaluate",
            "projects/emovit/eval/photos.yaml",
            [
                "suite.models.emovit_tiny.arch=emovit_tine",
                "suite.benchmarks.bass.dataset=bas",
                "suite.benchmarks.oasis.config.kindz=1",
                "suite.batchsize=1",
            ],
            [
                "suite.models.emovit_tiny.arch: no model 'emovit_tine' is registered (did you mean 'emovit_tiny'?)",
                "suite.benchmarks.bass.dataset: no dataset 'bas' is registered (did you mean 'bass'?)",
                "suite.benchmarks.oasis.config.kindz: unknown key (did you mean 'kinds'?)",
                "suite.batchsize: unknown key (did you mean 'batch_size'?)",
            ],
        ),
    ],
)
def test_refused_recipe_loads_nothing_heavy(
    command: str, recipe_file: str, options: list[str], problems: list[str]
) -> None:
    arguments = ["--cfg-path", recipe_file, *(["--options", *options] if options else [])]
    code, error, loaded = _run_and_show_loaded(command, *arguments)
    assert code == 2
    assert [problem for problem in problems if problem not in error] == []
    assert set(loaded.split()) <= {"numpy"}


def test_a_place_that_cannot_be_written_to_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def run(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/out")

    assert launch(["--cfg-path", "recipe.yaml"], prog="test", description="", run=run) == 2
    assert "error: /out: Permission denied. Change the permissions there" in capsys.readouterr().err
