"""`tools/bench/seeds.py`: a seed's command is a valid recipe, and the figures are worked out from metrics.json."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("bench_seeds", ROOT / "tools" / "bench" / "seeds.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stage(accuracy: float) -> dict:
    return {
        "num_samples": 50,
        "accuracy": accuracy,
        "accuracy_interval": {"low": accuracy - 0.1, "high": accuracy + 0.1, "level": 0.95},
        "balanced_accuracy": accuracy,
        "balanced_accuracy_interval": {"low": accuracy - 0.1, "high": accuracy + 0.1, "level": 0.95},
        "majority_baseline": 0.5,
        "macro_f1": accuracy,
    }


def test_means_and_spread_worked_out_by_hand(tool):
    runs = {
        seed: {"splits": {"test": {"before": stage(0.5), "after": stage(value)}}}
        for seed, value in ((0, 0.8), (4, 0.9))
    }
    result = tool.summarise("photos", runs)
    assert result["mean_accuracy"] == pytest.approx(0.85)
    assert result["std_accuracy"] == pytest.approx(0.0707106781)  # of a sample of two: 0.1 / sqrt(2)
    assert result["mean_majority"] == 0.5
    assert [row["seed"] for row in result["seeds"]] == [0, 4]
    assert all("answers" not in row for row in result["seeds"])
    assert "| 4 | 50 | 0.500 | 0.900 | 0.500 |" in tool.table(result)


def test_answers_with_references_are_in_the_result(tool):
    def written(overlap: float) -> dict:
        return {"rouge_l": overlap, "token_loss": 1 - overlap, "rouge_l_blind": 0.5, "num_samples": 9}

    splits = {
        "test": {"before": stage(0.5), "after": stage(0.8)},
        "why": {"before": written(0.1), "after": written(0.9)},
    }
    (row,) = tool.summarise("quickstart_instructions", {0: {"splits": splits}})["seeds"]
    assert row["answers"]["why"] == {
        "rouge_l_before": 0.1,
        "rouge_l_after": 0.9,
        "token_loss_before": 0.9,
        "token_loss_after": pytest.approx(0.1),
        "rouge_l_blind": 0.5,
        "num_samples": 9,
    }


def test_recipes_without_labels_have_the_agreement_of_numbers(tool):
    def measured(pcc: float) -> dict:
        bounds = {"low": 0.1, "high": 0.9}
        axis = {"num_samples": 8, "all": {"pcc": pcc, "ccc": pcc / 2}, "intervals": {"pcc": bounds, "ccc": bounds}}
        return {"dimensions": {"valence": axis, "arousal": axis}}

    result = tool.summarise(
        "small/bass", {3: {"splits": {"affect": {"before": measured(0.0), "after": measured(0.6)}}}}
    )
    (row,) = result["seeds"]
    assert "accuracy" not in row and "mean_accuracy" not in result
    assert row["arousal"] == {
        "num_samples": 8, "pcc_before": 0.0, "pcc": 0.6, "pcc_interval_95": [0.1, 0.9],
        "ccc_before": 0.0, "ccc": 0.3, "ccc_interval_95": [0.1, 0.9],
    }  # fmt: skip
    assert "seed 3: valence PCC 0.600, CCC 0.300" in tool.table(result)


def test_the_command_of_a_seed_is_a_valid_recipe(tool, tmp_path, monkeypatch):
    from lavis_emovit.runners.config import Config

    monkeypatch.chdir(tmp_path)  # where the recipe is found is not the matter of the working directory
    command = tool.command("photos", 7, Path("output/x"))
    assert command[1:3] == ["-m", "lavis.train"]
    config = Config.load(command[4], command[6:])
    assert config.run.seed == 7
    assert config.run.output_dir == "output/x"
    prepare = config.datasets["london_faces"].build_info.prepare
    assert prepare.split_seed == 7, "the seed also decides who is in which split"
    assert "split_7" in config.datasets["london_faces"].build_info.images.storage


def test_run_info_contains_commit_versions_and_machine(tool):
    facts = tool.run_info("quickstart", [0, 1])
    assert len(facts["commit"].removesuffix("+changes")) == 40
    assert facts["machine"]["usable_cores"] >= 1
    assert facts["versions"]["torch"]
    assert facts["command"].endswith("--seeds 0 1")


def test_seeds_of_earlier_runs_are_kept(tool, tmp_path):
    out, runs = tmp_path / "photos.json", {"test": {"before": stage(0.5), "after": stage(0.7)}}
    assert tool.kept_seeds(out, [1]) == []
    first = tool.summarise("photos", {seed: {"splits": runs} for seed in (2, 1)})
    out.write_text(json.dumps({**first, "command": "earlier", "commit": "abc"}), encoding="utf-8")
    (kept,) = tool.kept_seeds(out, [1])
    assert (kept["seed"], kept["accuracy"], kept["command"], kept["commit"]) == (2, 0.7, "earlier", "abc")
    again = {1: {"splits": {"test": {"before": stage(0.5), "after": stage(0.9)}}}}
    result = tool.summarise("photos", again, [kept])
    assert [row["seed"] for row in result["seeds"]] == [1, 2]
    assert result["mean_accuracy"] == pytest.approx(0.8)
