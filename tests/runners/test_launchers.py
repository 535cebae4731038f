"""Properties, the real commands with the tiny model: torchrun and DeepSpeed's launcher on two processes, and one
process with DeepSpeed, train and evaluate as one process of plain torch does; predictions before tuning are the same
file, and a run goes on under another launcher, engine and number of processes.

One of the commands starts a new interpreter, the others are forks of this process, which start much faster.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

RANKS = Path(__file__).resolve().parent / "ranks"
sys.path.insert(0, str(RANKS))

from jobs import REPOSITORY, free_port  # noqa: E402
from warm import DEEPSPEED, TORCHRUN, forked_commands, load_training  # noqa: E402

BIN = Path(sys.executable).parent
RECIPE = "projects/emovit/quickstart.yaml"
OPTIONS = (
    "datasets.emoset_sketch.build_info.images.storage=small_sketch",
    "datasets.emoset_sketch.build_info.prepare.draw.images_per_class=10",
    "run.max_epoch=2",
    "run.global_batch_size=16",
    "run.batch_size_eval=4",
    "run.num_report_answers=3",
    "run.num_threads=1",
    "run.device=cpu",
    "run.report=false",
    "run.tensorboard=false",
    "run.keep_last=9",
)
TWO_BY_TORCHRUN = [*TORCHRUN, "--standalone", "--nproc_per_node=2", "-m"]
TWO_BY_DEEPSPEED = [*DEEPSPEED, "--num_gpus", "2", "--master_port", "{port}", "--module"]
ALONE = [sys.executable, "-m"]

# One worker trains the run that the others are compared with, once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("launchers")]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Runs the training command, in a new interpreter if wanted; gives the output folder."""
    load_training()
    root = tmp_path_factory.mktemp("launchers")
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")},
        "EMOVIT_DATA": str(root / "data"),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }

    def run(launcher: list[str], name: str, *options: str, is_new: bool = False) -> Path:
        command = [part.format(port=free_port()) for part in launcher]
        command += ["lavis.train", "--cfg-path", RECIPE, "--options", *OPTIONS, f"run.output_dir={root / name}"]
        with nullcontext() if is_new else forked_commands(), (root / f"{name}.log").open("w") as output:
            started = subprocess.Popen(
                [*command, *options], cwd=REPOSITORY, env=environment, stdout=output, stderr=output
            )
        assert started.wait(900) == 0, (root / f"{name}.log").read_text()[-4000:]
        return root / name

    return run


@pytest.fixture(scope="module")
def alone(train: Callable[..., Path]) -> Path:
    return train(ALONE, "alone")


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["event"] == "step"]


@pytest.mark.parametrize(
    ("launcher", "name", "options", "is_new"),
    [
        (TWO_BY_TORCHRUN, "torchrun", (), False),
        (
            TWO_BY_DEEPSPEED,
            "deepspeed",
            ("run.engine=deepspeed", "run.deepspeed_config=projects/emovit/deepspeed/zero3.json"),
            False,
        ),
        (ALONE, "deepspeed-alone", ("run.engine=deepspeed",), True),
    ],
    ids=["torchrun", "deepspeed", "deepspeed-alone"],
)
def test_launchers_train_alike(
    train: Callable[..., Path], alone: Path, launcher: list[str], name: str, options: tuple[str, ...], is_new: bool
) -> None:
    run = train(launcher, name, *options, is_new=is_new)
    assert losses(run) == pytest.approx(losses(alone), rel=1e-5)
    prints = [json.loads((folder / "metrics.json").read_text())["frozen_fingerprint"] for folder in (run, alone)]
    assert prints[0] == prints[1]
    before = "predictions/test-before.jsonl"
    if launcher is TWO_BY_TORCHRUN:
        assert (run / before).read_bytes() == (alone / before).read_bytes()
    rows, wanted = (
        [json.loads(line) for line in (folder / before).read_text().splitlines()] for folder in (run, alone)
    )
    for row, other in zip(rows, wanted, strict=True):
        assert row["instance_id"] == other["instance_id"]
        assert row["scores"] == pytest.approx(other["scores"], abs=1e-4)
    assert [row.get("answer") for row in rows] == [row.get("answer") for row in wanted]


def test_a_run_changes_engine_and_number_of_processes(train: Callable[..., Path], alone: Path) -> None:
    zero2 = ("run.engine=deepspeed", "run.deepspeed_config=projects/emovit/deepspeed/zero2.json")
    num_steps = len(losses(alone))
    run = train(TWO_BY_TORCHRUN, "changing", f"run.max_steps={num_steps}", *zero2)
    # As if it had been stopped after its first epoch.
    kept = sorted((run / "checkpoints").iterdir())[0]
    for path in (run / "checkpoints").iterdir():
        if path != kept:
            shutil.rmtree(path)
    (run / "metrics.json").unlink()
    train(ALONE, "changing", f"run.max_steps={num_steps}")
    assert losses(run) == pytest.approx(losses(alone), rel=1e-5)
