"""Properties of the comparison of supervised tuning with GRPO: accuracy and calibration of written answers, and paired
differences, by hand; the arms of a seed share the supervised run; every prompt of the recipe is the template's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lavis_emovit.emotion.questions import templated_wording
from lavis_emovit.emotion.templates import get_template
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.runners.config import Config

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools" / "bench"))

import rl  # noqa: E402


def row(number: int, prediction: str | None, confidence: str) -> PredictionRow:
    answer = f"<answer>{prediction}</answer><confidence>{confidence}</confidence>"
    return PredictionRow(
        instance_id=str(number), record_id=str(number), label="awe", prediction=prediction, answer=answer
    )


def test_accuracy_and_calibration_by_hand() -> None:
    rows = [row(0, "awe", "0.9"), row(1, "fear", "0.8"), row(2, "awe", "0.6"), row(3, None, "often")]
    found = rl.summary(rows)
    assert found["accuracy"] == 0.5 and found["share_with_label"] == found["share_with_confidence"] == 0.75
    assert found["mean_confidence"] == pytest.approx(2.3 / 3, abs=1e-4)
    assert found["brier"] == pytest.approx((0.01 + 0.64 + 0.16) / 3, abs=1e-4)
    # Each confidence has a bin of its own: |1 - 0.9| + |0 - 0.8| + |1 - 0.6|.
    assert found["ece"] == pytest.approx(1.3 / 3, abs=1e-4)
    assert found["auroc"] == 0.5  # the wrong answer is between the right ones
    assert "brier" not in rl.summary([row(0, "awe", "?")])


def test_differences_are_paired_and_a_mean_over_seeds() -> None:
    before = [row(0, "awe", "0.5"), row(1, "fear", "0.5"), row(2, "fear", "0.5"), row(3, "awe", "0.5")]
    after = [row(2, "awe", "0.9"), row(0, "awe", "0.9"), row(1, "fear", "0.1"), row(3, "fear", "0.2")]
    right, errors = rl.paired(before, after)
    assert right.tolist() == [1.0, 0.0, 0.0, -1.0]
    assert errors.tolist() == pytest.approx([-0.24, -0.24, -0.24, -0.21])
    seeds = {0: {"supervised": {"faces": before}, "label": {"faces": after}}}
    seeds[1] = {"supervised": {"faces": before}, "label": {"faces": [row(n, "awe", "0.5") for n in range(4)]}}
    (difference,) = rl.differences(seeds)
    assert difference["accuracy"] == 0.25 and difference["accuracy_of_seeds"] == [0.0, 0.5]
    low, high = difference["accuracy_interval_95"]
    assert low < 0.25 < high and difference["domain"] == "in" and difference["num_seeds"] == 2
    assert difference["brier_of_seeds"][0] == pytest.approx(-0.2325, abs=1e-4)


def test_the_arms_share_the_supervised_run() -> None:
    label, brier = (rl.command(2, arm, Path("runs"), ["run.max_steps=1"]) for arm in rl.ARMS)
    shared = "first_run.run.output_dir=runs/seed_2/supervised"
    assert shared in label and shared in brier and label[-1] == brier[-1] == "run.max_steps=1"
    weights = []
    for command in (label, brier):
        config = Config.load(rl.RECIPE, command[command.index("--options") + 1 :])
        assert config.first is not None and config.first.run.output_dir == "runs/seed_2/supervised"
        assert config.first.run.task == "emotion_instruction" and not config.first.run.test_benchmarks
        rewards = config.run.task_settings["rewards"]
        weights.append((rewards["label_exact"]["weight"], rewards["calibration_brier"]["weight"]))
    assert weights == [(1.0, 0.0), (0.0, 1.0)]


def test_the_prompts_of_the_recipe_are_those_that_are_trained_on() -> None:
    template = get_template("answer_confidence")
    benchmarks = Config.load(rl.RECIPE).run.test_benchmarks
    assert set(benchmarks) == {*rl.IN_DOMAIN, *rl.OUT_OF_DOMAIN}
    for name, benchmark in benchmarks.items():
        about = "face" if name == "faces" else "picture"
        assert benchmark.prompt is not None and benchmark.prompt.text == templated_wording(template, 1, about), name


def test_the_page_has_the_table_of_the_result() -> None:
    result = json.loads((ROOT / "benchmarks" / "rl.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "rl.md").read_text(encoding="utf-8")
    assert rl.table(result) in page
    words = {1: "One of three seeds is measured", 2: "Two of three seeds are measured", 3: "Three seeds are measured"}
    assert words[len(result["seeds"])] in " ".join(page.split())


def test_the_page_has_the_ratios_of_sampling() -> None:
    cases = json.loads((ROOT / "benchmarks" / "rollouts.json").read_text(encoding="utf-8"))["cases"]
    ratios = {case["tokens"]: case["ratio"] for case in cases}
    page = " ".join((ROOT / "docs" / "rl.md").read_text(encoding="utf-8").split())
    words = f"{ratios[16]:.1f} times as fast as TRL's own with answers of 16 tokens, and {ratios[64]:.1f} times with 64"
    assert words in page
