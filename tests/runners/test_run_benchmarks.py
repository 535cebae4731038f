"""Benchmarks that a recipe names for validation and test.

- A run validates valence and arousal, action units, explanations and emotions, on its own datasets and on others; any
  number of the first benchmark chooses the best checkpoint; rows, metrics and log are those of the benchmark.
- A suite with the same checkpoint gives the same metrics.
- The shipped zero3.json trains, evaluates and reports; under ZeRO 3, two processes with unequal numbers of batches and
  questions give the rows of one.
- Questions that do not fit the model are refused before training; wrong datasets, keys, methods and metrics before a
  weight is loaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent / "ranks"))
from jobs import finish, load_deepspeed, logs, start_ranks

from lavis_emovit import train
from lavis_emovit.errors import ConfigError
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.evaluation.suite.suite import run_suite
from lavis_emovit.paths import list_checkpoints
from lavis_emovit.runners.config import Config
from lavis_emovit.runners.evaluator import _file_name
from lavis_emovit.runners.logs import read_log
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.train import run_recipe

RUN = {
    "output_dir": "run",
    "max_epoch": 2,
    "global_batch_size": 16,
    "batch_size_eval": 3,
    "init_lr": 1e-3,
    "device": "cpu",
    "num_threads": 1,
    "keep_last": 9,
    "tensorboard": False,
    "report": False,
    "evaluate_before": False,
    "num_report_answers": 2,
}
SMALL = {"vis_processor": {"train": {"image_size": 96}, "eval": {"image_size": 96}}}
AFFECT = {"dataset": "emoset", "kind": "valence_arousal", "split": "val"}
UNITS = {"dataset": "unbiasedemo", "kind": "action_units", "split": "test", "limit": 7}
REASONS = {"dataset": "emoset", "kind": "explanation", "split": "val", "limit": 2, "max_new_tokens": 3}
WORDS = {"dataset": "emoset", "split": "test", "method": "generation", "max_new_tokens": 3, "wordings": [2, 1]}


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory, make_records: Callable) -> Path:
    """Shards of images with emotion, valence, arousal and up to three action units."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 32), ("val", 8), ("test", 8)):
        images = folder / "images" / split
        records = [
            record.model_copy(
                update={
                    "valence": (number % 5 - 2) / 2,
                    "arousal": (number % 3 - 1) / 2,
                    "action_units": {unit: float(number % 3) for unit in (1, 6, 12)[: 1 + number % 3]},
                }
            )
            for number, record in enumerate(make_records(images, count, split=split))
        ]
        for dataset in ("emoset", "unbiasedemo"):
            write_shards(records, images, folder / dataset / split)
    return folder


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> Callable[..., Path]:
    monkeypatch.setenv("EMOVIT_DATA", str(data_folder))
    monkeypatch.chdir(tmp_path)

    def write(**run: Any) -> Path:
        values = {"model": {"arch": "emovit_tiny"}, "datasets": {"emoset": SMALL}, "run": {**RUN, **run}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "recipe.yaml"

    return write


def test_a_run_validates_any_kind_and_agrees_with_a_suite(recipe: Callable[..., Path], tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO"):
        summary = run_recipe(
            recipe(
                valid_benchmarks={"affect": AFFECT, "reasons": REASONS},
                test_benchmarks={"units": UNITS, "words": WORDS},
                best_metric="dimensions.valence.all.mae",
            )
        )
    rows = [row for row in read_log(tmp_path / "run" / "log.jsonl") if row["event"] == "eval"]
    assert [(row["split"], row["stage"]) for row in rows] == [
        *[("affect", "during"), ("reasons", "during")] * 2,
        ("units", "after"),
        ("words", "after"),
    ]
    metrics = {name: [row["metrics"] for row in rows if row["split"] == name] for name in ("affect", "reasons")}
    steps = [row["step"] for row in rows if row["split"] == "affect"]
    errors = dict(zip(steps, (found["dimensions"]["valence"]["all"]["mae"] for found in metrics["affect"])))
    best = min(errors, key=lambda step: (errors[step], step))
    assert summary["best"] == {"step": best, "metric": "dimensions.valence.all.mae", "value": errors[best]}
    assert any(message.startswith("affect after epoch 1: mean CCC") for message in caplog.messages)
    logged = f"affect: dimensions.valence.all.mae {errors[best]:.4g}, the best so far"
    assert logged in caplog.messages
    assert all("explanations" in found and "accuracy" in found for found in metrics["reasons"])
    after = {name: stages["after"] for name, stages in summary["splits"].items()}
    assert after["units"]["agg_metrics"] == after["units"]["mean_f1"]
    shown = read_predictions(tmp_path / "run" / "predictions" / "units-after.jsonl")
    assert len(shown) == 7 and [row.answer is not None for row in shown] == [True] * 2 + [False] * 5
    assert (tmp_path / "run" / shown[0].image).is_file()
    words = read_predictions(tmp_path / "run" / "predictions" / "words-after.jsonl")
    assert len(words) == 16 and [row.image is not None for row in words] == [True, False] * 2 + [False] * 12

    config = {"build_info": {}}
    suite = {
        "name": "same",
        "output_dir": "suite",
        "models": {"tuned": {"adapter": "lavis", "arch": "emovit_tiny", "checkpoint": "run", "device": "cpu"}},
        "benchmarks": {
            "units": {**UNITS, "config": config},
            "words": {key: value for key, value in WORDS.items() if key != "method"},
        },
        "methods": ["likelihood", "generation"],
        "batch_size": 3,
        "num_threads": 1,
        "report": False,
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"suite": suite}))
    results = run_suite(load_suite(tmp_path / "suite.yaml"))["benchmarks"]
    of_suite = {
        (name, result["method"]): result for name, benchmark in results.items() for result in benchmark["results"]
    }
    units = of_suite["units", "likelihood"]
    assert after["units"] == {**units["metrics"]["action_units"], "agg_metrics": units["headline"]["value"]}
    found = dict(of_suite["words", "generation"]["metrics"])
    assert after["words"] == {
        **found.pop("classification"),
        **found,
        "agg_metrics": of_suite["words", "generation"]["headline"]["value"],
    }


SHIPPED_ZERO_3 = Path(__file__).resolve().parents[2] / "projects" / "emovit" / "deepspeed" / "zero3.json"


def test_the_shipped_zero_3_trains_and_evaluates(recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe(
        output_dir="zero3", engine="deepspeed", deepspeed_config=str(SHIPPED_ZERO_3), valid_splits=["val"],
        test_splits=["test"], report=True,
    )  # fmt: skip
    load_deepspeed()
    ranks = start_ranks(1, train.main, [["--cfg-path", str(path)]], tmp_path / "ranks")
    assert finish(ranks) == [0], logs(tmp_path / "ranks")
    splits = json.loads((tmp_path / "zero3" / "metrics.json").read_text())["splits"]
    assert set(splits) == {"test"} and 0.0 <= splits["test"]["after"]["agg_metrics"] <= 1.0
    assert (tmp_path / "zero3" / "report.html").is_file()


@pytest.mark.parametrize("changes", [{}, {"stage3_param_persistence_threshold": 0}], ids=["shipped", "all-split"])
def test_zero_3_on_two_processes_gives_the_rows_of_one(
    recipe: Callable[..., Path], tmp_path: Path, changes: dict[str, int]
) -> None:
    """Seven samples in batches of three: one rank has two batches, and action units differ in number."""
    benchmarks = {"units": UNITS, "words": {**WORDS, "limit": 5}}
    alone = run_recipe(recipe(output_dir="alone", evaluate=True, test_benchmarks=benchmarks))
    config = tmp_path / "zero3.json"
    content = json.loads(SHIPPED_ZERO_3.read_text())
    content["zero_optimization"] |= changes
    config.write_text(json.dumps(content))
    path = recipe(
        output_dir="two", evaluate=True, test_benchmarks=benchmarks, engine="deepspeed", deepspeed_config=str(config)
    )
    load_deepspeed()
    ranks = start_ranks(2, train.main, [["--cfg-path", str(path)]], tmp_path / "ranks")
    assert finish(ranks) == [0, 0], logs(tmp_path / "ranks")
    assert json.loads((tmp_path / "two" / "metrics.json").read_text())["splits"] == alone["splits"]
    for name in benchmarks:
        first, second = (
            read_predictions(tmp_path / folder / "predictions" / f"{name}-before.jsonl") for folder in ("alone", "two")
        )
        plain = {"values": None, "image": None}
        assert [row.model_copy(update=plain) for row in first] == [row.model_copy(update=plain) for row in second]
        for one, other in zip(first, second):
            assert (one.values or {}) == pytest.approx(other.values or {}, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"valid_benchmarks": {"affect": AFFECT}}, "run.best_metric: no number 'accuracy' in the metrics of kind"),
        (
            {"valid_benchmarks": {"affect": AFFECT}, "best_metric": "mean_cc"},
            "(did you mean 'mean_ccc'?)",
        ),
        ({"valid_benchmarks": {"jokes": {**AFFECT, "kind": "caption"}}}, "kind 'caption' has no number to choose"),
        (
            {"test_benchmarks": {"gone": {**AFFECT, "dataset": "emosett"}}},
            "run.test_benchmarks.gone.dataset: no dataset 'emosett' is registered (did you mean 'emoset'?)",
        ),
        ({"test_benchmarks": {"units": {**UNITS, "limmit": 3}}}, "limmit: unknown key (did you mean 'limit'?)"),
        (
            {"test_benchmarks": {"units": {**UNITS, "method": "likelihood_sum"}}},
            "there is no method 'likelihood_sum' for kind 'action_units'",
        ),
        ({"test_benchmarks": {"..": AFFECT}}, "'..' becomes a file's name"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_recipe(recipe: Callable[..., Path], changes: dict, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config.load(recipe(**changes))
    assert any(words in problem for problem in error.value.problems), error.value.problems


@pytest.mark.parametrize("num_labels", [100, 1000])
def test_questions_that_are_too_long_are_refused_before_training(
    recipe: Callable[..., Path], num_labels: int, tmp_path: Path
) -> None:
    labels = ["amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness"]
    labels += [f"feeling {number}" for number in range(num_labels)]
    many = {"dataset": "emoset", "split": "test", "label_set": "labels:" + ", ".join(labels)}
    with pytest.raises(ConfigError, match=r"many: question 0 \(.*the language model's context is 512.*fewer labels"):
        run_recipe(recipe(test_benchmarks={"many": many}))
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_data_that_do_not_fit_are_refused_before_training(recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe(test_benchmarks={"one": {**AFFECT, "split": "trial"}, "two": {**AFFECT, "label_set": "emotion6"}})
    with pytest.raises(ConfigError, match=r"run\.test_benchmarks\.one: 'emoset' has no split 'trial'"):
        run_recipe(path)
    assert not list_checkpoints(tmp_path / "run" / "checkpoints")


@pytest.mark.parametrize("record_id", ["a" * 300, "\u6f22" * 300])
def test_the_small_image_of_a_long_id_has_a_name_that_file_systems_allow(record_id: str) -> None:
    assert len(f"{_file_name(record_id)}-01234567-strip.jpg".encode()) <= 255
