"""The page of the sample set: its tables are those that its script measures now, and its picture is small."""

from __future__ import annotations

import importlib.util
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_tables_are_up_to_date():
    spec = importlib.util.spec_from_file_location("measure_sketch", REPOSITORY / "tools" / "measure_sketch.py")
    assert spec and spec.loader
    measure_sketch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure_sketch)
    page = measure_sketch.PAGE.read_text(encoding="utf-8")
    assert "| all facts | 1.00 |" in page
    assert measure_sketch.fill_page(page) == page, "run: python tools/measure_sketch.py --write"


def test_picture_is_small():
    picture = REPOSITORY / "docs" / "images" / "sample_set.jpg"
    assert 20_000 < picture.stat().st_size < 200_000
