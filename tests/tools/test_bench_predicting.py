"""The page has the figures of the comparison of predictions with the bare model."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_has_the_figures_of_the_result() -> None:
    result = json.loads((ROOT / "benchmarks" / "predicting.json").read_text(encoding="utf-8"))
    row = result["models"]["emovit_tiny"]
    page = " ".join((ROOT / "docs" / "using.md").read_text(encoding="utf-8").split())
    words = f"predicts {row['photos_per_s']:.0f} photographs a second, {row['predict_over_bare']:.2f} of the rate of the bare"
    assert result["num_photos"] == 1000 and words in page
