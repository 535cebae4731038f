"""Properties: a second process on an output folder is refused and told who is there; a process that died leaves no
lock; faults of a folder's own files are named; relative folders start at the working directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.run_folder import RunFolder

HOLDER = """
import json, os, sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1] + "/.lock")
lock.acquire()
open(sys.argv[1] + "/.lock-owner.json", "w").write(json.dumps({"pid": os.getpid(), "host": "somewhere"}))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_has_died(recipe: Callable[..., Path], tmp_path: Path) -> None:
    config = Config.load(recipe())
    folder = tmp_path / "run"
    folder.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by process {holder.pid} on somewhere"):
            RunFolder.open(config)
        assert not (folder / "config.yaml").exists()
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with RunFolder.open(config) as opened:
        assert json.loads((folder / ".lock-owner.json").read_text())["pid"] == os.getpid()
        assert opened.config_path.exists()
    assert not (folder / ".lock-owner.json").exists()


def test_relative_folders_start_at_the_working_directory(recipe: Callable[..., Path], tmp_path: Path) -> None:
    with RunFolder.open(Config.load(recipe(output_dir="some/where"))) as folder:
        assert folder.path == tmp_path / "some" / "where"


def test_a_refusal_lets_the_lock_go(recipe: Callable[..., Path]) -> None:
    path = recipe()
    with RunFolder.open(Config.load(path)):
        pass
    with pytest.raises(ConfigError):
        RunFolder.open(Config.load(path, ["run.seed=99"]))
    with RunFolder.open(Config.load(path)):
        pass


def test_a_path_that_cannot_be_a_folder(recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run\.output_dir: .*file"):
        RunFolder.open(Config.load(recipe(output_dir="file/run")))


@pytest.mark.parametrize("text", ["run: [", "just words", "\\xff\\xfe"])
def test_a_damaged_config_is_named(recipe: Callable[..., Path], tmp_path: Path, text: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: damaged"):
        RunFolder.open(Config.load(recipe()))


def test_checkpoints_without_settings_are_refused(recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints" / "ckpt-00000003").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"checkpoints but no config\.yaml"):
        RunFolder.open(Config.load(recipe()))


def test_a_damaged_metrics_file_is_named(recipe: Callable[..., Path]) -> None:
    with RunFolder.open(Config.load(recipe())) as folder:
        assert folder.finished_metrics(with_report=False) is None
        folder.metrics_path.write_text("{")
        with pytest.raises(UserError, match=r"metrics\.json: damaged"):
            folder.finished_metrics(with_report=False)
        folder.metrics_path.write_text("{}")
        assert folder.finished_metrics(with_report=False) == {}
        assert folder.finished_metrics(with_report=True) is None
