"""The recipes of published benchmarks, from files in their published layout to numbers.

- Each recipe reads tiny copies of its datasets and measures the packaged tiny model, a tiny LLaVA and an endpoint;
  every question of the copies is asked once, and none is lost.
- After minus before is paired by question.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "chat"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "sources"))
from chat_server import Action, ChatServer, words_of
from published_copies import DRAWERS
from tiny_families import make_llava15

from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.evaluation.suite.recipe import load_suite
from lavis_emovit.evaluation.suite.suite import run_suite

RECIPES = Path(__file__).resolve().parents[3] / "projects" / "emovit" / "eval"
# Recipe -> benchmark -> questions in the copies of its dataset.
QUESTIONS = {
    "statements": {"mvei": 8, "words": 4},
    "eemo_bench": {"single": 6, "pair": 3, "ranking": 3, "affect": 3},
    "forgetting": {"pope": 12, "mme": 8, "scienceqa": 4, "vqav2": 4, "emoset": 8},
    "reasoning": {"emoset": 8},
    "robustness": {"unbiasedemo": 2},
    "vecbench": dict.fromkeys(
        "fi_2 webemo_2 fi_8 emoset_8 webemo_7 webemo_25 abstract_8 artphoto_8 unbiasedemo_6".split(), 4
    ),
}


def _write_table(file: Path, benchmarks: dict[str, Any], root: Path) -> None:
    """VECBench's table of samples: four images for each of its tasks."""
    lines = ["task,split,image_path"]
    for one in benchmarks.values():
        task = one["config"]["build_info"]["prepare"]["split_lists"]["test"]["where"]["task"]
        images = sorted((root / one["dataset"]).rglob("*.jpg"))[:4]
        lines += [f"{task},test,{one['dataset']}/{image.relative_to(root / one['dataset'])}" for image in images]
    file.write_text("\n".join([*lines, "FI-8,train,fi/other.jpg"]) + "\n")


def _reply(body, number):
    text = words_of(body)
    return Action(text="(a)" if "(a)" in text else "yes" if "yes" in text.lower() else "joy")


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_recipe_runs_from_published_files(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "shards"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    suite = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))["suite"]
    for dataset in {one["dataset"] for one in suite["benchmarks"].values()}:
        folder = dataset.removesuffix("_pair")  # pairs are in the folder of the single images
        DRAWERS[dataset](tmp_path / folder)
        monkeypatch.setenv(f"EMOVIT_{folder.upper()}", str(tmp_path / folder))
    if name == "vecbench":
        _write_table(tmp_path / "table.csv", suite["benchmarks"], tmp_path)
        monkeypatch.setenv("EMOVIT_VECBENCH", str(tmp_path / "table.csv"))
        for one in suite["benchmarks"].values():
            one["max_new_tokens"] = 16  # the context of the tiny model has no room for published answers
    with ChatServer(_reply) as server:
        chat = {"model": "m", "base_url": server.url, "max_in_flight": 2}
        models = {
            "emovit": {"adapter": "lavis", "arch": "emovit_tiny", "device": "cpu"},
            "instructblip": {"adapter": "transformers", "path": str(make_llava15(tmp_path / "llava")), "device": "cpu"},
            "served": {"adapter": "chat", "chat": chat, "probe": False},
        }
        small = {"models": models, "output_dir": "out", "batch_size": 4, "num_workers": 0, "num_threads": 1}
        small["probe"] = False  # the copies are too small to learn from
        Path("suite.yaml").write_text(yaml.safe_dump({"suite": {**suite, **small, "report": False}}))
        found = run_suite(load_suite("suite.yaml", ()))
    assert set(found["benchmarks"]) == set(QUESTIONS[name])
    for benchmark, count in QUESTIONS[name].items():
        results = found["benchmarks"][benchmark]["results"]
        assert {one["model"] for one in results} == set(models), benchmark
        for one in results:
            assert "problem" not in one and (one["num_samples"], one["num_errors"]) == (count, 0), (benchmark, one)
            rows = read_predictions(f"out/predictions/{benchmark}/{one['model']}.{one['method']}.jsonl")
            assert len({row.instance_id for row in rows}) == len(rows) == count
    assert found.get("groups", {}).keys() == suite.get("groups", {}).keys()
    if "gains" in suite:
        gains = [gain for of in found["benchmarks"].values() for gain in of["gains"]]
        assert {gain["num_pairs"] for gain in gains} <= set(QUESTIONS[name].values()) and gains
