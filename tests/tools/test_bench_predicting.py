"""The page has the figures of the comparison of predictions with the bare model."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_has_the_figures_of_the_result() -> None:
    result = json.loads((ROOT / "benchmarks" / "predicting.json").read_text(encoding="utf-8"))
    row = result["models"]["emovit_tiny"]
    page = " ".join((ROOT / "docs" / "using.md").read_text(encoding="utf-8").split())
    rate, share = row["photos_per_s"], row["predict_over_bare"]
    assert f"predicts {rate:.0f} photographs a second, {share:.2f} of the rate of the bare model" in page
    assert result["num_photos"] == 1000
