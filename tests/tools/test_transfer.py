"""The transfer benchmark: its result has the numbers of the suite, and how far each training came."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools" / "bench"))
from transfer import summarise, training_of


def test_results_and_gains_are_those_of_the_suite():
    interval = {"low": 0.1, "high": 0.5, "level": 0.95}
    result = {"model": "tuned", "num_images": 4, "headline": {"value": 0.75, "interval": interval}}
    gain = {
        "model": "tuned", "method": "likelihood", "against": ["llava", "likelihood"], "num_pairs": 4,
        "difference": 0.25,
        "interval": None, "num_only_after": 2, "num_only_before": 1, "p_value": 1.0,
    }  # fmt: skip
    found = summarise({"benchmarks": {"faces": {"results": [result], "gains": [gain]}}})
    assert found["results"] == [
        {"benchmark": "faces", "model": "tuned", "num_images": 4, "accuracy": 0.75, "accuracy_interval_95": [0.1, 0.5]}
    ]
    (row,) = found["gains"]
    assert (row["model"], row["over"], row["difference"], row["num_only_after"]) == ("tuned", "llava", 0.25, 2)
    assert row["difference_interval_95"] is None


def test_a_stopped_training_is_not_finished(tmp_path):
    rows = [{"event": "step", "step": n, "epoch": 1 + n // 3, "step_s": 0.5} for n in (1, 2, 3)]
    lines = [*rows, {"event": "eval", "step": 3}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"run": {"max_epoch": 4}}))
    wanted = {"is_finished": False, "num_steps": 3, "num_epochs": 2, "max_epoch": 4, "step_s_total": 1.5}
    assert training_of(tmp_path) == wanted
    (tmp_path / "metrics.json").write_text("{}")
    assert training_of(tmp_path)["is_finished"]
