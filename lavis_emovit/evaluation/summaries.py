"""From the rows of a suite to its figures: one result for each model, benchmark and method, each with a headline.

Everything is computed from the rows, so a change of metrics needs no model. The headline of a benchmark of labels is
its accuracy, of valence and arousal the mean CCC, of action units the mean F1, of explanations the share whose emotion
is the true one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lavis_emovit.emotion.answer_original import read_emotion_original
from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.comparisons import (
    compare_askings,
    group_key,
    holds_intensities,
    plain_rows,
    unit_threshold,
)
from lavis_emovit.evaluation.explanations import explanation_metrics
from lavis_emovit.evaluation.judging import Judgement, judge_metrics
from lavis_emovit.evaluation.metrics import (
    accuracy_of_variants,
    action_unit_metrics,
    classification_metrics,
    dimensional_metrics,
    hierarchy_metrics,
    sensitivity,
    slice_metrics,
    soft_label_metrics,
)
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.references import reference_rows

# Ends of the intensity scale of the Facial Action Coding System, A to E as 1 to 5.
FACS_INTENSITIES = (0.0, 5.0)


@dataclass(frozen=True)
class AskedBenchmark:
    """A benchmark with the rows of all that were asked about it.

    Attributes:
        name: in the tables.
        settings: what was asked.
        label_set: what it was asked with, or None for kinds without labels.
        rows: (model, method) -> rows, in the order of the suite.
        num_records: records of the split that were looked at, None where nobody knows.
        judgements: (model, method) -> what the suite's judge said of the explanations.
    """

    name: str
    settings: BenchmarkSettings
    label_set: LabelSet | None
    rows: Mapping[tuple[str, str], Sequence[PredictionRow]]
    num_records: int | None = None
    judgements: Mapping[tuple[str, str], Sequence[Judgement]] = field(default_factory=dict)


def benchmark_summary(asked: AskedBenchmark) -> dict[str, Any]:
    """All figures of a benchmark as plain values.

    Returns:
        `kind`, `dataset`, `split`, `label_set`, `headline` (name of the metric), `results`, one for each model
        and method (`model`, `method`, `headline` with `value` and `interval`, `num_samples`, `num_invalid`,
        `num_errors`, `num_without_truth`, `metrics`), and `comparisons`, each later result against the first.
    """
    settings = asked.settings
    results = []
    for (model, method), rows in asked.rows.items():
        num_asked = len({row.record_id for row in rows})
        result: dict[str, Any] = {
            "model": model,
            "method": method,
            "num_errors": sum(row.error is not None for row in rows),
            "num_without_truth": (asked.num_records or num_asked) - num_asked,
        }
        try:
            result |= _measured(rows, asked)
        except DataError as error:
            result["problem"] = str(error)
        judged = judge_metrics(asked.judgements.get((model, method), ()))
        if judged is not None:
            result["judge"] = judged.model_dump(mode="json")
        results.append(result)
    return {
        "kind": settings.kind,
        "dataset": settings.dataset,
        "split": settings.split,
        "label_set": asked.label_set.name if asked.label_set is not None else None,
        "results": results,
        "comparisons": _comparisons(asked),
    }


def benchmark_references(asked: AskedBenchmark) -> list[dict[str, Any]]:
    """Figures of papers on a benchmark's dataset with as many labels, see `reference_rows`; none for other kinds."""
    settings = asked.settings
    if settings.kind not in ("emotion", "caption"):
        return []
    num_labels = len(asked.label_set) if asked.label_set is not None else None
    return reference_rows(asked.name, settings.dataset, num_labels)


def suite_sensitivity(benchmarks: Sequence[AskedBenchmark]) -> list[dict[str, Any]]:
    """How much each model's accuracy depends on the wording, over the benchmarks with several variants."""
    scores: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for asked in benchmarks:
        if asked.label_set is None or len(asked.settings.variants) < 2:
            continue
        for key, rows in asked.rows.items():
            if all(row.variant is not None for row in rows):
                scores.setdefault(key, {})[asked.name] = accuracy_of_variants(rows)
    return [
        {"model": model, "method": method, **sensitivity(of_tasks).model_dump(mode="json")}
        for (model, method), of_tasks in scores.items()
    ]


def _measured(rows: Sequence[PredictionRow], asked: AskedBenchmark) -> dict[str, Any]:
    """Headline and metrics of the first variant, and what is known of the others."""
    settings, label_set = asked.settings, asked.label_set
    if settings.kind == "caption":
        return {"num_samples": len(rows), "num_invalid": sum(not (row.answer or "").strip() for row in rows)}
    first = plain_rows(settings, rows)
    group_by = group_key(first)
    if label_set is not None:
        found = _of_labels(first, asked, label_set, group_by)
    elif settings.kind == "valence_arousal":
        affect = dimensional_metrics(first, group_by=group_by).model_dump(mode="json")
        found = {
            "headline": _headline("mean CCC", affect["mean_ccc"], affect["mean_ccc_interval"]),
            "num_samples": max(axis["num_samples"] for axis in affect["dimensions"].values()),
            "num_invalid": max(axis["num_invalid"] for axis in affect["dimensions"].values()),
            "metrics": {"affect": affect},
        }
    else:
        found = _of_units(first, settings, group_by)
    if len(settings.variants) > 1 and label_set is not None and any(row.variant is not None for row in rows):
        found["metrics"]["variants"] = accuracy_of_variants(rows)
    return found


def _of_labels(
    rows: Sequence[PredictionRow], asked: AskedBenchmark, label_set: LabelSet, group_by: str | None
) -> dict[str, Any]:
    settings = asked.settings
    classification = classification_metrics(rows, label_set.labels, group_by=group_by).model_dump(mode="json")
    metrics: dict[str, Any] = {"classification": classification}
    if settings.coarser:
        levels = hierarchy_metrics(rows, label_set.name, settings.coarser, group_by=group_by)
        metrics["levels"] = levels.model_dump(mode="json")["levels"]
    if all(row.votes is not None for row in rows):
        metrics["soft_labels"] = soft_label_metrics(rows, label_set.labels, group_by=group_by).model_dump(mode="json")
    if any(row.status is not None for row in rows):
        metrics["original"] = original_rule(rows, label_set)
    if settings.kind == "explanation":
        metrics["explanations"] = explanation_metrics(rows, label_set, group_by=group_by).model_dump(mode="json")
    for name in settings.slices:
        slices = slice_metrics(rows, name, lambda part: _accuracy(part, label_set))
        metrics.setdefault("slices", {})[name] = [vars(one) for one in slices]
    return {
        "headline": _headline("accuracy", classification["accuracy"], classification["accuracy_interval"]),
        "num_samples": classification["num_samples"],
        "num_invalid": classification["num_invalid"],
        "metrics": metrics,
    }


def original_rule(rows: Sequence[PredictionRow], label_set: LabelSet) -> dict[str, Any]:
    """What the published rule of reading makes of the same answers, for comparison with published numbers only.

    Returns:
        `accuracy`, over the answers in which the rule finds a label, as published, or None where it finds none;
        `num_dropped`, the others; `accuracy_of_all`, with those counted as wrong.
    """
    answered = [row for row in rows if row.error is None and row.answer is not None]
    read = [read_emotion_original(row.answer or "", label_set.labels) for row in answered]
    num_right = sum(said == row.label for said, row in zip(read, answered))
    num_read = sum(said is not None for said in read)
    return {
        "accuracy": num_right / num_read if num_read else None,
        "num_dropped": len(answered) - num_read,
        "accuracy_of_all": num_right / len(answered) if answered else None,
    }


def _accuracy(rows: Sequence[PredictionRow], label_set: LabelSet) -> dict[str, Any]:
    metrics = classification_metrics(rows, label_set.labels)
    return {"accuracy": metrics.accuracy, "interval": metrics.accuracy_interval.model_dump()}


def _of_units(rows: Sequence[PredictionRow], settings: BenchmarkSettings, group_by: str | None) -> dict[str, Any]:
    units = action_unit_metrics(
        rows,
        threshold=unit_threshold(rows, settings),
        intensity_scale=FACS_INTENSITIES if holds_intensities(rows) else None,
        group_by=group_by,
    ).model_dump(mode="json")
    return {
        "headline": _headline("mean F1", units["mean_f1"], units["mean_f1_interval"]),
        "num_samples": max(unit["num_samples"] for unit in units["units"].values()),
        "num_invalid": max(unit["num_invalid"] for unit in units["units"].values()),
        "metrics": {"action_units": units},
    }


def _comparisons(asked: AskedBenchmark) -> list[dict[str, Any]]:
    """Each later result against the first, on the plain variant of the records that both were asked about."""
    if asked.settings.kind == "caption" or len(asked.rows) < 2:
        return []
    (first, *others) = asked.rows.items()
    return [
        {"model": model, "method": method, "against": list(first[0])}
        | compare_askings(asked.settings, asked.label_set, first[1], rows)
        for (model, method), rows in others
    ]


def _headline(name: str, value: float | None, interval: Mapping[str, float] | None) -> dict[str, Any]:
    return {"name": name, "value": value, "interval": dict(interval) if interval is not None else None}
