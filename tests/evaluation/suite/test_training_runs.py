"""Suites that train their models.

- A model with `train` gets its checkpoint from `python -m lavis.train`. A finished run is not started again, and a
  second start of the suite makes no row.
- Problems of all recipes are reported together, before anything is trained or written. So are a folder with another
  run, two recipes for one folder, options that the suite sets itself, and missing runs of a suite on several ranks.
- The exit code of the training decides that of the suite; a stop signal reaches the training.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lavis_emovit.distributed import processes
from lavis_emovit.distributed.signals import RunStopped
from lavis_emovit.errors import ConfigError, UserError
from lavis_emovit.evaluate import run_evaluation
from lavis_emovit.evaluation.predictions import read_predictions

DATA = [
    "datasets.emoset_sketch.build_info.images.storage=small_sketch",
    "datasets.emoset_sketch.build_info.prepare.draw.images_per_class=10",
]
RUN = ["run.max_steps=2", "run.num_threads=1", "run.device=cpu", "run.report=false", "run.evaluate_before=false"]
QUICKSTART = "projects/emovit/quickstart.yaml"
TRAINED = {"trained_parts": ["qformer", "query_tokens", "language_projection", "vision_layernorm"]}


def model(checkpoint="runs/a", recipe=QUICKSTART, options=(), **entry):
    train = {"recipe": recipe, "options": [*DATA, *RUN, *options]}
    return {
        "adapter": "lavis", "arch": "emovit_tiny", "device": "cpu", "checkpoint": checkpoint, "train": train,
        "config": TRAINED, **entry,
    }  # fmt: skip


@pytest.fixture
def suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    # The other processes find the package without being installed.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    config = {"build_info": {"images": {"storage": "small_sketch"}, "prepare": {"draw": {"images_per_class": 10}}}}

    def run(models, **values):
        content = {
            "name": "arms",
            "output_dir": "out",
            "models": models,
            "benchmarks": {"sketch": {"dataset": "emoset_sketch", "limit": 4, "config": config}},
            "num_threads": 1,
            "report": False,
            "probe": False,
            **values,
        }
        Path("suite.yaml").write_text(yaml.safe_dump({"suite": content}, sort_keys=False))
        return run_evaluation("suite.yaml")

    return run


@pytest.fixture
def started(monkeypatch):
    """The training commands that a suite starts; none of them runs, and they end with the exit code of `ends_with`."""

    class Started(list):
        ends_with = 0

    commands = Started()

    class Process:
        def __init__(self, command):
            commands.append(command)

        def wait(self, timeout):
            return commands.ends_with

    monkeypatch.setattr(subprocess, "Popen", Process)
    return commands


def test_missing_runs_are_trained_once(suite, caplog):
    caplog.set_level("INFO", logger="lavis_emovit")
    models = {"untuned": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu"}, "tuned": model()}
    first = suite(models)
    assert "training tuned, run 1 of 1: " in caplog.text
    written = {path: path.read_bytes() for path in Path("out/predictions").rglob("*") if path.is_file()}
    checkpoint = sorted(Path("runs/a/checkpoints").iterdir())
    results = {result["model"]: result for result in first["benchmarks"]["sketch"]["results"]}
    assert set(results) == {"untuned", "tuned"} and results["tuned"]["num_samples"] == 4
    scores = [read_predictions(f"out/predictions/sketch/{name}.likelihood.jsonl")[0].scores for name in results]
    assert scores[0] != scores[1]
    caplog.clear()
    assert suite(models) == first and "training" not in caplog.text
    assert written == {path: path.read_bytes() for path in Path("out/predictions").rglob("*") if path.is_file()}
    assert checkpoint == sorted(Path("runs/a/checkpoints").iterdir())
    with pytest.raises(ConfigError, match=r"run.output_dir: .*runs/a.*\n?.*run.init_lr[^$]*tuned.train=null evaluates"):
        suite({"tuned": model(options=["run.init_lr=0.5"])})
    # A checkpoint instead of the run's folder needs no training, and the one that is missing cannot be made.
    assert suite({"tuned": model(f"runs/a/checkpoints/{checkpoint[0].name}")}, output_dir="other")["benchmarks"]
    with pytest.raises(ConfigError, match=r"suite.models.tuned.checkpoint: there is no .*ckpt-00000077"):
        suite({"tuned": model("runs/a/checkpoints/ckpt-00000077")})


def test_the_command_of_a_run(suite, started):
    started.ends_with = 3
    with pytest.raises(UserError, match=r"suite.models.tuned.train: the training ended with exit code 3"):
        suite({"tuned": model()}, launcher="torchrun --standalone --nproc_per_node=2")
    options = ["--options", *DATA, *RUN, "run.output_dir=runs/a"]
    launcher = ["torchrun", "--standalone", "--nproc_per_node=2"]
    assert started == [[*launcher, "-m", "lavis.train", "--cfg-path", QUICKSTART, *options]]


@pytest.mark.parametrize(("code", "error"), [(130, KeyboardInterrupt), (75, RunStopped)])
def test_a_stopped_training_stops_the_suite(suite, started, code, error):
    started.ends_with = code
    with pytest.raises(error):
        suite({"one": model(), "two": model("runs/b")})
    assert len(started) == 1 and not Path("out/predictions").exists()


def test_a_run_of_two_models_is_trained_once(suite, started):
    with pytest.raises(UserError, match="runs/a"):  # the commands of this test write no checkpoint
        suite({"one": model(), "two": model(), "three": model("runs/b")})
    assert [command[-1] for command in started] == ["run.output_dir=runs/a", "run.output_dir=runs/b"]


@pytest.mark.parametrize(
    ("sent", "code", "launcher", "outcome"),
    [
        ("SIGTERM", 75, [], "RunStopped: the training of x was stopped"),
        # Launchers end with a code of their own.
        ("SIGUSR1", 1, ["env"], "RunStopped: the training of x was stopped"),
        ("SIGINT", 1, ["env"], "KeyboardInterrupt"),
        # Without one, it is the training's: this one could not save.
        ("SIGTERM", 2, [], "UserError: suite.models.x.train: the training ended with exit code 2"),
    ],
)
def test_a_stop_signal_reaches_the_training(sent, code, launcher, outcome):
    """In a process of its own: the training sends the signal to the suite, which passes it on as SIGTERM."""
    training = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))
os.kill(os.getppid(), signal.{sent})
time.sleep(60 if "{sent}" != "SIGINT" else 0.3)  # a terminal would send it here too
sys.exit({code})
"""
    suite = f"""
import signal, sys
from lavis_emovit import evaluate
try:
    evaluate._run("x", [*{launcher!r}, sys.executable, "-c", {training!r}])
finally:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""
    ended = subprocess.run([sys.executable, "-c", suite], capture_output=True, text=True, timeout=50)
    assert outcome in ended.stderr, ended


def test_a_launcher_that_does_not_exist(suite):
    with pytest.raises(UserError, match=r"suite.launcher: no-such-program cannot be started"):
        suite({"tuned": model()}, launcher="no-such-program")


@pytest.mark.parametrize(("launcher", "message"), [("torchrun 'x", "'torchrun 'x' is no command"), (" ", "is empty")])
def test_a_launcher_that_is_no_command(suite, launcher, message):
    with pytest.raises(UserError, match=f"suite.launcher: {message}"):
        suite({"tuned": model()}, launcher=launcher)


def test_all_problems_come_first(suite, started):
    with pytest.raises(ConfigError) as caught:
        suite(
            {
                "one": model(options=["run.max_epoc=2"]),
                "two": model("runs/b", recipe="nowhere.yaml"),
                "three": model("runs/c"),
                "four": model("runs/c", options=["run.seed=3"]),
                "five": model("./runs/../runs/c/", options=["run.seed=4"]),
            }
        )
    assert caught.value.problems == [
        f"suite.models.one.train, {QUICKSTART}: run.max_epoc: unknown key (did you mean 'max_epoch'?)",
        "suite.models.two.train, nowhere.yaml: nowhere.yaml: no such recipe file; check the path of --cfg-path",
        "suite.models.four.train: another model trains runs/c in another way",
        "suite.models.five.train: another model trains ./runs/../runs/c/ in another way",
    ]
    assert not started and not Path("out").exists() and not Path("runs").exists()


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (model(None), r"suite.models.tuned: `train` needs `checkpoint`, the folder of the run"),
        (model(options=["run.output_dir=x"]), r"suite.models.tuned.train.options: run.output_dir=x cannot be set"),
    ],
)
def test_entries_that_contradict_themselves(suite, entry, problem):
    with pytest.raises(ConfigError, match=problem):
        suite({"tuned": entry})


def test_several_ranks_need_trained_models(suite, started, monkeypatch):
    def on_two_ranks(settings, make_checkpoints):
        monkeypatch.setattr(processes, "world_size", lambda: 2)
        monkeypatch.setattr(processes, "on_main", lambda function: function())
        make_checkpoints()

    monkeypatch.setattr("lavis_emovit.evaluation.suite.suite.run_suite", on_two_ranks)
    with pytest.raises(ConfigError, match=r"suite.models.tuned: .*-m lavis.train --cfg-path .*\n.*in one process"):
        suite({"tuned": model()})
    assert not started
