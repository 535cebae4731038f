"""Parts of a report about one benchmark: tables that `texts.yaml` describes, confusions, curves and custom metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lavis_emovit.emotion.facial import facial_priors
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows, result_name
from lavis_emovit.evaluation.metrics.rows import value_arrays
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


@dataclass(frozen=True)
class Measured:
    """The measured results of a benchmark: names of models -> results in the form of metrics.json."""

    key: str
    benchmark: BenchmarkRows
    results: Mapping[str, Values]

    def having(self, path: str) -> dict[str, Any]:
        """Names of models -> their values of a metric (or a judge), for the models that have it."""
        metrics = {name: {**one["metrics"], "judge": one.get("judge")} for name, one in self.results.items()}
        return {name: found for name, values in metrics.items() if (found := value_at(values, path.split(".")))}

    def table(self, name: str, caption: str, corner: str, columns: Sequence[str], rows: Sequence[Any]) -> Table:
        """A table of this benchmark."""
        return Table(f"{self.key}-{name}-table", caption, corner, columns, rows)


def benchmark_parts(key: str, benchmark: BenchmarkRows, results: Sequence[Values]) -> list[Part]:
    """All parts about what was measured; `key` starts their ids."""
    found = {result_name(one["model"], one["method"]): one for one in results if "metrics" in one}
    measured = Measured(key, benchmark, found)
    made = (_described_part(make, measured) if isinstance(make, str) else make(measured) for make in _PARTS)
    return [part for part in made if part is not None]


def _described_part(name: str, measured: Measured) -> Part | None:
    """A part whose tables `texts.yaml` describes."""
    text = texts()[name]
    found = measured.having(text["metric"])
    tables = []
    for number, (caption, styles) in enumerate(text["tables"].items() if found else (), start=1):
        cells = {
            head: [_cell(style, values, measured.results[model]) for model, values in found.items()]
            for head, style in styles.items()
        }
        shown = {head: column for head, column in cells.items() if any(cell is not NOTHING for cell in column)}
        rows = list(zip(found, zip(*shown.values())))
        first = next(iter(found.values()))
        tables.append(measured.table(f"{name}-{number}", filled(caption, first), "Model", list(shown), rows))
    return text_part(name, measured.key, next(iter(found.values())), tables=tables) if found else None


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


def _confusion_part(measured: Measured) -> Part | None:
    """Confusion matrices, and the most frequent mistakes of each model."""
    matrices, constant = [], []
    for number, (name, values) in enumerate(measured.having("classification").items(), start=1):
        answers = [*values["labels"], "an invalid answer"]
        answered = [answer for answer, counts in zip(answers, zip(*values["confusion"])) if any(counts)]
        if len(answered) == 1:
            constant.append(f"{name}: {answered[0]}")
            continue
        mistakes = [
            (label, answer, count, sum(counts))
            for label, counts in zip(values["labels"], values["confusion"])
            for answer, count in zip(answers, counts)
            if count and answer != label
        ]
        mistakes = sorted(mistakes, key=lambda mistake: -mistake[2])[:MAX_MISTAKES]
        matrices.append(Matrix(f"{measured.key}-matrix-{number}", name, values, mistakes))
    if not matrices and not constant:
        return None
    remarks = [f"No matrix, because the answer is always the same: {', '.join(constant)}."] if constant else []
    return text_part("confusion", measured.key, matrices=matrices, remarks=remarks)


def _classes_part(measured: Measured) -> Part | None:
    """F1, precision and recall of each label."""
    found = measured.having("classification")
    rows = []
    for of_label in zip(*(values["per_class"] for values in found.values())):
        cells = [Cell(str(of_label[0]["support"]))]
        for one in of_label:
            shares = ["\u2013" if one[name] is None else f"{100 * one[name]:.0f}" for name in ("precision", "recall")]
            cell = number_cell(one["f1"], decimals=2, has_bar=True)
            cells.append(cell if cell is NOTHING else replace(cell, detail=f"P {shares[0]}, R {shares[1]}"))
        rows.append((of_label[0]["label"], cells))
    table = measured.table("classes", "F1 by label", "Label", ["Images", *found], rows)
    return text_part("classes", measured.key, tables=[table]) if found else None


def _calibration_part(measured: Measured) -> Part | None:
    """Calibration of scored answers, with curves."""
    part = _described_part("calibration", measured)
    if part is None:
        return None
    scored = measured.having("classification.calibration")
    varying = [pair for pair in scored.items() if sum(bool(one["count"]) for one in pair[1]["bins"]) > 1]
    curves = varying[: charts.MAX_CURVES]
    drawn = []
    if curves:
        title = "Risk by coverage: wrong answers among the most confident ones"
        drawn.append((title, charts.risk_coverage_chart(f"{measured.key}-risk", curves)))
    for place, group in enumerate([curves] if len(curves) == 2 else [[one] for one in varying], start=1):
        title = "Accuracy by confidence" if len(scored) <= 2 else f"{group[0][0]}: accuracy by confidence"
        drawn.append((title, charts.reliability_chart(f"{measured.key}-reliability-{place}", group)))
    remarks = []
    if len(varying) < len(scored):
        constant = [name for name in scored if name not in dict(varying)]
        remarks.append(f"No curves, because the confidence hardly varies: {', '.join(constant)}.")
    if len(varying) > len(curves):
        remarks.append(f"The risk curves are those of the first {len(curves)} models.")
    if len(scored) < len(measured.having("classification")):
        remarks.append("Models that only generated answers have no confidence.")
    return replace(part, charts=drawn, remarks=remarks)


def _levels_part(measured: Measured) -> Part | None:
    """Accuracy on coarser label sets."""
    found = measured.having("levels")
    levels: list[Values] = next(iter(found.values()), [])
    columns: list[str] = []
    for level in levels:
        columns += [f"{level['label_set']} ({level['num_labels']})", f"finest, given the right {level['label_set']}"]
    fields = ("accuracy", "fine_accuracy_given_right")
    rows = [
        (name, [_cell(f"share {field}", level, {}) for level in values for field in fields][:-1])
        for name, values in found.items()
    ]
    remarks = [
        f"{level['num_without_place']} images have no label in {level['label_set']}."
        for level in levels
        if level["num_without_place"]
    ]
    table = measured.table("levels", "Accuracy from coarse to fine", "Model", columns[:-1], rows)
    return text_part("levels", measured.key, tables=[table], remarks=remarks) if found else None


def _slices_part(measured: Measured) -> Part | None:
    """Accuracy by fields of the records."""
    found = measured.having("slices")
    tables = []
    for place, field in enumerate(dict.fromkeys(field for values in found.values() for field in values), start=1):
        by_model = {name: {one["value"]: one for one in values.get(field, ())} for name, values in found.items()}
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
    return text_part("slices", measured.key, tables=tables) if tables else None


def _slice_cell(one: Values | None) -> Cell:
    if one is None or not one["metrics"]:
        return NOTHING
    cell = share_cell(one["metrics"]["accuracy"], one["metrics"]["interval"])
    return replace(cell, detail=f"{cell.detail}; n {one['num_samples']}", is_flagged=one["is_small"])


def _status_part(measured: Measured) -> Part | None:
    """How generated answers were read."""
    found = measured.having("classification.statuses")
    statuses = dict.fromkeys(["ok", *(status for counts in found.values() for status in counts)])
    rows = []
    for name, counts in found.items():
        pairs = [(counts.get(status, 0), sum(counts.values())) for status in statuses]
        rows.append((name, [share_cell(count / total, detail=str(count)) for count, total in pairs]))
    table = measured.table("status", "Generated answers by status", "Model", list(statuses), rows)
    return text_part("status", measured.key, tables=[table]) if found else None


def _variants_part(measured: Measured) -> Part | None:
    """Accuracy by variant of the question."""
    found = measured.having("variants")
    variants = dict.fromkeys(variant for values in found.values() for variant in values)
    rows = [(variant, [share_cell(values.get(variant)) for values in found.values()]) for variant in variants]
    spreads = [max(values.values()) - min(values.values()) for values in found.values()]
    rows.append(("Spread", [Cell(percent(spread), "best minus worst") for spread in spreads]))
    table = measured.table("variants", "Accuracy by variant of the question", "Variant", list(found), rows)
    return text_part("variants", measured.key, tables=[table]) if found else None


def _scatter_part(measured: Measured) -> Part | None:
    """Predicted against true valence and arousal."""
    benchmark, drawn = measured.benchmark, []
    for number, key in enumerate(benchmark.rows if measured.having("affect") else (), start=1):
        answered = [row for row in benchmark.plain(key) if row.error is None]
        for axis in ("valence", "arousal"):
            _, true_M, predicted_M = value_arrays(answered, axis)
            is_valid_M = np.isfinite(predicted_M)
            true, predicted = true_M[is_valid_M].tolist(), predicted_M[is_valid_M].tolist()
            if len(set(predicted)) > 1:
                chart = charts.scatter_chart(f"{measured.key}-scatter-{number}-{axis}", axis, true, predicted)
                drawn.append((f"{result_name(*key)}: {axis}", chart))
    values = {"max_points": charts.MAX_POINTS}
    return text_part("scatter", measured.key, values, charts=drawn) if drawn else None


def _units_part(measured: Measured) -> Part | None:
    """F1 and ICC of each action unit."""
    found = measured.having("action_units")
    units = {name: unit for values in reversed(found.values()) for name, unit in values["units"].items()}
    anatomy = facial_priors()
    tables = []
    for metric, title in (("f1", "F1"), ("icc", "ICC(3,1) of intensities")):
        rows = []
        for number, name in sorted((int(name.removeprefix("AU")), name) for name in units):
            active = Cell(str(units[name]["support"]), f"of {units[name]['num_samples']}")
            cells = [_cell(f"bar units.{name}.{metric} 2", values, {}) for values in found.values()]
            rows.append((f"{name} {anatomy.unit_name(number)}", [active, *cells]))
        if any(cell is not NOTHING for _, cells in rows for cell in cells[1:]):
            tables.append(measured.table(f"units-{metric}", f"{title} by unit", "Unit", ["Active", *found], rows))
    values = {"active_from": measured.benchmark.settings.active_from}
    return text_part("units", measured.key, values, tables=tables) if tables else None


def _other_part(measured: Measured) -> Part | None:
    """The numbers of metrics without a part of their own, such as custom ones."""
    table = other_table(f"{measured.key}-other-table", "Metrics without a part of their own", measured.results.values())
    return text_part("other", measured.key, tables=[table]) if table is not None else None


# Functions that make a part, and parts that `texts.yaml` describes.
_PARTS: tuple[Callable[[Measured], Part | None] | str, ...] = (
    *("labels", "affect", "action_units", _confusion_part, _classes_part, _scatter_part, _units_part),
    *(_calibration_part, _levels_part, "soft_labels", _slices_part, _status_part, "original", "explanations", "judge"),
    *(_variants_part, _other_part),
)
