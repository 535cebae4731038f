"""Predictions of a model that was tuned with `box: both`.

Properties: a record with a box has its own prediction; files and records without a box, which get the whole image
alone, are counted in a warning.
"""

from __future__ import annotations

import json

import pytest

from lavis_emovit.cli.main import main
from lavis_emovit.processors.emovit_image_eval import EmovitImageEvalProcessor
from lavis_emovit.records import EmotionRecord, write_records
from lavis_emovit.tuned import loading


@pytest.fixture(autouse=True)
def shows_both(monkeypatch):
    own = loading._processor

    def processor(values):
        is_image = values is not None and values["name"] == "emovit_image_eval"
        return EmovitImageEvalProcessor.from_config({**values, "box": "both"}) if is_image else own(values)

    monkeypatch.setattr(loading, "_processor", processor)


def test_images_without_a_box_are_counted(run, tmp_path, capsys):
    image = run.images[0]
    boxes = {"left": (0.0, 0.0, 30.0, 40.0), "right": (30.0, 0.0, 60.0, 40.0), "none": None}
    records = [EmotionRecord(id=key, image=image.name, split="test", source="c", box=box) for key, box in boxes.items()]
    write_records(tmp_path / "records.jsonl", records)
    ask = ["predict", str(run.folder), str(tmp_path / "records.jsonl"), str(image), "--image-root", str(image.parent)]
    assert main([*ask, "--kinds", "emotion", "--device", "cpu", "--out", "rows.jsonl"]) == 0
    assert "warning: records without a box: 2; their image is shown whole" in capsys.readouterr().err
    rows = {row["image"]: row["probabilities"] for row in map(json.loads, (tmp_path / "rows.jsonl").open())}
    assert len({tuple(sorted(row.items())) for row in rows.values()}) == 3
    assert rows["none"] == pytest.approx(rows[str(image)], rel=1e-5)
