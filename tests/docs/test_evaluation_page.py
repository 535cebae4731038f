"""docs/evaluation.md says what is true.

- Its settings are valid; every setting, file, adapter, kind and scoring method that it names exists; every recipe is
  listed.
- Its figures are those of the benchmarks' results.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from lavis_emovit.evaluation.adapters.base import adapters
from lavis_emovit.evaluation.benchmarks import Kind, Method
from lavis_emovit.evaluation.metrics.explanations import MIN_REASON_WORDS, ExplanationMetrics
from lavis_emovit.evaluation.metrics.registry import numbers_of
from lavis_emovit.evaluation.suite_settings import SuiteSettings
from lavis_emovit.runners.settings import RunSettings
from lavis_emovit.settings import parse_settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
TRAINING = {"output_dir": "out", "max_epoch": 1, "global_batch_size": 1, "init_lr": 1e-3}


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_settings_are_valid(block):
    ((node, values),) = yaml.safe_load(block).items()
    classes = {"suite": (SuiteSettings, {}), "run": (RunSettings, TRAINING)}
    settings, problems = parse_settings(classes[node][0], {**classes[node][1], **values}, node)
    assert settings is not None, problems


def test_numbers_that_choose_a_checkpoint_exist():
    sentence = PAGE[PAGE.index("which may be any number of its kind") :].partition(". A name")[0]
    names = re.findall(r"`([^`]+)`", sentence)
    assert len(names) == 6 and set(names) <= {name for kind in get_args(Kind) for name in numbers_of(kind)}


def test_names_exist():
    recipes = {path.stem for path in (ROOT / "projects/emovit/eval").glob("*.yaml") if "\nsuite:" in path.read_text()}
    assert {name for name in recipes if f"[{name}](../projects/emovit/eval/{name}.yaml)" in PAGE} == recipes
    assert all(f"`{name}`" in PAGE for name in (*get_args(Kind), *get_args(Method)))
    for option in re.findall(r"`suite\.(?!yaml)([a-z_]+)", PAGE):
        assert option in SuiteSettings.model_fields, option
    for adapter in adapters():
        assert f"`{adapter}`" in PAGE
    for measure in ("consistency", "contradiction", "grounding", "repetition", "english", "finished"):
        assert f"`{measure}`" in PAGE and measure in ExplanationMetrics.model_fields
    assert MIN_REASON_WORDS == 5
    from lavis_emovit.evaluation.suite.requests import MAX_FAILURES_IN_A_ROW

    assert f"fails on {MAX_FAILURES_IN_A_ROW} images in a row" in PAGE
    for path in re.findall(r"`((?:lavis_emovit|tools)/[^`]+)`", PAGE):
        assert (ROOT / path).exists(), path


def test_figures_are_those_of_the_results():
    real = json.loads((ROOT / "benchmarks" / "real_sets.json").read_text(encoding="utf-8"))
    rows = [line for line in real["table"] if line.startswith("|")]
    assert len(rows) > 5
    table = rows[: next(n for n, line in enumerate(rows) if line.startswith("| Benchmark"))]
    assert all(line in PAGE for line in table)
    speed = json.loads((ROOT / "benchmarks" / "evaluation.json").read_text(encoding="utf-8"))
    assert f"{speed['ratio_of_processor_time']:.1f} times" in PAGE
    assert speed["ratio_of_processor_time"] >= 4 and speed["largest_score_difference"] <= 1e-4
    assert speed["same_predictions"]
    assert f"two of them are {speed['ranks']['ratio']:.2f} times as fast as one" in PAGE
    assert speed["ranks"]["ratio"] >= 1.7


def test_speed_of_readers():
    page = " ".join((ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8").split())
    result = json.loads((ROOT / "benchmarks" / "readers.json").read_text(encoding="utf-8"))
    rates, times = result["answers_per_s"], result["times_faster"]["both"]
    assert (
        f"one core reads {rates['both']:,} answers a second with both readers, {rates['read_emotion']:,} with "
        f"`read_emotion` alone and {rates['read_choice']:,} with `read_choice` alone, {times} times as many as before"
    ) in page
    assert rates["both"] >= 20_000 and times >= 5  # the targets
