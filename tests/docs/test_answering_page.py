"""docs/answering.md and docs/speed.md say nothing that is not so: code runs, settings and figures are the real ones."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import yaml

from lavis_emovit.models.generation_settings import GenerationSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "answering.md").read_text(encoding="utf-8")


def test_the_code_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict = {}
    exec(compile(code, "docs/answering.md", "exec"), names)
    assert names["scores"].shape == (1, 8)
    assert names["chosen"][0].removeprefix("Predict emotion: ") in names["labels"].labels
    assert capsys.readouterr().out.strip() == names["words"][0]


def test_the_settings_are_the_defaults():
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert yaml.safe_load(block)["model"]["generation"] == GenerationSettings().model_dump()


def test_the_figures_of_scoring_are_those_of_the_benchmark():
    spec = importlib.util.spec_from_file_location("bench_scoring", ROOT / "tools" / "bench" / "scoring.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    result = json.loads((ROOT / "benchmarks" / "scoring.json").read_text(encoding="utf-8"))
    assert tool.table(result) in (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    by_size = {row["num_candidates"]: row for row in result["label_sets"]}
    assert by_size[8]["prompt_tokens"] >= 100 and by_size[8]["ratio"] >= 4 and by_size[25]["ratio"] >= 8
    assert all(row["largest_score_difference"] <= 1e-4 for row in result["label_sets"])
