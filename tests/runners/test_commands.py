"""Properties: the commands end with 0, with 2 and a message without traceback, or with a traceback when asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lavis_emovit import evaluate, train
from lavis_emovit.errors import UserError


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


def test_debug_shows_where_it_came_from(recipe: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="init_lrr"):
        train.main(["--cfg-path", str(recipe(init_lrr=1)), "--debug"])


def test_ctrl_c_ends_with_130(
    recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run_recipe", interrupted)
    assert train.main(["--cfg-path", str(recipe())]) == 130
    assert "goes on from the newest checkpoint" in capsys.readouterr().err

    # A suite has no checkpoints.
    monkeypatch.setattr(evaluate, "run_evaluation", interrupted)
    assert evaluate.main(["--cfg-path", str(recipe())]) == 130
    assert "goes on behind the answers that are written" in capsys.readouterr().err


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
