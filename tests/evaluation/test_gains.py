"""Gains of a suite: a tuned model minus the named one, by the same scoring method, paired by image, by hand, as numbers
and as a table; wrong names are refused."""

from __future__ import annotations

import pytest

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import ConfigError
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.report.comparison import Compared, comparison_table
from lavis_emovit.evaluation.suite_settings import SuiteSettings
from lavis_emovit.evaluation.summaries import benchmark_summary
from lavis_emovit.settings import valid_settings

# Ten images: those of "awe" are right.
ANSWERS = {
    ("colours", "direct"): "aaaaaaaaaa",
    ("llava", "likelihood"): "aaaaffffff",
    ("tuned", "likelihood"): "faaaaaaaff",
    ("llava", "generation"): "ffffffffff",
    ("tuned", "generation"): "aaffffffff",
    ("emovit", "likelihood"): "aaaaaaaaaa",
}


def benchmark() -> BenchmarkRows:
    names = {"a": "awe", "f": "fear"}
    variant = BenchmarkSettings(dataset="emoset").variants[0].name
    rows = {
        key: [
            PredictionRow(
                instance_id=str(n), record_id=str(n), label="awe", prediction=names[letter],
                variant=None if key[1] == "direct" else variant,
            )
            for n, letter in enumerate(answers)
        ]
        for key, answers in ANSWERS.items()
    }  # fmt: skip
    return BenchmarkRows("set", BenchmarkSettings(dataset="emoset"), get_label_set("mikels8"), rows, 10)


def test_gains_are_those_of_the_named_pairs_alone():
    summary = benchmark_summary(benchmark(), {"tuned": "llava", "emovit": "instructblip"})
    found = {(one["model"], one["method"], *one["against"]): one for one in summary["gains"]}
    assert set(found) == {
        ("tuned", "likelihood", "llava", "likelihood"), ("tuned", "generation", "llava", "generation"),
    }  # fmt: skip
    first = found["tuned", "likelihood", "llava", "likelihood"]
    # 4 right before, 7 after: 4 only after, 1 only before.
    assert first["difference"] == pytest.approx(0.3) and first["num_pairs"] == 10
    assert (first["num_only_after"], first["num_only_before"]) == (4, 1)
    assert first["p_value"] == pytest.approx(2 * (1 + 5) / 2**5)
    assert first["interval"]["low"] < 0.3 < first["interval"]["high"]
    assert found["tuned", "generation", "llava", "generation"]["difference"] == pytest.approx(0.2)
    assert "gains" not in benchmark_summary(benchmark())

    compared = [Compared(one["model"], one["against"][0], one) for one in summary["gains"]]
    table = comparison_table("gains", "Gains", compared)
    assert [(head, cells[0].text, cells[1].text) for head, cells in table.rows] == [
        ("tuned", "llava", "+30.0"), ("tuned", "llava", "+20.0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gains", "message"),
    [
        ({"tuned": "lava"}, r"gains: no model lava \(did you mean 'llava'\?\)"),
        ({"tuned": "tuned"}, "a model has no gain over itself"),
    ],
)
def test_wrong_names_are_refused(gains, message):
    models = {"llava": {"adapter": "majority"}, "tuned": {"adapter": "majority"}}
    values = {"name": "s", "output_dir": "o", "models": models, "benchmarks": {"set": {"dataset": "emoset"}}}
    assert valid_settings(SuiteSettings, {**values, "gains": {"tuned": "llava"}}, "suite", "x").gains
    with pytest.raises(ConfigError, match=message):
        valid_settings(SuiteSettings, {**values, "gains": gains}, "suite", "x")
