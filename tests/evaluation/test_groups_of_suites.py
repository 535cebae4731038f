"""Groups of benchmarks: mean over tasks and pooled accuracy.

- VECBench's published group OOD-VER has 50.37 as the mean over its tasks and 59.16 pooled over its answers; both are
  reproduced from the accuracies and sizes of its tasks.
- EEmo-Bench's published overall accuracy is the pooled one.
- Intervals contain the values; unread answers are wrong; stated confidence is over all rows together.
- A group lacks its numbers if a task is missing, and says which; wrong groups are refused.
"""

from __future__ import annotations

import pytest

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.report.summary_tables import groups_table
from lavis_emovit.evaluation.suite_settings import SuiteSettings
from lavis_emovit.evaluation.summaries import group_summaries
from lavis_emovit.settings import parse_settings

# Task -> right answers and questions: 29.26 %, 41.94 % and 79.90 %, as EmoCaliber publishes them.
OOD = {"abstract": (67, 229), "artphoto": (338, 806), "unbiasedemo": (799, 1000)}
KEY = ("calibrated", "generation")


def benchmark(name, right, count, **values):
    rows = [
        PredictionRow(
            instance_id=f"{n}", record_id=f"{n}", label="awe",
            prediction="awe" if n < right else "fear" if n % 2 else None, **values,
        )
        for n in range(count)
    ]  # fmt: skip
    return BenchmarkRows(name, BenchmarkSettings(dataset="emoset"), get_label_set("mikels8"), {KEY: rows}, count)


def test_both_published_averages_are_reproduced():
    (found,) = group_summaries([benchmark(name, *counts) for name, counts in OOD.items()], {"OOD-VER": list(OOD)})[
        "OOD-VER"
    ]
    # The published mean is that of the rounded accuracies.
    assert 100 * found["mean_over_tasks"] == pytest.approx(50.37, abs=0.01) and round(100 * found["pooled"], 2) == 59.16
    assert found["num_samples"] == 2035 and found["missing"] == [] and "stated_confidence" not in found
    for name in ("mean_over_tasks", "pooled"):
        interval = found[f"{name}_interval"]
        assert interval["low"] < found[name] < interval["high"] and interval["high"] - interval["low"] < 0.06
    assert found["tasks"]["abstract"] == pytest.approx(67 / 229)


def test_the_overall_accuracy_of_eemo_bench_is_pooled():
    """Of GPT-4o: 66.53 % of 3,920 questions about single images, 62.95 % of 2,012 about pairs, 65.31 % overall."""
    both = [benchmark("single", round(0.6653 * 3920), 3920), benchmark("pair", round(0.6295 * 2012), 2012)]
    (found,) = group_summaries(both, {"perception": ["single", "pair"]})["perception"]
    assert 100 * found["pooled"] == pytest.approx(65.31, abs=0.02) and 100 * found["mean_over_tasks"] < 64.8


def test_confidence_is_pooled_over_the_answers():
    both = [benchmark("a", 3, 4, confidence=0.5), benchmark("b", 0, 6, confidence=0.1)]
    (found,) = group_summaries(both, {"g": ["a", "b"]})["g"]
    # Two bins: 4 answers at 0.5 with 3 right, 6 at 0.1 with none right.
    assert found["stated_confidence"]["ece"] == pytest.approx((4 * 0.25 + 6 * 0.1) / 10)
    assert found["mean_over_tasks"] == pytest.approx(0.375) and found["pooled"] == pytest.approx(0.3)


def test_a_missing_task_leaves_no_mean():
    found = group_summaries([benchmark("abstract", 1, 4)], {"OOD-VER": ["abstract", "artphoto"]})
    (one,) = found["OOD-VER"]
    assert one["missing"] == ["artphoto"] and "mean_over_tasks" not in one and "pooled" not in one
    table = groups_table({"groups": found}, "key")
    assert "lacks artphoto; a mean over fewer tasks is another number" in table.notes[0]
    assert groups_table({}, "key") is None


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ({"g": ["one", "twoo"]}, "groups.g: no benchmark twoo (did you mean 'two'?)"),
        ({"g": ["one"]}, "groups.g: name two or more different benchmarks"),
        ({"g": ["one", "one"]}, "groups.g: name two or more different benchmarks"),
        ({"g": ["one", "affect"]}, "groups.g: 'affect' has no accuracy"),
    ],
)
def test_wrong_groups_are_refused(groups, problem):
    values = {
        "name": "x", "output_dir": "out", "models": {"m": {"adapter": "prior"}}, "groups": groups,
        "benchmarks": {"one": {"dataset": "fi"}, "two": {"dataset": "fi"},
                       "affect": {"dataset": "oasis", "kind": "valence_arousal"}},
    }  # fmt: skip
    settings, problems = parse_settings(SuiteSettings, values, "suite")
    assert settings is None and problem in "; ".join(problems)
