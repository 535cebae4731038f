"""Sensitivity of a suite's models: over all variants of a question, and over one choice alone, by hand."""

from __future__ import annotations

import pytest

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.report.summary_tables import sensitivity_table
from lavis_emovit.evaluation.summaries import suite_sensitivity

# Right answers out of ten.
RIGHT = {
    "wording 1, options fixed": 8,
    "wording 1, options reversed": 6,
    "wording 2, options fixed": 4,
    "wording 2, options reversed": 9,
    "wording 1, no options": 1,
    "wording 2, no options": 2,
}


def benchmark(name, right, **settings):
    rows = [
        PredictionRow(
            instance_id=f"{n}#{variant}", record_id=str(n), label="awe", prediction="awe" if n < count else "fear",
            variant=variant,
        )
        for variant, count in right.items()
        for n in range(10)
    ]  # fmt: skip
    made = BenchmarkSettings(dataset="emoset", **settings)
    assert {variant.name for variant in made.variants} == set(right)
    return BenchmarkRows(name, made, get_label_set("mikels8"), {("tiny", "likelihood"): rows}, 10)


def test_choices_are_measured_alone():
    varied = {"wordings": [1, 2], "option_orders": ["fixed", "reversed"], "with_options": [True, False]}
    of_orders = {name: count for name, count in RIGHT.items() if name in list(RIGHT)[:2]}
    (found,) = suite_sensitivity(
        [
            benchmark("both", RIGHT, **varied),
            benchmark("orders", of_orders, option_orders=["fixed", "reversed"]),
            benchmark("plain", {"wording 1, options fixed": 5}),
        ]
    )
    assert set(found["tasks"]) == {"both", "orders"} and set(found["parts"]) == {"wording", "order"}
    wording, order = found["parts"]["wording"], found["parts"]["order"]
    # 0.8 and 0.4: deviation 0.2, mean 0.6. Questions without options have no order, so they are in no part.
    assert set(wording["tasks"]) == {"both"} and wording["sensitivity"] == pytest.approx(0.2 / 0.6)
    # 0.8 and 0.6 in both benchmarks: deviation 0.1, mean 0.7.
    assert set(order["tasks"]) == {"both", "orders"} and order["sensitivity"] == pytest.approx(0.1 / 0.7)
    assert order["tasks"]["both"]["scores"] == {name: RIGHT[name] / 10 for name in of_orders}


def test_the_table_has_a_column_for_each_choice():
    right = {name: count for name, count in RIGHT.items() if "no options" not in name}
    found = suite_sensitivity([benchmark("set", right, wordings=[1, 2], option_orders=["fixed", "reversed"])])
    table = sensitivity_table({"sensitivity": found}, "key")
    assert table.columns == ["All", "Wording alone", "Order alone", "set"]
    ((_, cells),) = table.rows  # mean of all 0.675, deviation 0.192
    assert [cell.text for cell in cells] == ["0.284", "0.333", "0.143", "0.284"]
    # A summary that an earlier version wrote has no choices.
    for one in found:
        del one["parts"]
    assert sensitivity_table({"sensitivity": found}, "key").columns == ["All", "set"]
