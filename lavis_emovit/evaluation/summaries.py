"""The numbers of a suite, computed from its rows: results of each model, scoring method and benchmark.

Which metrics a benchmark has depends on its kind, see `lavis_emovit.evaluation.metrics.registry`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic_core import to_jsonable_python

from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows, ModelKey, group_key
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings
from lavis_emovit.evaluation.judging import judge_metrics, judged_reasons
from lavis_emovit.evaluation.metrics import sensitivity
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, headline_of, metrics_of
from lavis_emovit.evaluation.metrics.resampling import Resamples
from lavis_emovit.evaluation.metrics.rows import group_indices, is_right, question_groups
from lavis_emovit.evaluation.metrics.sensitivity import accuracy_of_variants
from lavis_emovit.evaluation.metrics.stated_confidence import stated_confidence
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.references import reference_rows

logger = logging.getLogger(__name__)

_WITH_VARIANTS = ("emotion", "explanation", "choice", "statement")


def benchmark_summary(benchmark: BenchmarkRows, gains: Mapping[str, str] | None = None) -> dict[str, Any]:
    """All numbers of a benchmark as plain values.

    Args:
        gains: model -> the model that its gain is over, as in `SuiteSettings`.

    Returns:
        `kind`, `dataset`, `split`, `label_set`; `results`, one for each model and scoring method (`model`, `method`,
        `num_images`, `prompt` with `name` and `sha256`, `headline` with `name`, `value` and `interval`, `num_samples`,
        `num_invalid`, `num_errors`, `num_without_truth`, `num_joined_pairs` of pairs of images, `metrics`);
        `comparisons`, each later result against the first; and `gains`, if any are wanted.
    """
    settings = benchmark.settings
    results = []
    for key, rows in benchmark.rows.items():
        num_answered = len({row.record_id for row in rows})
        result: dict[str, Any] = {
            "model": key[0],
            "method": key[1],
            "num_images": num_answered,
            "prompt": _prompt(benchmark, key),
            "num_errors": sum(row.error is not None for row in rows),
            "num_without_truth": (benchmark.num_records or num_answered) - num_answered,
        }
        if pairs := [row.is_joined for row in rows if row.is_joined is not None]:
            result["num_joined_pairs"] = sum(pairs)
        try:
            result |= result_of(benchmark.measured(key))
        except DataError as error:
            result["problem"] = str(error)
        judged = judge_metrics(benchmark.judgements.get(key, ()))
        if judged is not None:
            result["judge"] = judged.model_dump(mode="json")
        if benchmark.label_set is not None and (judgements := benchmark.judgements.get(key)):
            group_by = benchmark.measured(key).group_by
            reasons = judged_reasons(judgements, benchmark.plain(key), benchmark.label_set, group_by)
            if reasons is not None:
                result["judged_reasons"] = reasons.model_dump(mode="json")
        results.append(result)
    return {
        "kind": settings.kind,
        "dataset": settings.dataset,
        "split": settings.split,
        "label_set": benchmark.label_set.name if benchmark.label_set is not None else None,
        "results": results,
        "comparisons": _comparisons(benchmark),
        **({"gains": _gains(benchmark, gains)} if gains else {}),
    }


def _prompt(benchmark: BenchmarkRows, key: ModelKey) -> dict[str, Any] | None:
    """Name and hash of what the model was asked in the first variant; None for baselines and for older rows."""
    hashes = list(dict.fromkeys(row.prompt for row in benchmark.plain(key) if row.prompt is not None))
    if not hashes:
        return None
    own = benchmark.settings.prompt
    name = own.name if own is not None else benchmark.settings.variants[0].name
    return {"name": name, "sha256": hashes[0] if len(hashes) == 1 else hashes}


def benchmark_references(benchmark: BenchmarkRows) -> list[dict[str, Any]]:
    """Numbers from papers on a benchmark's dataset with as many labels, see `reference_rows`; none for other kinds."""
    settings = benchmark.settings
    if settings.kind not in ("emotion", "caption"):
        return []
    num_labels = len(benchmark.label_set) if benchmark.label_set is not None else None
    measured = [len({row.record_id for row in rows if row.error is None}) for rows in benchmark.rows.values()]
    return reference_rows(benchmark.name, settings.dataset, num_labels, max(measured, default=None))


def suite_sensitivity(benchmarks: Sequence[BenchmarkRows]) -> list[dict[str, Any]]:
    """How much each model's accuracy depends on the question, over the benchmarks with several variants.

    `parts` has the same for one choice alone, such as `wording` or `order`, the others being as in the first variant.
    """
    scores: dict[ModelKey, dict[str, dict[str, dict[str, float]]]] = {}
    for benchmark in benchmarks:
        if benchmark.settings.kind not in _WITH_VARIANTS or len(benchmark.settings.variants) < 2:
            continue
        groups = _variants_by_choice(benchmark.settings)
        for key, rows in benchmark.rows.items():
            # A baseline has no variants, and an interrupted suite not yet all of them.
            found_names = {row.variant for row in rows}
            if None in found_names or not {variant.name for variant in benchmark.settings.variants} <= found_names:
                continue
            accuracies = accuracy_of_variants(rows)
            of_model = scores.setdefault(key, {})
            of_model.setdefault("all", {})[benchmark.name] = accuracies
            for choice, names in groups.items():
                of_model.setdefault(choice, {})[benchmark.name] = {name: accuracies[name] for name in names}
    found = []
    for (model, method), of_choices in scores.items():
        parts = {choice: sensitivity(of_tasks).model_dump(mode="json") for choice, of_tasks in of_choices.items()}
        found.append({"model": model, "method": method, **parts.pop("all"), "parts": parts})
    return found


def _variants_by_choice(settings: BenchmarkSettings) -> dict[str, list[str]]:
    """Choice -> names of the variants that differ from the first in it alone, and of the first; two or more.

    A question without options has no order, so it is in no group with questions that have one.
    """
    first = settings.variants[0]
    alike = [variant for variant in settings.variants if (variant.order is None) == (first.order is None)]
    groups = {}
    for choice in first.choices:
        same = {name: value for name, value in first.choices.items() if name != choice}
        group = [variant.name for variant in alike if replace(variant, **same) == variant]
        if len(group) > 1:
            groups[choice] = group
    return groups


def group_summaries(
    benchmarks: Sequence[BenchmarkRows], groups: Mapping[str, Sequence[str]]
) -> dict[str, list[dict[str, Any]]]:
    """The benchmarks of each group together, for every model and scoring method: name of the group -> results.

    `mean_over_tasks` weighs every benchmark alike, `pooled` every row, so a large benchmark counts more; both have
    intervals of resamples within each benchmark. `stated_confidence` is over all rows together. A result lacks all of
    them if a benchmark is not measured (`missing`), because a mean over fewer tasks is another number.
    """
    of_name = {one.name: one for one in benchmarks}
    keys = list(dict.fromkeys(key for one in benchmarks for key in one.rows))
    found: dict[str, list[dict[str, Any]]] = {}
    for name, members in groups.items():
        found[name] = []
        for key in keys:
            rows = {one: of_name[one].plain(key) for one in members if one in of_name and key in of_name[one].rows}
            answered = {one: [row for row in of if row.error is None] for one, of in rows.items()}
            answered = {one: of for one, of in answered.items() if of}
            if not answered:
                continue
            result: dict[str, Any] = {"model": key[0], "method": key[1], "tasks": {}}
            result["missing"] = [one for one in members if one not in answered]
            found[name].append(result | (_together(answered) if not result["missing"] else {}))
    return found


def _together(answered: Mapping[str, Sequence[PredictionRow]]) -> dict[str, Any]:
    values, counts, resampled = [], [], []
    for place, rows in enumerate(answered.values()):
        right_N = np.array([is_right(row) for row in rows], dtype=np.float64)
        # Of each its own seed, so that benchmarks with as many rows are not resampled alike.
        resamples = Resamples(len(rows), group_indices(rows, question_groups(rows, group_key(rows))), seed=place)
        values.append(float(right_N.mean()))
        counts.append(len(rows))
        resampled.append(resamples.means(right_N[:, None])[:, 0])
    together = Resamples(sum(counts))
    found: dict[str, Any] = {"tasks": dict(zip(answered, values)), "num_samples": sum(counts)}
    for name, weights in (("mean_over_tasks", None), ("pooled", counts)):
        value = float(np.average(values, weights=weights))
        interval = together.share_interval(np.average(resampled, axis=0, weights=weights), value)
        found |= {name: value, f"{name}_interval": interval.model_dump()}
    rows = [row for of in answered.values() for row in of]
    if any(row.confidence is not None for row in rows):
        found["stated_confidence"] = stated_confidence(rows).model_dump(mode="json")
    return found


def compare(before: MeasuredRows, after: MeasuredRows) -> dict[str, Any]:
    """The difference of two models on a benchmark in its headline metric, on the same records.

    Returns:
        the values of `PairedComparison` (kinds with labels) or `NumbersComparison`, or `problem`: why there are none.
    """
    kind = before.settings.kind
    found = headline_of(kind)
    if found is None:
        return {"problem": f"answers of kind '{kind}' have no headline metric to compare"}
    # The instances of a variant have other names than those of a baseline, so rows are paired by question.
    firsts, seconds = (
        [
            row if row.instance_id == row.question_id else row.model_copy(update={"instance_id": row.question_id})
            for row in one.rows
        ]
        for one in (before, after)
    )
    group_by = group_key([*firsts, *seconds])
    pair = [replace(one, rows=rows, group_by=group_by) for one, rows in ((before, firsts), (after, seconds))]
    try:
        return found[1].compare(pair[0], pair[1]).model_dump(mode="json")
    except DataError as error:
        return {"problem": str(error)}


def result_of(measured: MeasuredRows) -> dict[str, Any]:
    """Headline, counts and metrics of the rows of one model, as plain values.

    Raises:
        DataError: a metric cannot be computed from these rows.
        UserError: a metric raises anything else.
    """
    if headline_of(measured.settings.kind) is None:
        rows = measured.all_variants
        return {"num_samples": len(rows), "num_invalid": sum(not (row.answer or "").strip() for row in rows)}
    found: dict[str, Any] = {"metrics": {}}
    for metric in metrics_of(measured.settings.kind):
        result, values = _measure(metric, measured)
        if values is None:
            continue
        if metric.headline is not None:
            field = metric.headline.field
            interval = values[f"{field}_interval"]
            headline = {"name": metric.headline.title, "value": values[field], "interval": interval}
            num_samples, num_invalid = metric.headline.counts(result)
            found = {"headline": headline, "num_samples": num_samples, "num_invalid": num_invalid, **found}
        found["metrics"][metric.name] = values
    return found


def _measure(metric: Metric, measured: MeasuredRows) -> tuple[Any, Any]:
    """The result of a metric, and the same as in metrics.json: with None and a warning for nan and infinity."""
    try:
        result = metric.measure(measured)
        values = to_jsonable_python(result, fallback=lambda value: value.tolist())  # numpy's numbers and arrays
    except DataError as error:
        raise error if metric.headline is not None else DataError(f"metric '{metric.name}': {error}") from None
    except Exception as error:
        raise UserError(
            f"metric '{metric.name}' of {metric.module} failed on {measured.name}: {type(error).__name__}: {error}. "
            "Repair the metric, then run the same command again; --debug shows where it failed."
        ) from error
    faults: list[str] = []
    values = json.loads(json.dumps(values), parse_constant=faults.append)
    if faults:
        what = ", ".join(dict.fromkeys(faults))
        logger.warning("metric '%s' on %s: %s becomes null in metrics.json", metric.name, measured.name, what)
    return result, values


def _comparisons(benchmark: BenchmarkRows) -> list[dict[str, Any]]:
    """Each later result against the first, on the first variant of the question."""
    if headline_of(benchmark.settings.kind) is None or len(benchmark.rows) < 2:
        return []
    first, *others = benchmark.rows
    return [_comparison(benchmark, first, key) for key in others]


def _gains(benchmark: BenchmarkRows, gains: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each of these models against the one that its gain is over, by the same scoring method."""
    pairs = [((gains[model], method), (model, method)) for model, method in benchmark.rows if model in gains]
    return [_comparison(benchmark, before, after) for before, after in pairs if before in benchmark.rows]


def _comparison(benchmark: BenchmarkRows, first: ModelKey, key: ModelKey) -> dict[str, Any]:
    values = compare(benchmark.measured(first), benchmark.measured(key))
    return {"model": key[0], "method": key[1], "against": list(first)} | values
