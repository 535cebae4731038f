"""Requests to models and their answers as rows.

- One rule decides which action units are active, for language models, baselines, SEKE and statistics: an intensity
  counts from `active_from`, a unit without intensities if it is present.
"""

from __future__ import annotations

import math

import pytest

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.metrics.registry import MeasuredRows
from lavis_emovit.evaluation.suite.requests import Prepared, baseline_rows, request_rows
from lavis_emovit.evaluation.summaries import result_of
from lavis_emovit.evaluation.truths import truth_of
from lavis_emovit.generation.seke.levels import known_levels
from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.statistics import count_records

UNITS = BenchmarkSettings(dataset="bp4d", kind="action_units", active_from=2)

# As in BP4D: AU1 is coded for occurrence, AU12 with intensity. The truth of "active" is the last column.
CODED = [
    (0, {1: 1.0, 12: 3.0}, {"occurrence_only": "1"}, {1, 12}),
    (1, {1: 1.0, 12: 1.0}, {"occurrence_only": "1"}, {1}),
    (2, {1: 0.0, 12: 2.0}, {"occurrence_only": "1"}, {12}),
    (3, {1: 0.0, 12: 0.0}, {"occurrence_only": "1"}, set()),
    # CK+ has units without a grade, SEKE completes units, and Aff-Wild2 codes nothing but occurrence.
    (4, {1: 1.0, 12: 4.0}, {"ungraded_action_units": "1"}, {1, 12}),
    (5, {1: 3.0, 12: 1.0}, {"seke_given": "expression unit:12"}, {1, 12}),
    (6, {1: 1.0, 12: 0.0}, {"occurrence_only": "1,12"}, {1}),
]


ACTIVE = {f"r{number}": active for number, _, _, active in CODED}


def coded(number, units, extra):
    return EmotionRecord(id=f"r{number}", image="a.jpg", split="test", source="bp4d", action_units=units, extra=extra)


def items_of(records):
    return [Item(record, b"", truth_of(record, UNITS, None)) for record in records]


class Perfect:
    """Answers every question about units, and predicts every value, as `ACTIVE` and the record have it."""

    def score(self, images, image_index, questions, method):
        return [
            [0.0, -9.0] if int(question.key[2:]) in ACTIVE[images[place]] else [-9.0, 0.0]
            for place, question in zip(image_index, questions)
        ]

    def write(self, images, image_index, questions):
        found = (ACTIVE[images[place]] for place in image_index)
        return [", ".join(f"AU{unit}" for unit in units) or "None of them." for units in found]

    images_at_once = 0

    def predict(self, items):
        return [dict(item.truth.values) for item in items]


@pytest.mark.parametrize("method", ["likelihood", "generation", "direct"])
def test_a_perfect_model_of_action_units_has_an_f1_of_one(method):
    items = items_of([coded(*row[:3]) for row in CODED])
    if method == "direct":
        rows = baseline_rows(Perfect(), items, UNITS, None)
    else:
        batch = [Prepared(item, item.record.id) for item in items]
        # An image that cannot be decoded, with intensities, does not change how the others are read.
        batch.append(Prepared(items_of([coded(99, {1: 1.0, 12: 5.0}, {})])[0], problem="no image"))
        rows = request_rows(Perfect(), batch, UNITS, method, None)
    result = result_of(MeasuredRows(rows, rows, UNITS, None, None))
    metrics = result["metrics"]["action_units"]
    assert (metrics["mean_f1"], metrics["mean_accuracy"]) == (1.0, 1.0)
    assert {name: unit["support"] for name, unit in metrics["units"].items()} == {"AU1": 5, "AU12": 4}
    if method == "direct":
        # Intensities only: AU1 has one, AU12 those of five rows, all of them right.
        assert metrics["units"]["AU1"]["icc"] is None and metrics["units"]["AU12"]["icc"] == pytest.approx(1.0)
        assert math.isclose(metrics["mean_icc"], 1.0)


@pytest.mark.parametrize(("number", "units", "extra", "active"), CODED)
def test_one_rule_of_active_units(number, units, extra, active):
    record = coded(number, units, extra)
    assert {unit for unit, is_active in known_levels(record, 2.0).units.items() if is_active} == active
    counted = count_records([record]).action_units
    assert {unit for unit, (_, present) in counted.items() if present} == {u for u, value in units.items() if value}


@pytest.mark.parametrize("dataset", ["my_own", "my-own", "coco_caption"])
def test_a_dataset_that_is_not_found_is_named_with_the_ways_to_declare_it(dataset):
    from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
    from lavis_emovit.evaluation.suite.benchmark_data import open_benchmark

    with pytest.raises(DataError, match=f"no dataset '{dataset}' of records is registered.* EMOVIT_DATASETS names"):
        open_benchmark("b", BenchmarkSettings(dataset=dataset))
