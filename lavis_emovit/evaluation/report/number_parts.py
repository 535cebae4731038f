"""What the report shows of answers that are numbers: valence and arousal, facial action units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lavis_emovit.emotion.facial import facial_priors
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows, result_name
from lavis_emovit.evaluation.metrics import value_arrays
from lavis_emovit.evaluation.report import suite_charts
from lavis_emovit.evaluation.report.grid import NOTHING, Grid, GridCell, number_cell, share_cell
from lavis_emovit.evaluation.report.parts import Part, Result, invalid_cell, name_of


def affect_parts(asked: BenchmarkRows, results: Sequence[Result], key: str) -> list[Part | None]:
    """The parts about valence and arousal."""
    if not results:
        return []
    grids = []
    metrics = [("ccc", "CCC"), ("pcc", "PCC"), ("rmse", "RMSE"), ("mae", "MAE"), ("sign_agreement", "Same sign")]
    axes = list(results[0]["metrics"]["affect"]["dimensions"])
    for axis in axes:
        rows = []
        for result in results:
            found = result["metrics"]["affect"]["dimensions"][axis]
            cells = []
            for name, _ in metrics:
                value, interval = found["all"][name], found["intervals"].get(name)
                is_share = name == "sign_agreement"
                cells.append(
                    share_cell(value, interval) if is_share else number_cell(value, interval, bar=name == "ccc")
                )
            cells.append(invalid_cell(found["num_invalid"], found["num_samples"]))
            rows.append((name_of(result), cells))
        columns = [*(head for _, head in metrics), "Invalid answers"]
        grids.append(
            Grid(f"{key}-{axis}", f"{axis.capitalize()} on [-1, 1], with 95 % intervals", "Model", columns, rows)
        )
    note = (
        "CCC asks whether said and true numbers agree, PCC only whether they move together. An answer without a number "
        "counts as the far end of the scale."
    )
    charts = []
    for number, asking in enumerate(asked.rows, start=1):
        answered = [row for row in asked.plain(asking) if row.error is None]
        for axis in axes:
            _, true_M, said_M = value_arrays(answered, axis)
            is_valid_M = np.isfinite(said_M)
            true, said = true_M[is_valid_M].tolist(), said_M[is_valid_M].tolist()
            if len(set(said)) > 1:
                chart = suite_charts.scatter_chart(f"{key}-scatter-{number}-{axis}", true, said, axis)
                charts.append((f"{result_name(*asking)}: {axis}", chart))
    drawn = (
        f"At most {suite_charts.MAX_POINTS} pictures of each are drawn; models that always say the same are left out."
    )
    scatter = Part(f"{key}-scatter", "Said and true numbers", drawn, figures=charts) if charts else None
    return [Part(f"{key}-figures-part", "Figures", note, grids), scatter]


def unit_parts(asked: BenchmarkRows, results: Sequence[Result], key: str) -> list[Part | None]:
    """The parts about facial action units."""
    found = [(result, result["metrics"]["action_units"]) for result in results]
    if not found:
        return []
    rows = []
    for result, units in found:
        worst = max(units["units"].values(), key=lambda unit: unit["num_invalid"])
        cells = [
            number_cell(units["mean_f1"], units["mean_f1_interval"], bar=True),
            share_cell(units["mean_accuracy"]),
            number_cell(units["mean_icc"], units["mean_icc_interval"]),
            invalid_cell(worst["num_invalid"], worst["num_samples"]),
        ]
        rows.append((name_of(result), cells))
    columns = ["Mean F1", "Mean accuracy", "Mean ICC(3,1)", "Invalid answers"]
    note = (
        f"A unit is active from an intensity of {asked.settings.active_from:g}. The means are over the units for which "
        "the metric is defined; a model that was asked yes or no has no intensities, and so no ICC."
    )
    figures = Grid(f"{key}-figures", "Means over the units, with 95 % intervals", "Model", columns, rows)
    return [
        Part(f"{key}-figures-part", "Figures", note, [figures]),
        _each_unit_part(found, key),
    ]


def _each_unit_part(found: Sequence[tuple[Result, Mapping[str, Any]]], key: str) -> Part:
    names = dict.fromkeys(name for _, units in found for name in units["units"])
    anatomy = facial_priors().units
    grids = []
    columns = [name_of(result) for result, _ in found]
    for metric, title in (("f1", "F1"), ("icc", "ICC(3,1) of intensities")):
        rows = []
        for name in sorted(names, key=lambda name: int(name.removeprefix("AU"))):
            of_unit = [units["units"].get(name) for _, units in found]
            known = next(unit for unit in of_unit if unit is not None)
            head = f"{name} {anatomy.get(int(name.removeprefix('AU')), '')}".strip()
            active = GridCell(str(known["support"]), f"of {known['num_samples']}")
            cells = [
                number_cell(unit[metric], unit[f"{metric}_interval"], 2, bar=True) if unit is not None else NOTHING
                for unit in of_unit
            ]
            rows.append((head, [active, *cells]))
        if any(cell is not NOTHING for _, cells in rows for cell in cells[1:]):
            grids.append(Grid(f"{key}-units-{metric}", f"{title} by unit", "Unit", ["Active", *columns], rows))
    note = "A unit that is never active and never answered has no F1."
    return Part(f"{key}-units", "Each action unit", note, grids)
