"""Parts of a report about one benchmark: tables that `texts.yaml` describes, confusions, curves and custom metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lavis_emovit.emotion.facial import facial_priors
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows, ModelKey, result_name
from lavis_emovit.evaluation.metrics.rows import GROUP, value_arrays
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.report import charts
from lavis_emovit.evaluation.report.sections import Matrix, Part, filled, text_part, texts
from lavis_emovit.evaluation.report.summary_tables import other_table
from lavis_emovit.evaluation.report.table import (
    NOTHING,
    Cell,
    Table,
    Values,
    interval_at,
    invalid_answers,
    number_cell,
    percent,
    share_cell,
    value_at,
)

MAX_SLICES = 20
MAX_MISTAKES = 5
MAX_VIDEOS = 4


Found = dict[str, Any]
"""Names of models -> their values of the metric of a part, for the models that have it."""


@dataclass(frozen=True)
class Measured:
    """The measured results of a benchmark: names of models -> results in the form of metrics.json."""

    key: str
    benchmark: BenchmarkRows
    results: Mapping[str, Values]

    def having(self, path: str) -> Found:
        """The values of a metric (or a judge)."""
        judged = ("judge", "judged_reasons")
        metrics = {
            name: {**one["metrics"], **{key: one.get(key) for key in judged}} for name, one in self.results.items()
        }
        return {name: found for name, values in metrics.items() if (found := value_at(values, path.split(".")))}

    def table(self, name: str, caption: str, corner: str, columns: Sequence[str], rows: Sequence[Any]) -> Table:
        """A table of this benchmark."""
        return Table(f"{self.key}-{name}-table", caption, corner, columns, rows)


def benchmark_parts(key: str, benchmark: BenchmarkRows, results: Sequence[Values]) -> list[Part]:
    """All parts about what was measured; `key` starts their ids."""
    measured = Measured(
        key, benchmark, {result_name(one["model"], one["method"]): one for one in results if "metrics" in one}
    )
    parts = []
    for name, make in _CONTENTS.items():
        if found := _found(name, measured):
            contents = {"values": next(iter(found.values()))} | make(name, measured, found)
            parts.append(text_part(name, key, **contents))
    if other := other_table(f"{key}-other-table", "Metrics without a part of their own", measured.results.values()):
        parts.append(text_part("other", key, tables=[other]))
    return [part for part in parts if part.tables or part.matrices or part.charts or part.remarks]


def _found(name: str, measured: Measured) -> Found:
    """The values for a part: of its metric, or of the metric with categories."""
    if name != "categories":
        return measured.having(texts()[name]["metric"])
    return next((found for metric in _WITH_CATEGORIES if (found := measured.having(f"{metric}.categories"))), {})


def _described(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    """The tables that `texts.yaml` describes."""
    tables = []
    for number, (caption, styles) in enumerate(texts()[name]["tables"].items(), start=1):
        cells = {
            head: [_cell(style, values, measured.results[model]) for model, values in found.items()]
            for head, style in styles.items()
        }
        shown = {head: column for head, column in cells.items() if any(cell is not NOTHING for cell in column)}
        if not shown:
            continue
        rows = list(zip(found, zip(*shown.values())))
        caption = filled(caption, next(iter(found.values())))
        tables.append(measured.table(f"{name}-{number}", caption, "Model", list(shown), rows))
    return {"tables": tables}


def _cell(style: str, values: Values, result: Values) -> Cell:
    """The cell of a column whose style and path `texts.yaml` gives."""
    look, *rest = style.split()
    if look == "invalid":
        return invalid_answers(result)
    keys, decimals = rest[0].split("."), map(int, rest[1:])
    value, interval = value_at(values, keys), interval_at(values, keys)
    if look == "count":
        return NOTHING if value is None else Cell(f"{value:,}")
    if look in ("share", "figure"):
        cell = share_cell(value, interval)
        return replace(cell, share=None) if look == "figure" else cell
    return number_cell(value, interval, *decimals, has_bar=look == "bar")


def _confusion(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    """Confusion matrices, and the most frequent mistakes of each model."""
    matrices, constant = [], []
    for number, (model, values) in enumerate(found.items(), start=1):
        answers = [*values["labels"], "an invalid answer"]
        answered = [answer for answer, counts in zip(answers, zip(*values["confusion"])) if any(counts)]
        if len(answered) == 1:
            constant.append(f"{model}: {answered[0]}")
            continue
        mistakes = [
            (label, answer, count, sum(counts))
            for label, counts in zip(values["labels"], values["confusion"])
            for answer, count in zip(answers, counts)
            if count and answer != label
        ]
        mistakes = sorted(mistakes, key=lambda mistake: -mistake[2])[:MAX_MISTAKES]
        matrices.append(Matrix(f"{measured.key}-matrix-{number}", model, values, mistakes))
    remarks = [f"No matrix, because the answer is always the same: {', '.join(constant)}."] if constant else []
    return {"matrices": matrices, "remarks": remarks}


def _classes(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    rows = []
    for of_label in zip(*(values["per_class"] for values in found.values())):
        cells = [Cell(str(of_label[0]["support"]))]
        for one in of_label:
            shares = ["\u2013" if one[name] is None else f"{100 * one[name]:.0f}" for name in ("precision", "recall")]
            cell = number_cell(one["f1"], decimals=2, has_bar=True)
            cells.append(cell if cell is NOTHING else replace(cell, detail=f"P {shares[0]}, R {shares[1]}"))
        rows.append((of_label[0]["label"], cells))
    return {"tables": [measured.table(name, "F1 by label", "Label", ["Images", *found], rows)]}


def _calibration(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    """Calibration of scored answers, with curves."""
    varying = [pair for pair in found.items() if sum(bool(one["count"]) for one in pair[1]["bins"]) > 1]
    curves = varying[: charts.MAX_CURVES]
    drawn = []
    if curves:
        title = "Risk by coverage: wrong answers among the most confident ones"
        drawn.append((title, charts.risk_coverage_chart(f"{measured.key}-risk", curves)))
    for place, group in enumerate([curves] if len(curves) == 2 else [[one] for one in varying], start=1):
        title = "Accuracy by confidence" if len(found) <= 2 else f"{group[0][0]}: accuracy by confidence"
        drawn.append((title, charts.reliability_chart(f"{measured.key}-reliability-{place}", group)))
    remarks = []
    if len(varying) < len(found):
        constant = [model for model in found if model not in dict(varying)]
        remarks.append(f"No curves, because the confidence hardly varies: {', '.join(constant)}.")
    if len(varying) > len(curves):
        remarks.append(f"The risk curves are those of the first {len(curves)} models.")
    if len(found) < len(measured.having("classification")):
        remarks.append("Models that only generated answers have no confidence.")
    return {**_described(name, measured, found), "charts": drawn, "remarks": remarks}


def _levels(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    levels: list[Values] = next(iter(found.values()))
    columns: list[str] = []
    for level in levels:
        columns += [f"{level['label_set']} ({level['num_labels']})", f"finest, given the right {level['label_set']}"]
    fields = ("accuracy", "fine_accuracy_given_right")
    rows = [
        (model, [_cell(f"share {field}", level, {}) for level in values for field in fields][:-1])
        for model, values in found.items()
    ]
    remarks = [
        f"{level['num_without_place']} images have no label in {level['label_set']}."
        for level in levels
        if level["num_without_place"]
    ]
    table = measured.table(name, "Accuracy from coarse to fine", "Model", columns[:-1], rows)
    return {"tables": [table], "remarks": remarks}


def _slices(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    tables = []
    for place, field in enumerate(dict.fromkeys(field for values in found.values() for field in values), start=1):
        by_model = {model: {one["value"]: one for one in values.get(field, ())} for model, values in found.items()}
        counts: dict[str | None, int] = {}
        for of_model in by_model.values():
            for value, one in of_model.items():
                counts[value] = max(counts.get(value, 0), one["num_samples"])
        most = sorted(counts, key=lambda value: -counts[value])[:MAX_SLICES]
        rows = [
            (value if value is not None else "(none)", [_slice_cell(one.get(value)) for one in by_model.values()])
            for value in counts
            if value in most
        ]
        is_uncertain = any(cell.is_flagged for _, cells in rows for cell in cells)
        notes = ["uncertain, because there are few images"] if is_uncertain else []
        if len(counts) > len(rows):
            notes.append(f"the {len(rows)} most frequent of {len(counts)} values; metrics.json has all")
        table = measured.table(f"slices-{place}", f"Accuracy by {field}", field, list(by_model), rows)
        tables.append(replace(table, notes=notes))
    return {"tables": tables}


def _slice_cell(one: Values | None) -> Cell:
    if one is None or not one["metrics"]:
        return NOTHING
    cell = share_cell(one["metrics"]["accuracy"], one["metrics"]["interval"])
    return replace(cell, detail=f"{cell.detail}; n {one['num_samples']}", is_flagged=one["is_small"])


def _status(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    statuses = dict.fromkeys(["ok", *(status for counts in found.values() for status in counts)])
    rows = []
    for model, counts in found.items():
        pairs = [(counts.get(status, 0), sum(counts.values())) for status in statuses]
        rows.append((model, [share_cell(count / total, detail=str(count)) for count, total in pairs]))
    return {"tables": [measured.table(name, "Generated answers by status", "Model", list(statuses), rows)]}


def _variants(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    variants = dict.fromkeys(variant for values in found.values() for variant in values)
    rows = [(variant, [share_cell(values.get(variant)) for values in found.values()]) for variant in variants]
    spreads = [max(values.values()) - min(values.values()) for values in found.values()]
    rows.append(("Spread", [Cell(percent(spread), "best minus worst") for spread in spreads]))
    return {"tables": [measured.table(name, "Accuracy by variant of the question", "Variant", list(found), rows)]}


def _scatter(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    """Predicted against true valence and arousal."""
    benchmark, drawn = measured.benchmark, []
    for number, key in enumerate(benchmark.rows, start=1):
        answered = [row for row in benchmark.plain(key) if row.error is None]
        for axis in ("valence", "arousal"):
            _, true_M, predicted_M = value_arrays(answered, axis)
            is_valid_M = np.isfinite(predicted_M)
            true, predicted = true_M[is_valid_M].tolist(), predicted_M[is_valid_M].tolist()
            if len(set(predicted)) > 1:
                chart = charts.scatter_chart(f"{measured.key}-scatter-{number}-{axis}", axis, true, predicted)
                drawn.append((f"{result_name(*key)}: {axis}", chart))
    return {"values": {"max_points": charts.MAX_POINTS}, "charts": drawn}


def _over_time(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    """The CCC within videos, and the curves of the videos with the most frames."""
    benchmark = measured.benchmark
    models = [key for key in benchmark.rows if result_name(*key) in found]
    by_video: dict[str, dict[ModelKey, list[PredictionRow]]] = {}
    for key in models:
        for row in benchmark.plain(key):
            if row.error is None and row.moment is not None:
                by_video.setdefault((row.slices or {})[GROUP], {}).setdefault(key, []).append(row)
    longest = sorted(by_video, key=lambda video: -max(map(len, by_video[video].values())))[:MAX_VIDEOS]
    drawn = []
    for place, video in enumerate(longest, start=1):
        for axis in benchmark.settings.axes:
            curves = [_curve(result_name(*key), rows, axis, "values") for key, rows in by_video[video].items()]
            truth = _curve("truth", next(iter(by_video[video].values())), axis, "true_values")
            shown = [curve for curve in (truth, *curves) if len(curve[1]) > 1][: charts.MAX_CURVES]
            if len(shown) > 1:
                title, chart = f"{video}: {axis}", f"{measured.key}-curve-{place}-{axis}"
                drawn.append((title, charts.curve_chart(chart, title, "time or frame", axis, shown)))
    return {**_described(name, measured, found), "charts": drawn}


def _curve(name: str, rows: Sequence[PredictionRow], axis: str, field: str) -> tuple[str, list[float], list[float]]:
    """Name, moments and numbers of a curve, in the order of time; answers without a number leave a gap."""
    points = [(row.moment or 0.0, (getattr(row, field) or {}).get(axis)) for row in rows]
    known = sorted((moment, value) for moment, value in points if value is not None)
    return name, [moment for moment, _ in known], [value for _, value in known]


def _units(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    """F1 and ICC of each action unit."""
    units = {unit: one for values in reversed(found.values()) for unit, one in values["units"].items()}
    anatomy = facial_priors()
    tables = []
    for metric, title in (("f1", "F1"), ("icc", "ICC(3,1) of intensities")):
        rows = []
        for number, unit in sorted((int(unit.removeprefix("AU")), unit) for unit in units):
            active = Cell(str(units[unit]["support"]), f"of {units[unit]['num_samples']}")
            cells = [_cell(f"bar units.{unit}.{metric} 2", values, {}) for values in found.values()]
            rows.append((f"{unit} {anatomy.unit_name(number)}", [active, *cells]))
        if any(cell is not NOTHING for _, cells in rows for cell in cells[1:]):
            tables.append(measured.table(f"units-{metric}", f"{title} by unit", "Unit", ["Active", *found], rows))
    return {"values": {"active_from": measured.benchmark.settings.active_from}, "tables": tables}


def _ranked(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    """AP of each label that an image may have beside others."""
    rows = []
    for label, one in next(iter(found.values()))["labels"].items():
        images = Cell(str(one["support"]), f"{100 * one['chance']:.1f} %")
        aps = [values["labels"][label] for values in found.values()]
        cells = [number_cell(of["ap"], of["ap_interval"], 3, has_bar=True) for of in aps]
        rows.append((label, [images, *cells]))
    return {"tables": [measured.table("ranked", "AP by label", "Label", ["Images", *found], rows)]}


def _wheels(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    """F1 and coverage of each emotion wheel."""
    rows = []
    for wheel, one in next(iter(found.values())).items():
        missing = ", ".join(one["off_wheel"][:5]) + (", ..." if len(one["off_wheel"]) > 5 else "")
        covered = Cell(percent(one["coverage"]), f"not: {missing}" if missing else "")
        images = Cell(f"{one['num_samples']:,}", f"{one['num_off_wheel']:,} without" if one["num_off_wheel"] else "")
        cells = [share_cell(values[wheel]["f1"], values[wheel]["f1_interval"]) for values in found.values()]
        rows.append((wheel, [covered, images, *cells]))
    columns = ["Coverage", "Images", *found]
    return {"tables": [measured.table(name, "F1 by wheel, with 95 % intervals", "Wheel", columns, rows)]}


def _categories(name: str, measured: Measured, found: Found) -> dict[str, Any]:
    """Accuracy, and the other shares, by the categories of the questions."""
    tables = []
    for place, (category, of_values) in enumerate(next(iter(found.values())).items(), start=1):
        rows = []
        for value, one in of_values.items():
            cells = [Cell(f"{one['num_samples']:,}")]
            for values in found.values():
                of_model = values[category][value]
                others = (f"{key.replace('_', ' ')} {percent(share)}" for key, share in of_model["values"].items())
                cell = share_cell(of_model["values"]["accuracy"], of_model["intervals"]["accuracy"])
                cells.append(replace(cell, detail=", ".join([cell.detail, *list(others)[1:]])))
            rows.append((value, cells))
        caption = f"Accuracy by {category.replace('_', ' ')}"
        tables.append(measured.table(f"{name}-{place}", caption, category, ["Questions", *found], rows))
    return {"tables": tables}


_WITH_CATEGORIES = ("choices", "statements", "vqa")
# Part -> function that makes its contents from its name and the values of its metric, in the order of the page.
_CONTENTS: dict[str, Callable[[str, Measured, Found], dict[str, Any]]] = {
    **dict.fromkeys(("labels", "affect", "action_units", "label_ranking"), _described),
    **dict.fromkeys(("choices", "statements", "rankings", "words", "vqa"), _described),
    "categories": _categories,
    "wheels": _wheels,
    "confusion": _confusion,
    "classes": _classes,
    "scatter": _scatter,
    "over_time": _over_time,
    "units": _units,
    "ranked": _ranked,
    "calibration": _calibration,
    "stated_confidence": _described,
    "levels": _levels,
    "soft_labels": _described,
    "slices": _slices,
    "status": _status,
    **dict.fromkeys(
        ("original", "explanations", "reasons", "judged_reasons", "instruction_answers", "judge"), _described
    ),
    "variants": _variants,
    "robustness": _described,
}
