"""What the report shows of answers that are labels, each part from the figures of all models."""

from __future__ import annotations

from collections.abc import Sequence

from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows
from lavis_emovit.evaluation.metrics import ClassificationMetrics
from lavis_emovit.evaluation.report import suite_charts
from lavis_emovit.evaluation.report.charts import reliability_chart
from lavis_emovit.evaluation.report.grid import NOTHING, Grid, GridCell, number_cell, percent, share_cell
from lavis_emovit.evaluation.report.parts import Matrix, Part, Result, invalid_cell, name_of, plain
from lavis_emovit.evaluation.report.written_parts import written_parts

MAX_SLICES = 20


def label_parts(asked: BenchmarkRows, results: Sequence[Result], key: str) -> list[Part | None]:
    """The parts about answers that are labels; None for what was not measured."""
    measured = [
        (result, ClassificationMetrics.model_validate(result["metrics"]["classification"])) for result in results
    ]
    if not measured:
        return []
    return [
        _figures_part(measured, key),
        _confusion_part(measured, key),
        _classes_part(measured, key),
        _calibration_part(measured, key),
        _levels_part(results, key),
        _soft_part(results, key),
        _slices_part(results, key),
        *written_parts(results, key),
        _variants_part(results, key),
    ]


Measured = Sequence[tuple[Result, ClassificationMetrics]]


def _figures_part(measured: Measured, key: str) -> Part:
    first = measured[0][1]
    ks = [k for k in (first.top_k or {}) if k > 1] or [
        k for _, metrics in measured for k in (metrics.top_k or {}) if k > 1
    ]
    columns = ["Accuracy", "Balanced accuracy", "Macro F1", "Weighted F1"]
    columns += [*(f"Among top {k}" for k in dict.fromkeys(ks)), "Invalid answers"]
    rows = []
    for result, metrics in measured:
        cells = [share_cell(metrics.accuracy, plain(metrics.accuracy_interval))]
        cells.append(share_cell(metrics.balanced_accuracy, plain(metrics.balanced_accuracy_interval)))
        for name in ("macro_f1", "weighted_f1"):
            interval = plain(getattr(metrics, f"{name}_interval"))
            cells.append(number_cell(getattr(metrics, name), interval, bar=True))
        for k in dict.fromkeys(ks):
            top, intervals = metrics.top_k or {}, metrics.top_k_intervals or {}
            cells.append(share_cell(top.get(k), plain(intervals.get(k))))
        rows.append((name_of(result), [*cells, invalid_cell(metrics.num_invalid, metrics.num_samples)]))
    baselines = (
        f"Guessing is right in {percent(first.chance)} of the cases, always saying {first.majority_label} in "
        f"{percent(first.majority_baseline)}."
    )
    grid = Grid(f"{key}-figures", "Figures with 95 % intervals; invalid answers count as wrong", "Model", columns, rows)
    return Part(f"{key}-figures-part", "Figures", baselines, [grid])


def _confusion_part(measured: Measured, key: str) -> Part:
    matrices, always = [], []
    for number, (result, metrics) in enumerate(measured, start=1):
        said = [
            label for label, row in zip([*metrics.labels, "an invalid answer"], zip(*metrics.confusion)) if any(row)
        ]
        if len(said) == 1:
            always.append(f"{name_of(result)}: {said[0]}")
        else:
            matrices.append(Matrix(f"{key}-matrix-{number}", name_of(result), metrics))
    note = (
        "Each row holds the pictures of one true label; the stronger the colour of a cell, the larger its share of the "
        "row. Right answers lie on the outlined diagonal, invalid ones in the striped column."
    )
    remarks = [f"Without a matrix, since they always give the same: {', '.join(always)}."] if always else []
    heading = "What is taken for what"
    return Part(f"{key}-confusion", heading, note if matrices else "", matrices=matrices, remarks=remarks)


def _classes_part(measured: Measured, key: str) -> Part:
    columns = ["Pictures", *(name_of(result) for result, _ in measured)]
    rows = []
    for place, first in enumerate(measured[0][1].per_class):
        cells = [GridCell(str(first.support))]
        for _, metrics in measured:
            one = metrics.per_class[place]
            detail = f"P {_short(one.precision)}, R {_short(one.recall)}"
            cells.append(GridCell(f"{one.f1:.2f}", detail, one.f1) if one.f1 is not None else NOTHING)
        rows.append((first.label, cells))
    note = "F1 of each label as a number and a bar, with precision (P) and recall (R) in percent."
    return Part(
        f"{key}-classes", "Each label", note, [Grid(f"{key}-classes-grid", "F1 by label", "Label", columns, rows)]
    )


def _calibration_part(measured: Measured, key: str) -> Part | None:
    scored = [(name_of(result), metrics.calibration) for result, metrics in measured if metrics.calibration is not None]
    if not scored:
        return None
    rows = []
    for name, figures in scored:
        cells = [
            share_cell(figures.ece, plain(figures.ece_interval)),
            share_cell(figures.mean_confidence),
            number_cell(figures.brier, plain(figures.brier_interval)),
            number_cell(figures.auroc, plain(figures.auroc_interval)),
            number_cell(figures.aurc, plain(figures.aurc_interval)),
        ]
        rows.append((name, [GridCell(cell.text, cell.detail) for cell in cells]))
    columns = [
        "Calibration error (ECE)",
        "Mean confidence",
        "Brier score",
        "AUROC of confidence",
        "Area under risk (AURC)",
    ]
    grid = Grid(f"{key}-calibration-grid", "How far confidence can be believed", "Model", columns, rows)
    varying = [(name, figures) for name, figures in scored if sum(bool(one.count) for one in figures.bins) > 1]
    charts = [
        (f"{name}: accuracy by confidence", reliability_chart(f"{key}-reliability-{place}", [("", figures)]))
        for place, (name, figures) in enumerate(varying, start=1)
    ]
    curves = [(name, figures) for name, figures in varying if figures.risk_coverage][: suite_charts.MAX_CURVES]
    if curves:
        chart = suite_charts.risk_coverage_chart(f"{key}-risk", curves)
        charts.insert(0, ("Risk by coverage: wrong answers if only the surest are given", chart))
    remarks = []
    if len(varying) < len(scored):
        constant = [name for name, figures in scored if (name, figures) not in varying]
        remarks.append(f"Without curves, since their confidence hardly varies: {', '.join(constant)}.")
    if len(varying) > len(curves):
        remarks.append(f"The curves of risk are those of the first {len(curves)} models.")
    if len(scored) < len(measured):
        remarks.append("Models that only wrote answers have no confidence to calibrate.")
    note = (
        "On the dotted line 70 % of confidence is right in 70 of 100 cases; below it the model is too sure of itself. "
        "Larger marks hold more pictures. A risk curve that falls to the left belongs to a model that knows when "
        "it is wrong."
    )
    return Part(f"{key}-calibration", "Calibration", note, [grid], charts, remarks=remarks)


def _levels_part(results: Sequence[Result], key: str) -> Part | None:
    with_levels = [result for result in results if result["metrics"].get("levels")]
    if not with_levels:
        return None
    levels = with_levels[0]["metrics"]["levels"]
    columns = []
    for level in levels:
        columns.append(f"{level['label_set']} ({level['num_labels']})")
        if level is not levels[-1]:
            columns.append(f"finest, given the right {level['label_set']}")
    rows = []
    for result in with_levels:
        cells = []
        for level in result["metrics"]["levels"]:
            cells.append(share_cell(level["accuracy"], level["accuracy_interval"]))
            if level is not result["metrics"]["levels"][-1]:
                given = level["fine_accuracy_given_right"]
                cells.append(share_cell(given, level["fine_accuracy_given_right_interval"]))
        rows.append((name_of(result), cells))
    skipped = [
        f"{level['num_without_place']} pictures have no place in {level['label_set']}"
        for level in levels
        if level["num_without_place"]
    ]
    note = "The same answers read on coarser label sets. " + (f"{'; '.join(skipped)}." if skipped else "")
    grid = Grid(f"{key}-levels-grid", "Accuracy from coarse to fine", "Model", columns, rows)
    return Part(f"{key}-levels", "From coarse to fine", note, [grid])


def _soft_part(results: Sequence[Result], key: str) -> Part | None:
    soft = [(result, result["metrics"]["soft_labels"]) for result in results if result["metrics"].get("soft_labels")]
    if not soft:
        return None
    names = [("kl", "KL divergence, nats"), ("cosine", "Cosine"), ("top1_in_vote", "Answer is most voted")]
    names += [("top1_has_votes", "Answer has votes"), ("vote_of_top1", "Votes for the answer")]
    rows = []
    for result, values in soft:
        cells = []
        for name, _ in names:
            make = number_cell if name in ("kl", "cosine") else share_cell
            cells.append(make(values[name], values["intervals"].get(name)))
        rows.append((name_of(result), cells))
    grid = Grid(f"{key}-soft-grid", "Against the votes of the annotators", "Model", [head for _, head in names], rows)
    return Part(f"{key}-soft", "Soft labels", "", [grid])


def _slices_part(results: Sequence[Result], key: str) -> Part | None:
    fields = dict.fromkeys(name for result in results for name in result["metrics"].get("slices", {}))
    grids = []
    for place, name in enumerate(fields, start=1):
        having = [result for result in results if name in result["metrics"].get("slices", {})]
        counts: dict[str | None, int] = {}
        for result in having:
            for one in result["metrics"]["slices"][name]:
                counts[one["value"]] = max(counts.get(one["value"], 0), one["num_samples"])
        most = sorted(counts, key=lambda value: -counts[value])[:MAX_SLICES]
        values = [value for value in counts if value in most]
        rows, has_small = [], False
        for value in values:
            cells = []
            for result in having:
                one = next((one for one in result["metrics"]["slices"][name] if one["value"] == value), None)
                cell = NOTHING
                if one is not None and one["metrics"]:
                    cell = share_cell(one["metrics"]["accuracy"], one["metrics"]["interval"])
                    cell = GridCell(
                        cell.text,
                        f"{cell.detail}; n {one['num_samples']}",
                        cell.share,
                        cell.low,
                        cell.high,
                        one["is_small"],
                    )
                    has_small |= one["is_small"]
                cells.append(cell)
            rows.append((value if value is not None else "(none)", cells))
        notes = ["so few pictures that the figure says little"] if has_small else []
        if len(counts) > len(values):
            notes.append(f"the {len(values)} most frequent of {len(counts)} values; metrics.json has all")
        columns = [name_of(result) for result in having]
        grids.append(Grid(f"{key}-slices-{place}", f"Accuracy by {name}", name, columns, rows, notes))
    return Part(f"{key}-slices", "Slices", "", grids) if grids else None


def _variants_part(results: Sequence[Result], key: str) -> Part | None:
    varied = [result for result in results if result["metrics"].get("variants")]
    if not varied:
        return None
    variants = dict.fromkeys(name for result in varied for name in result["metrics"]["variants"])
    columns = [name_of(result) for result in varied]
    rows = [(name, [share_cell(result["metrics"]["variants"].get(name)) for result in varied]) for name in variants]
    spread = []
    for result in varied:
        values = list(result["metrics"]["variants"].values())
        spread.append(GridCell(percent(max(values) - min(values)), "best less worst"))
    rows.append(("Spread", spread))
    note = "Accuracy of the same pictures under each wording of the question and order of the options."
    grid = Grid(f"{key}-variants-grid", "Accuracy by variant of the question", "Variant", columns, rows)
    return Part(f"{key}-variants", "Sensitivity to the wording", note, [grid])


def _short(share: float | None) -> str:
    return "\u2013" if share is None else f"{100 * share:.0f}"
