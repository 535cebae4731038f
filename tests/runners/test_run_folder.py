"""Properties: a start that never began leaves nothing and deletes nothing; changed settings are allowed by name or node
and refused otherwise; a second process on an output folder is refused and told who is there; a process that died leaves
no lock; faults of a folder's own files are named; relative folders start at the working directory."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.runners.changes import allowed_changes
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
        opened.begin(config)
        assert opened.config_path.exists()
    assert not (folder / ".lock-owner.json").exists()


def test_relative_folders_start_at_the_working_directory(recipe: Callable[..., Path], tmp_path: Path) -> None:
    with RunFolder.open(Config.load(recipe(output_dir="some/where"))) as folder:
        assert folder.path == tmp_path / "some" / "where"


def test_a_refusal_lets_the_lock_go(recipe: Callable[..., Path]) -> None:
    path = recipe()
    with RunFolder.open(Config.load(path)) as folder:
        folder.begin(Config.load(path))
    with pytest.raises(ConfigError):
        RunFolder.open(Config.load(path, ["run.seed=99"]))
    with RunFolder.open(Config.load(path)):
        pass


def test_a_start_that_never_began_leaves_nothing(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Refused for its weights or data, a run must not stand in the way of the one that is put right."""
    with RunFolder.open(Config.load(recipe(output_dir="deep/er/run"))):
        assert (tmp_path / "deep/er/run/.lock").exists()
    assert not (tmp_path / "deep").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with RunFolder.open(Config.load(recipe(output_dir="mine"))):
        pass
    assert [path.name for path in (tmp_path / "mine").iterdir() if path.name != ".lock"] == ["notes.txt"]


def test_an_earlier_run_is_not_deleted_by_a_start_that_never_began(recipe: Callable[..., Path]) -> None:
    config = Config.load(recipe())
    with RunFolder.open(config) as folder:
        folder.begin(config)
        folder.metrics_path.write_text("{}")
    again = Config.load(recipe(), ["run.seed=99", "run.resume=never", "run.overwrite=true"])
    with RunFolder.open(again) as folder:
        assert folder.finished_metrics(with_report=False) is None, "the run that is to be deleted is not this one"
    assert folder.metrics_path.exists() and "seed: 3" in folder.config_path.read_text()
    with RunFolder.open(again) as folder:
        folder.begin(again)
    assert not folder.metrics_path.exists() and "seed: 99" in folder.config_path.read_text()


def test_changes_are_allowed_by_name_or_by_node(recipe: Callable[..., Path]) -> None:
    path = recipe()
    with RunFolder.open(Config.load(path)) as folder:
        folder.begin(Config.load(path))
    changed = ["run.init_lr=0.01", "model.width=16", "model.dropout=0.5"]
    with pytest.raises(ConfigError) as refusal:
        RunFolder.open(Config.load(path, [*changed, "run.allow_changed=[model.width,run.init_lr]"]))
    # The suggestion holds as it is, so it also has what is allowed already; only the rest is listed as a change.
    (suggested,) = re.findall(r"run\.allow_changed=[\w.,]+\w", str(refusal.value))
    assert suggested == "run.allow_changed=model.width,run.init_lr,model.dropout"
    assert "init_lr" not in str(refusal.value).partition("Changed:")[2]
    with RunFolder.open(Config.load(path, [*changed, suggested])) as folder:
        assert len(folder.changes) == 3
    with pytest.raises(ConfigError, match=r"no setting 'run\.initlr' \(did you mean 'run\.init_lr'"):
        RunFolder.open(Config.load(path, [*changed, "run.allow_changed=[run.initlr]"]))
    allowed = Config.load(path, [*changed, "run.allow_changed=[model,run.init_lr]"])
    with RunFolder.open(allowed) as folder:
        assert folder.changes == {
            "model.dropout": (0.2, 0.5),
            "model.width": (8, 16),
            "run.init_lr": (0.05, 0.01),
        }
        folder.begin(allowed)
    with RunFolder.open(Config.load(path, changed)) as folder:
        assert not folder.changes, "from then on these are the settings of the run"


@pytest.mark.parametrize(
    ("changed", "proposed"),
    [
        ([], []),
        (["run.allow_changed=[run.init_lr]"], []),
        (["run.init_lr=0.01"], ["run.init_lr"]),
        (["run.init_lr=0.01", "model.width=16", "run.allow_changed=[model.width]"], ["model.width,run.init_lr"]),
    ],
)
def test_other_trained_parts_are_not_proposed(recipe: Callable[..., Path], changed: list[str], proposed: list[str]):
    before = Config.load(recipe()).to_dict()
    before["model"] = {**before["model"], "trained_parts": ["letters"]}
    with pytest.raises(ConfigError, match=r"or choose another\. Changed:(.|\n)*model\.trained_parts") as refusal:
        allowed_changes("run.output_dir: run", before, Config.load(recipe(), changed), "choose another")
    assert re.findall(r"run\.allow_changed=([\w.,]+\w)", str(refusal.value)) == proposed


@pytest.mark.parametrize("added", [True, False])
def test_dropped_samples_that_change_the_order_are_refused_with_the_reason(recipe: Callable[..., Path], added: bool):
    options = ["run.train_dataset_ratios={emo_stand_in: 1}", "run.allow_changed=[run.drop_samples]"]
    without = Config.load(recipe(), options)
    dropping = Config.load(recipe(), [*options, "run.drop_samples={at_most: 0.1}"])
    before, now = (without, dropping) if added else (dropping, without)
    verb, fix = ("added", "Remove it") if added else ("removed", "Restore it")
    with pytest.raises(ConfigError, match=rf"run\.drop_samples: place .* cannot be {verb}: .* order\. {fix}, or start"):
        allowed_changes("place", before.to_dict(), now, "choose another")


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


def test_settings_that_an_older_version_did_not_have_had_their_defaults(recipe: Callable[..., Path]) -> None:
    import yaml

    config = Config.load(recipe())
    with RunFolder.open(config) as folder:
        folder.begin(config)
        written = yaml.safe_load(folder.config_path.read_text())
        for key in ("ema_decay", "eval_every_steps", "valid_splits"):
            del written["run"][key]
        folder.config_path.write_text(yaml.safe_dump(written))
    with RunFolder.open(config) as folder:
        assert not folder.changes
    with pytest.raises(ConfigError, match=r"run\.ema_decay: None -> 0\.9"):
        RunFolder.open(Config.load(recipe(), ["run.ema_decay=0.9"]))


@pytest.mark.parametrize("content", ["null", "[]", "3", '"text"'])
def test_metrics_that_are_no_object_are_damaged_and_not_unfinished(recipe: Callable[..., Path], content: str) -> None:
    with RunFolder.open(Config.load(recipe())) as folder:
        folder.metrics_path.write_text(content)
        with pytest.raises(UserError, match=r"metrics\.json: damaged: .*object\. Delete it"):
            folder.finished_metrics(with_report=False)
