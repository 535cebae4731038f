"""`tools/bench/evaluation.py`: on tiny shapes and drawn shards, both sides give the same rows, and ratios are of the
times beside them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def test_it_measures_both_sides_on_the_same_rows(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("bench_evaluation", ROOT / "tools" / "bench" / "evaluation.py")
    tool = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "bench"))
    spec.loader.exec_module(tool)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    out = tmp_path / "evaluation.json"
    options = ["--shapes", "tiny", "--pictures", "3", "--batch-size", "2", "--rounds", "1", "--no-ranks"]
    assert tool.main([*options, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    seconds = result["processor_seconds"]
    assert result["ratio_of_processor_time"] == pytest.approx(seconds["plain"] / seconds["ours"])
    assert result["largest_score_difference"] <= 1e-4 and result["same_predictions"]
    assert result["labels"] == 8 and "ranks" not in result
