"""Metrics by registration.

Properties: a module that registers a metric adds its results to the summary of a benchmark and its numbers to those by
which checkpoints can be compared; every kind except captions has one headline; numbers have the names of the results
and the right direction; a second metric of the same name and a second headline are refused.
"""

from __future__ import annotations

import importlib
import sys
from typing import get_args

import pytest
from suite_folder import MIKELS, make_suite

from lavis_emovit.evaluation.benchmarks import Kind
from lavis_emovit.evaluation.metrics import Headline, Metric, numbers_of, register_metric, registry
from lavis_emovit.evaluation.metrics.registry import headline_of, metrics_of
from lavis_emovit.evaluation.report.folder import read_folder
from lavis_emovit.evaluation.summaries import benchmark_summary

MODULE = """
from lavis_emovit.evaluation.metrics import Metric, register_metric
from lavis_emovit.evaluation.metrics.results import Result


class AnswerLength(Result):
    num_answers: int
    mean_words: float


def answer_length(measured):
    answers = [row.answer for row in measured.rows if row.answer is not None]
    if not answers:
        return None
    return AnswerLength(num_answers=len(answers), mean_words=sum(len(one.split()) for one in answers) / len(answers))


register_metric(
    Metric("answer_length", kinds=("emotion",), result=AnswerLength, measure=answer_length,
           less_is_better=frozenset({"mean_words"}))
)
"""


@pytest.fixture
def added_metric(tmp_path, monkeypatch):
    (tmp_path / "metric_of_a_user.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    metrics_of("emotion")
    monkeypatch.setattr(registry, "_METRICS", dict(registry._METRICS))
    monkeypatch.setattr(registry, "_REFUSED", [])
    importlib.import_module("metric_of_a_user")
    yield
    del sys.modules["metric_of_a_user"]


def test_a_metric_is_added_in_one_module(added_metric, tmp_path):
    benchmark = read_folder(make_suite(tmp_path / "suite")).benchmarks[0]
    results = {(one["model"], one["method"]): one["metrics"] for one in benchmark_summary(benchmark)["results"]}
    assert results["tiny", "generation"]["answer_length"] == {"num_answers": 60, "mean_words": pytest.approx(3.0)}
    assert "answer_length" not in results["tiny", "likelihood"]
    assert results["tiny", "likelihood"]["classification"]["labels"] == list(MIKELS)
    numbers = numbers_of("emotion")
    assert (numbers["answer_length.mean_words"], numbers["answer_length.num_answers"]) == (True, False)
    assert not any(name.startswith("answer_length") for name in numbers_of("valence_arousal"))


def test_every_kind_has_one_headline_except_captions():
    headlines = {kind: headline_of(kind) for kind in get_args(Kind)}
    assert {kind: found[1].title for kind, found in headlines.items() if found is not None} == {
        "emotion": "accuracy",
        "explanation": "accuracy",
        "valence_arousal": "mean CCC",
        "action_units": "mean F1",
        "instruction": "ROUGE-L",
        "labels": "mean AP",
        "choice": "accuracy",
        "statement": "accuracy",
        "ranking": "overlap",
        "words": "wheel F1",
        "vqa": "accuracy",
    }
    for kind in get_args(Kind):
        assert sum(metric.headline is not None for metric in metrics_of(kind)) == (kind != "caption")


def test_numbers_and_their_directions():
    emotion = numbers_of("emotion")
    for name in ("accuracy", "macro_f1", "calibration.auroc", "accuracy_interval.low", "num_samples"):
        assert emotion[name] is False
    for name in ("calibration.ece", "calibration.brier", "calibration.aurc", "num_invalid", "soft_labels.kl"):
        assert emotion[name] is True
    assert not {
        "accuracy_interval.level",
        "labels",
        "statuses",
        "per_class",
        "confusion",
        "top_k",
        "majority_label",
    } & set(emotion)
    affect = numbers_of("valence_arousal")
    assert (affect["mean_ccc"], affect["dimensions.valence.all.ccc"]) == (False, False)
    assert affect["dimensions.arousal.all.rmse"] is True
    assert numbers_of("explanation")["explanations.contradiction"] is True
    assert "mean_f1" in numbers_of("action_units")
    assert numbers_of("caption") == {}


def test_a_second_metric_of_a_name_or_headline_is_refused(added_metric):
    with pytest.raises(ValueError, match="'answer_length' is registered already, by metric_of_a_user"):
        register_metric(Metric("answer_length", kinds=("emotion",), measure=len))
    headline = Headline("x", "x", counts=len, compare=max)
    with pytest.raises(ValueError, match=r"kind 'emotion' already has its headline.*'classification'"):
        register_metric(Metric("another", kinds=("emotion",), measure=len, headline=headline))
