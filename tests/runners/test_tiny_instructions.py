"""The quick start with instruction data, shortened: `projects/emovit/quickstart_instructions.yaml` runs as it is.

- One command draws images, writes instructions offline, trains on three kinds, and reports held-out answers of all
  three, before and after tuning, with a measure for each kind; tuning lowers the token loss of both kinds of texts.
- No held-out record is trained on, and what is trained on is what `prepared.json` counts.
- A model that would cut answers is refused before anything is evaluated, if the recipe says so.
"""

from __future__ import annotations

import json
import logging

import pytest

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.records import read_records
from lavis_emovit.runners.logs import read_log
from lavis_emovit.train import run_recipe

RECIPE = "projects/emovit/quickstart_instructions.yaml"
PREPARE = "datasets.emoset_sketch.build_info.prepare"
MIX = "[{kinds: [categorical, conversation, reasoning], per_class: 2}, {kinds: [categorical]}]"
SMALL = (
    f"{PREPARE}.draw.images_per_class=10",
    f"{PREPARE}.instructions.mix.parts={MIX}",
    "run.max_steps=10",
    "run.warmup_steps=2",
    "run.global_batch_size=8",
    "run.num_threads=1",
    "run.num_report_answers=2",
    "run.output_dir=out",
    "run.device=cpu",
    *(
        f"run.test_benchmarks.{kind}.{key}"
        for kind in ("conversation", "reasoning")
        for key in ("limit=6", "max_new_tokens=24")
    ),
)


@pytest.fixture
def tune(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOVIT_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return lambda *options: run_recipe(RECIPE, [*SMALL, *options])


def test_from_nothing_to_a_report_of_three_kinds(tune, tmp_path, caplog):
    with pytest.raises(DataError, match=r"reasoning answers are longer than model.max_output_txt_len=40 tokens"):
        tune("model.max_output_txt_len=40", "run.cut_texts=refuse", "run.output_dir=refused")
    assert not (tmp_path / "refused" / "predictions").exists()

    with caplog.at_level(logging.INFO, "lavis_emovit"):
        metrics = tune()["splits"]
    assert "training texts" not in caplog.text and "emoset_sketch: training on 56 of 56 images" in caplog.text
    assert set(metrics) == {"test", "conversation", "reasoning"}
    for kind in ("conversation", "reasoning"):
        before, after = metrics[kind]["before"], metrics[kind]["after"]
        assert before["num_written"] == before["num_scored"] == after["num_samples"] == 6
        assert after["token_loss"] < before["token_loss"] - 1.0
        assert 0.0 <= before["rouge_l"] <= 1.0 and after["rouge_l_interval"] is not None
    rows = read_predictions(tmp_path / "out" / "predictions" / "reasoning-after.jsonl")
    assert all(row.question and row.reference and row.answer is not None and row.values for row in rows)
    assert sum(row.image is not None for row in rows) == 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert rows[0].question in page and "Token loss of the reference" in page and "On conversation" in page

    prepared = json.loads((tmp_path / "data" / "emoset_sketch_instructions" / "prepared.json").read_text())
    pairs = prepared["instructions"]["splits"]["train"]["pairs"]
    assert pairs == {"categorical": 56, "conversation": 48, "reasoning": 16}
    records = {record.id: record for record in read_records(tmp_path / "data/emoset_sketch_instructions/records.jsonl")}
    assert {records[row.record_id].split for row in rows} == {"test"}
    steps = [row for row in read_log(tmp_path / "out" / "log.jsonl") if row["event"] == "step"]
    assert len(steps) == 10 and all(row["num_truncated_answers"] == 0 for row in steps)
