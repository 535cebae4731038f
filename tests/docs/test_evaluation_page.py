"""docs/evaluation.md says what is true.

- Its suites are valid, and every setting, file, adapter, kind and way that it names exists; every recipe is listed.
- Its figures are those of the benchmarks' results.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from lavis_emovit.evaluation.benchmarks import Kind, Method
from lavis_emovit.evaluation.metrics.explanations import MIN_REASON_WORDS, ExplanationMetrics
from lavis_emovit.evaluation.suite.settings import SuiteSettings
from lavis_emovit.settings import parse_settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
SUITES = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("block", SUITES, ids=range(len(SUITES)))
def test_suites_are_valid(block):
    settings, problems = parse_settings(SuiteSettings, yaml.safe_load(block)["suite"], "suite")
    assert settings is not None, problems


def test_names_exist():
    recipes = {path.stem for path in (ROOT / "projects/emovit/eval").glob("*.yaml") if "\nsuite:" in path.read_text()}
    assert {name for name in recipes if f"[{name}](../projects/emovit/eval/{name}.yaml)" in PAGE} == recipes
    assert all(f"`{name}`" in PAGE for name in (*get_args(Kind), *get_args(Method)))
    for option in re.findall(r"`suite\.(?!yaml)([a-z_]+)", PAGE):
        assert option in SuiteSettings.model_fields, option
    for adapter in ("lavis", "transformers", "chat", "majority", "prior", "clip", "clip_probe", "colours"):
        assert f"`{adapter}`" in PAGE
    for measure in ("consistency", "contradiction", "grounding", "repetition", "english", "finished"):
        assert f"`{measure}`" in PAGE and measure in ExplanationMetrics.model_fields
    assert MIN_REASON_WORDS == 5
    from lavis_emovit.evaluation.suite.requests import MOST_FAILURES_IN_A_ROW

    assert f"fails on {MOST_FAILURES_IN_A_ROW} pictures in a row" in PAGE
    for path in re.findall(r"`((?:lavis_emovit|tools)/[^`]+)`", PAGE):
        assert (ROOT / path).exists(), path


def test_figures_are_those_of_the_results():
    real = json.loads((ROOT / "benchmarks" / "real_sets.json").read_text(encoding="utf-8"))
    rows = [line for line in real["table"] if line.startswith("|")]
    assert len(rows) > 5
    table = rows[: next(n for n, line in enumerate(rows) if line.startswith("| benchmark"))]
    assert all(line in PAGE for line in table)
    speed = json.loads((ROOT / "benchmarks" / "evaluation.json").read_text(encoding="utf-8"))
    assert f"{speed['ratio_of_processor_time']:.1f} times" in PAGE
    assert speed["ratio_of_processor_time"] >= 4 and speed["largest_score_difference"] <= 1e-4
    assert speed["same_predictions"]
    assert f"two of them are {speed['ranks']['ratio']:.2f} times as fast as one" in PAGE
    assert speed["ranks"]["ratio"] >= 1.7
