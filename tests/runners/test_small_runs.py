"""Properties of whole runs with the small family, on random weights and the drawn sample set.

- the training command trains and evaluates; stopped and started again, with a moving average of the weights, it
  ends bit for bit the same;
- two processes of plain torch, and of DeepSpeed with ZeRO stages 2 and 3, have the losses of one;
- a suite asks the trained run by likelihood and by generation, with the probe on the frozen image encoder as a row;
- `emovit init --model emovit_small` writes a recipe that is read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOM = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOM / "ranks"), str(ROOM.parent / "models" / "small")]

from jobs import finish, load_deepspeed, logs, start_ranks, stop_before  # noqa: E402
from small_folder import IMAGE_PX, NUM_QUERIES, write_folder  # noqa: E402

from lavis_emovit import registered  # noqa: E402
from lavis_emovit.cli.main import main  # noqa: E402
from lavis_emovit.paths import list_checkpoints  # noqa: E402
from lavis_emovit.runners.config import Config  # noqa: E402
from lavis_emovit.runners.logs import read_log  # noqa: E402
from lavis_emovit.train import main as train_main  # noqa: E402
from lavis_emovit.train import run_recipe  # noqa: E402

pytestmark = pytest.mark.xdist_group("small_runs")  # one worker draws the data, once

# The test images take several passes.
SIZES = {"image_size": IMAGE_PX, "num_query_token": NUM_QUERIES, "max_txt_len": 128, "scoring_pairs_per_pass": 5}
PROCESSORS = {
    "vis_processor": {
        "train": {"name": "emovit_image_train", "image_size": IMAGE_PX, "min_scale": 0.8},
        "eval": {"name": "emovit_image_eval", "image_size": IMAGE_PX},
    }
}
BUILD = {"images": {"storage": "small"}, "prepare": {"draw": {"images_per_class": 10, "size_px": 64}}}
RUN = {
    "runner": "runner_emovit", "task": "emotion_instruction", "max_epoch": 1, "global_batch_size": 16,
    "batch_size_eval": 16, "init_lr": 1e-3, "lr_sched": "constant_lr", "warmup_steps": 0, "device": "cpu",
    "num_threads": 1, "seed": 3, "num_report_answers": 1, "tensorboard": False, "report": False, "keep_last": 9,
    "valid_splits": [], "test_splits": ["test"], "evaluate_before": False,
}  # fmt: skip
# The language model's adapters have no gradient in epochs of reading.
ADAPTERS = {"parts": ["language_model"], "rank": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small_runs")


@pytest.fixture(scope="module")
def weights(root: Path) -> Path:
    return write_folder(root / "weights")


@pytest.fixture
def recipe(root: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a recipe; the working directory is the test's own folder, the data are shared."""
    monkeypatch.setenv("EMOVIT_DATA", str(root / "data"))
    monkeypatch.chdir(tmp_path)

    def write(name: str, **run: Any) -> Path:
        model = {"arch": "emovit_small", "model_type": "small", "pretrained": str(weights), **SIZES}
        model |= {"reading_epochs": run.pop("reading_epochs", 0), "lora": run.pop("lora", None)}
        values = {
            "model": model,
            "datasets": {"emoset_sketch": {**PROCESSORS, "build_info": BUILD}},
            "run": {**RUN, "output_dir": name, **run},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def train(path: Path) -> int:
    return train_main(["--cfg-path", str(path)])


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_log(run / "log.jsonl") if row["event"] == "step"]


def test_stopped_and_started_again_ends_the_same(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Over the end of the epochs of reading."""
    changes = {"save_every_steps": 1, "ema_decay": 0.9, "max_epoch": 2, "reading_epochs": 1, "lora": ADAPTERS}
    assert train(recipe("straight", **changes)) == 0
    path = recipe("stopped", **changes)
    stop_before(3, lambda: run_recipe(path))
    assert train(path) == 0
    assert losses(tmp_path / "stopped") == losses(tmp_path / "straight") and len(losses(tmp_path / "straight")) > 3
    last, other = (list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("straight", "stopped"))
    for file in sorted(last.iterdir()):
        if file.name not in ("MANIFEST.json", "config.yaml"):
            assert file.read_bytes() == (other / file.name).read_bytes(), file.name
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("straight", "stopped"))
    assert first == second and first["splits"]["test"]["after"]["num_samples"] > 0


def test_two_processes_and_every_engine_train_alike(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Over the end of the epochs of reading; the last batch of an epoch is too small for two processes."""
    pytest.importorskip("deepspeed")
    common = {"max_epoch": 2, "reading_epochs": 1, "global_batch_size": 11}
    assert train(recipe("one", **common)) == 0
    expected = losses(tmp_path / "one")
    load_deepspeed()
    zero = {**common, "engine": "deepspeed"}
    for name, changes in {
        "torch": common,
        "zero2": {**zero, "deepspeed_config": "projects/emovit/deepspeed/zero2.json"},
        "zero3": {**zero, "deepspeed_config": "projects/emovit/deepspeed/zero3.json"},
    }.items():
        ranks = start_ranks(2, train, [recipe(name, **changes)], tmp_path / f"{name}_logs")
        assert finish(ranks) == [0, 0], logs(tmp_path / f"{name}_logs")[-4000:]
        assert losses(tmp_path / name) == pytest.approx(expected, rel=1e-4), name
    # ZeRO's step counts from the first one for adapters too, plain torch's from their first gradient on: the losses are
    # equal up to the first step with the language model.
    adapted = recipe("adapted", **zero, deepspeed_config="projects/emovit/deepspeed/zero3.json", lora=ADAPTERS)
    assert finish(start_ranks(2, train, [adapted], tmp_path / "adapted_logs")) == [0, 0]
    first = len(expected) // 2 + 1
    found = losses(tmp_path / "adapted")
    assert found[:first] == pytest.approx(expected[:first], rel=1e-4)
    assert found[first:] != pytest.approx(expected[first:], rel=1e-4)


def test_a_suite_asks_a_trained_run(recipe: Callable[..., Path], weights: Path, tmp_path: Path) -> None:
    from lavis_emovit.evaluation.suite.recipe import load_suite
    from lavis_emovit.evaluation.suite.suite import run_suite

    assert train(recipe("trained", max_steps=1, test_splits=[])) == 0
    model = {"adapter": "lavis", "arch": "emovit_small", "checkpoint": "trained", "device": "cpu"}
    model["config"] = {"pretrained": str(weights), **SIZES}
    suite = {
        "name": "small", "output_dir": "suite", "batch_size": 8, "num_threads": 1, "report": False, "probe": True,
        "models": {"tuned": model}, "methods": ["likelihood", "generation"],
        "benchmarks": {"set": {"dataset": "emoset_sketch", "config": {**PROCESSORS, "build_info": BUILD}}},
    }  # fmt: skip
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump({"suite": suite}))
    benchmark = run_suite(load_suite(path, []))["benchmarks"]["set"]
    results = {(row["model"], row["method"]): row for row in benchmark["results"]}
    assert set(results) == {("tuned", "likelihood"), ("tuned", "generation"), ("probe", "direct")}
    assert len({row["num_samples"] for row in results.values()}) == 1 and results["probe", "direct"]["num_samples"] > 0


def test_init_writes_a_recipe(recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setattr(registered, "_beside_recipes", [])  # other tests must not find this dataset
    for number in range(12):
        folder = tmp_path / "mine" / ("calm", "wild")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * number, 90, 255 - 20 * number)).save(folder / f"{number}.png")
    assert main(["init", "mine", "--model", "emovit_small"]) == 0
    config = Config.load(tmp_path / "mine.yaml")
    assert config.model_cfg.arch == "emovit_small" and config.model_cfg.image_size == 224
    assert config.datasets["mine"].vis_processor.train.image_size == 224
