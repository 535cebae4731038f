"""`tools/bench/scoring.py`: it runs on tiny shapes, both ways score alike, and ratios are of the times beside them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("bench_scoring", ROOT / "tools" / "bench" / "scoring.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_measures_both_ways_on_the_same_scores(tool, tmp_path, capsys, monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    out = tmp_path / "scoring.json"
    assert tool.main(["--shapes", "tiny", "--images", "2", "--rounds", "3", "--threads", "1", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert threads == [1]
    assert capsys.readouterr().out.strip() == tool.table(result)
    assert result["command"].endswith(f"--threads 1 --out {out}")
    assert [row["num_candidates"] for row in result["label_sets"]] == [8, 25]
    for row in result["label_sets"]:
        seconds = row["median_seconds"]
        assert row["ratio"] == pytest.approx(seconds["plain"] / seconds["one pass"])
        assert row["images_per_s"] == pytest.approx(2 / seconds["one pass"])
        assert row["largest_score_difference"] <= 1e-4
        assert len(row["ratio_of_each_round"]) == 3


def test_scores_that_differ_stop_it(tool, monkeypatch):
    model = tool.build_model("tiny", "cpu")
    plain = tool.plain_scores
    monkeypatch.setattr(tool, "plain_scores", lambda *arguments: plain(*arguments) + 0.01)
    with pytest.raises(SystemExit, match=r"differ by 0\.01"):
        tool.measure(model, "EmoSet", 1, 1)
