"""docs/metrics.md is true.

- Every number, function and module that it names exists; it names every field of every result.
- Its example runs; its seconds are those of the benchmark, which ran at the size that the page states.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from lavis_emovit.evaluation.metrics import (
    action_units,
    calibration,
    classification,
    comparison,
    dimensional,
    folds,
    hierarchy,
    label_ranking,
    over_time,
    registry,
    slices,
    soft_labels,
)
from lavis_emovit.evaluation.predictions import PredictionRow

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
RESULT = json.loads((ROOT / "benchmarks" / "metrics.json").read_text(encoding="utf-8"))

MODULES = (
    *(action_units, calibration, classification, comparison, dimensional, folds, hierarchy, over_time),
    *(
        label_ranking,
        registry,
        slices,
        soft_labels,
        importlib.import_module("lavis_emovit.evaluation.metrics.sensitivity"),
    ),
)

# Heading -> the results whose numbers it explains.
RESULTS = {
    "Labels": [classification.ClassificationMetrics, classification.ClassMetrics],
    "Folds": [folds.Fold, folds.FoldMetrics],
    "From coarse to fine": [hierarchy.LevelMetrics],
    "Confidence": [calibration.Calibration],
    "Valence, arousal and other numbers": [
        dimensional.AgreementOfNumbers,
        dimensional.DimensionalMetrics,
        over_time.CurveMetrics,
    ],
    "Action units": [action_units.UnitMetrics, action_units.ActionUnitMetrics],
    "Several labels of one image": [label_ranking.LabelRanking, label_ranking.LabelRankingMetrics],
    "Soft labels": [soft_labels.SoftLabelMetrics],
    "Two models": [comparison.PairedComparison],
}
# Fields with names and counts, which are not metrics.
PLAIN = {
    "before", "after", "bins", "calibration", "dimensions", "folds", "groups", "intervals", "label", "label_set",
    "labels", "levels",
    "majority_label", "metric", "name", "num_errors", "num_invalid", "num_labels",
    "num_only_after", "num_only_before", "num_pairs", "num_samples", "predicted", "scale", "support", "threshold",
    "units",
}  # fmt: skip


def section(heading: str) -> str:
    (text,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    return text


@pytest.mark.parametrize("heading", RESULTS)
def test_every_number_of_a_result_is_explained_and_every_explained_number_exists(heading):
    named = set(re.findall(r"`(\w+)`", section(heading)))
    fields = {name for result in RESULTS[heading] for name in result.model_fields}
    numbers = {name for name in fields - PLAIN if not name.endswith(("_interval", "_intervals"))}
    in_words = set(re.findall(r"\w+", section(heading).lower()))
    assert not {name for name in numbers if name not in named and name not in in_words}
    explained = {
        name
        for row in re.findall(r"^\| (`.*?) \|", section(heading), flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert explained <= fields


def test_functions_and_modules_exist():
    for name, arguments in re.findall(r"`([a-z_]+)\(([^`]*)\)`", PAGE):
        assert any(callable(getattr(module, name, None)) for module in MODULES), (name, arguments)
    for name in re.findall(r"`(lavis_emovit\.[\w.]+)`", PAGE):
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


def test_the_examples_run(capsys, monkeypatch, tmp_path):
    example, own_metric = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(example, "docs/metrics.md", "exec"), {})
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("0.5 ") and shown[0].endswith(" 1")
    assert shown[1] == "0.5"
    registry.metrics_of("emotion")
    monkeypatch.setattr(registry, "_METRICS", dict(registry._METRICS))
    (tmp_path / "answer_length.py").write_text(own_metric)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("answer_length")
    monkeypatch.delitem(sys.modules, "answer_length")
    (metric,) = (one for one in registry.metrics_of("explanation") if one.name == "answer_length")
    rows = [
        PredictionRow(instance_id=str(n), record_id=str(n), label="awe", prediction=None, **given)
        for n, given in enumerate(({"answer": "awe"}, {"answer": "it is awe"}, {"error": "bad image"}, {}))
    ]
    found = metric.measure(registry.MeasuredRows(rows, rows, None, None, None))
    assert (found.num_answers, found.mean_words, found.one_word) == (2, 2.0, 0.5)
    assert metric.measure(registry.MeasuredRows(rows[2:], rows, None, None, None)) is None
    (name,) = re.findall(r"run\.best_metric=([\w.]+)`", section("Your own metric"))
    assert registry.numbers_of("emotion")[name] is True
    assert registry.numbers_of("emotion")["answer_length.one_word"] is False


def test_the_seconds_are_those_of_the_benchmark():
    assert (RESULT["num_rows"], RESULT["num_resamples"]) == (20_000, 1000)
    few, many = (RESULT["processor_s"][name]["everything about labels"] for name in ("mikels8", "webemo25"))
    assert f"take {few:.1f} s with 8 labels and {many:.1f} s\nwith 25" in section("Speed")
    for group in RESULT["processor_s"].values():
        assert max(seconds for name, seconds in group.items() if name != "all tasks") < min(3, few + 0.1)
    tasks = RESULT["processor_s"]["tasks"]
    texts = tasks["explanations"] + tasks["reasons"]
    page = " ".join((ROOT / "docs" / "tasks.md").read_text(encoding="utf-8").split())
    assert f"all tasks but explanations take {tasks['all tasks'] - texts:.1f} s of processor time" in page
    assert f"The words of explanations take {texts:.1f} s" in page
