"""The page of the sample set: its tables are up to date, its example is drawn, and its image is small."""

from __future__ import annotations

import importlib.util
import json
import random
import re
from dataclasses import replace
from pathlib import Path

from lavis_emovit.sample_set.draw import render
from lavis_emovit.sample_set.scene import sample_scene
from lavis_emovit.sample_set.vocabulary import FACTS

REPOSITORY = Path(__file__).resolve().parents[2]


def test_tables_are_up_to_date():
    spec = importlib.util.spec_from_file_location("measure_sketch", REPOSITORY / "tools" / "measure_sketch.py")
    assert spec and spec.loader
    measure_sketch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure_sketch)
    page = measure_sketch.PAGE.read_text(encoding="utf-8")
    assert "| all facts | 1.00 |" in page
    assert measure_sketch.fill_page(page) == page, "run: python tools/measure_sketch.py --write"


def test_example_of_a_new_object_is_drawn(monkeypatch):
    scene = sample_scene(random.Random(0))
    page = (REPOSITORY / "docs" / "sample_set.md").read_text(encoding="utf-8")
    example = re.search(r'\n( {4}"kite": .*?\n {4}\})\n', page, flags=re.DOTALL)
    assert example
    monkeypatch.setitem(FACTS["object"], "kite", json.loads("{" + example[1] + "}")["kite"])
    images = [render(replace(scene, view="none", second_object="none", object=name)) for name in ("kite", "none")]
    assert images[0].tobytes() != images[1].tobytes()


def test_image_is_small():
    image = REPOSITORY / "docs" / "images" / "sample_set.jpg"
    assert 20_000 < image.stat().st_size < 200_000
