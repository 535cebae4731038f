"""Charts of the report on suites, in the manner of `charts.py`: risk by coverage, and numbers against true ones.

Models are told apart by marks and dashes, not by colour alone. Their names are letters, digits, `-`, `_` and `.`, which
no chart library takes for markup.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from lavis_emovit.evaluation.metrics import Calibration
from lavis_emovit.evaluation.report.charts import (
    AFTER,
    BEFORE,
    INK,
    MUTED,
    legend_above,
    new_axes,
    percent_axis,
    styled_chart,
    svg,
)

MAX_CURVES = 8
MAX_POINTS = 400

_LOOKS = (
    (AFTER, "o", "solid"),
    (BEFORE, "s", (0, (5, 2))),
    (INK, "^", (0, (1, 1.5))),
    (MUTED, "D", (0, (6, 1.5, 1, 1.5))),
    (AFTER, "v", (0, (2, 2))),
    (BEFORE, "P", "solid"),
    (INK, "X", (0, (5, 2))),
    (MUTED, "*", "solid"),
)


@styled_chart
def risk_coverage_chart(key: str, curves: Sequence[tuple[str, Calibration]]) -> Markup:
    """Share of wrong answers among the most confident ones, one curve a model.

    Args:
        key: start of the ids inside the chart.
        curves: (name, figures), `MAX_CURVES` at most.
    """
    figure, axes = new_axes("answered: the most confident share", "wrong among these")
    figure.set_size_inches(5.4, 3.0)
    described = []
    lines = []
    for (name, figures), (colour, marker, line) in zip(curves, _LOOKS):
        points = figures.risk_coverage
        x, y = [point.coverage for point in points], [point.risk for point in points]
        lines += axes.plot(x, y, color=colour, linestyle=line, marker=marker, markersize=4, markevery=3, linewidth=1.5)
        described.append(f"{name} {100 * y[0]:.0f} % wrong at {100 * x[0]:.0f} %, {100 * y[-1]:.0f} % at all")
    for axis in (axes.xaxis, axes.yaxis):
        percent_axis(axis)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    figure.subplots_adjust(left=0.115, right=0.97, bottom=0.15)
    names = [name for name, _ in curves]
    legend_above(axes, lines, names, columns=2 if max(map(len, names)) > 14 else 3)
    return svg(figure, key, f"Risk by coverage: {'; '.join(described)}.", "chart broad")


@styled_chart
def scatter_chart(key: str, true_M: Sequence[float], said_M: Sequence[float], axis_name: str) -> Markup:
    """What a model said against what is true, on [-1, 1]; on the diagonal both are the same.

    Args:
        key: start of the ids inside the chart.
        true_M, said_M: one of each for every valid answer; of very many, every so-many-th is drawn.
        axis_name: `valence` or `arousal`.
    """
    figure, axes = new_axes(f"true {axis_name}", f"said {axis_name}")
    figure.set_size_inches(2.9, 2.7)
    step = max(1, -(-len(true_M) // MAX_POINTS))
    x, y = np.asarray(true_M, dtype=float)[::step], np.asarray(said_M, dtype=float)[::step]
    axes.axhline(0, color=MUTED, linewidth=0.5)
    axes.axvline(0, color=MUTED, linewidth=0.5)
    axes.plot([-1, 1], [-1, 1], color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
    axes.plot(x, y, color=AFTER, linestyle="none", marker="o", markersize=3, markeredgewidth=0, alpha=0.45)
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    figure.subplots_adjust(left=0.17, right=0.97, bottom=0.16, top=0.97)
    said = f"from {min(said_M):.2f} to {max(said_M):.2f}"
    return svg(figure, key, f"Said against true {axis_name} of {len(true_M)} pictures: answers lie {said}.")
