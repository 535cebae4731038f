"""Charts of the report as inline SVG: drawn by matplotlib, coloured by the page's style sheet.

matplotlib draws with placeholder colours, which are then replaced by CSS variables, so that one chart serves light and
dark screens and print. Text stays text. Charts hold numbers and fixed words only, never text from data. Each is given a
key, different for each chart of a page, with which the ids inside it start.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lavis_emovit.evaluation.metrics import Calibration

# Placeholder colour -> CSS variable of templates/report.css.
INK, MUTED, GRID, AFTER, BEFORE = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--rule", AFTER: "--after", BEFORE: "--before"}

Drawn = ParamSpec("Drawn")

_SIZE_INCHES = (3.7, 2.6)
_MAX_RAW_POINTS = 600
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "emovit",
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "text.color": INK,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "legend.fontsize": 8,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    # Fixed margins: finding them by a layout engine would draw everything twice.
    "figure.subplot.left": 0.135,
    "figure.subplot.right": 0.985,
    "figure.subplot.bottom": 0.165,
    "figure.subplot.top": 0.94,
}


def styled_chart(draw: Callable[Drawn, Markup]) -> Callable[Drawn, Markup]:
    """Draw in the report's style, whatever matplotlib's settings are elsewhere in the process."""

    @functools.wraps(draw)
    def styled(*args: Drawn.args, **kwargs: Drawn.kwargs) -> Markup:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


@styled_chart
def loss_chart(key: str, steps: Sequence[int], losses: Sequence[float], spikes: Sequence[int] = ()) -> Markup:
    """Training loss by step: every value faintly, and their running mean.

    Args:
        key: start of the ids inside the chart.
        steps, losses: one of each for every step.
        spikes: steps whose loss was flagged as out of line; they get a mark at the top.
    """
    figure, axes = new_axes("step", "loss per answer token")
    x, y = np.asarray(steps, dtype=float), np.asarray(losses, dtype=float)
    window = max(1, len(y) // 40)
    raw_x, raw_y = _thinned(x, y)
    if window > 1:
        axes.plot(raw_x, raw_y, color=AFTER, linewidth=0.8, alpha=0.35)
        axes.plot(*_thinned(x, _running_mean(y, window)), color=AFTER, linewidth=2)
    else:
        axes.plot(raw_x, raw_y, color=AFTER, linewidth=2, marker="o", markersize=3)
    top = _loss_ceiling(y)
    if spikes:
        axes.plot(spikes, [0.97 * top] * len(spikes), color=BEFORE, linestyle="none", marker="v", markersize=5)
    axes.set_ylim(bottom=0, top=top)
    label = f"Training loss from step {int(x[0])} to {int(x[-1])}: {y[:window].mean():.3f} at first, "
    label += f"{y[-window:].mean():.3f} at the end, lowest {y.min():.3f}."
    return svg(figure, key, label + (f" {len(spikes)} steps are marked as out of line." if spikes else ""))


@styled_chart
def step_chart(
    key: str, steps: Sequence[int], values: Sequence[float], *, y_label: str, name: str, is_share: bool = False
) -> Markup:
    """Something that is measured at every step: every value faintly, and their running mean.

    Args:
        key: start of the ids inside the chart.
        steps, values: one of each for every step that measured it.
        y_label: of the axis, with the unit.
        name: for those who cannot see it.
        is_share: from 0 to 1, shown in percent.
    """
    figure, axes = new_axes("step", y_label)
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    window = max(1, len(y) // 40)
    axes.plot(*_thinned(x, y), color=AFTER, linewidth=0.8, alpha=0.35)
    axes.plot(*_thinned(x, _running_mean(y, window)), color=AFTER, linewidth=2)
    # A share that stays at zero still needs an axis that can be read.
    axes.set_ylim(bottom=0, top=max(_loss_ceiling(y), 0.05) if is_share else _loss_ceiling(y))
    figure.subplots_adjust(left=0.175)
    if is_share:
        percent_axis(axes.yaxis)
    unit, scale = (" %", 100) if is_share else ("", 1)
    described = f"median {scale * np.median(y):.3g}{unit}, from {scale * y.min():.3g} to {scale * y.max():.3g}{unit}"
    return svg(figure, key, f"{name} by step: {described}.")


@styled_chart
def learning_rate_chart(key: str, steps: Sequence[int], rates: Sequence[float]) -> Markup:
    """Learning rate by step."""
    figure, axes = new_axes("step", "learning rate")
    axes.plot(*_thinned(np.asarray(steps, dtype=float), np.asarray(rates, dtype=float)), color=AFTER, linewidth=2)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.yaxis.get_offset_text().set_color(MUTED)
    return svg(figure, key, f"Learning rate by step: highest {max(rates):.2e}, {rates[-1]:.2e} at the end.")


@styled_chart
def validation_chart(
    key: str,
    epochs: Sequence[float],
    accuracies: Sequence[float],
    intervals: Sequence[tuple[float, float] | None],
    macro_f1: Sequence[float | None],
    chance: float | None,
    *,
    x_label: str = "epoch",
) -> Markup:
    """Validation accuracy with its intervals and macro F1, by epoch or, where `x_label` says so, by step."""
    figure, axes = new_axes(x_label, "")
    bars = [(x, y, *band) for x, y, band in zip(epochs, accuracies, intervals) if band is not None]
    for x, y, low, high in bars:
        axes.plot([x, x], [min(low, y), max(high, y)], color=AFTER, linewidth=5, alpha=0.25)
    axes.plot(epochs, accuracies, color=AFTER, linewidth=2, marker="o", markersize=4, label="accuracy")
    with_f1 = [(x, f1) for x, f1 in zip(epochs, macro_f1) if f1 is not None]
    if with_f1:
        axes.plot(*zip(*with_f1), color=BEFORE, linewidth=1.5, linestyle=(0, (4, 2)), marker="s", markersize=3,
                  label="macro F1")  # fmt: skip
    if chance is not None:
        axes.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), label="chance")
    percent_axis(axes.yaxis)
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(axes)
    described = ", ".join(f"{x_label} {x:g}: {100 * y:.1f} %" for x, y in zip(epochs, accuracies))
    return svg(figure, key, f"Validation accuracy by {x_label}. {described}.")


@styled_chart
def reliability_chart(key: str, calibrations: Sequence[tuple[str, Calibration]]) -> Markup:
    """Accuracy against confidence; the diagonal is a model that is as often right as it says.

    Args:
        key: start of the ids inside the chart.
        calibrations: (`before` or `after`, figures), one or two; or one of a model that was not tuned here, under "".
    """
    figure, axes = new_axes("confidence", "accuracy")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
    looks = {"before": (BEFORE, "s", (0, (4, 2)))}
    described = []
    for stage, figures in calibrations:
        colour, marker, line = looks.get(stage, (AFTER, "o", "solid"))
        when = f"{stage} tuning" if stage else ""
        filled = [b for b in figures.bins if b.count]
        largest = max(b.count for b in filled)
        x, y = np.array([[b.confidence, b.accuracy] for b in filled], dtype=float).T
        axes.plot(x, y, color=colour, linewidth=1.5, linestyle=line, label=when)
        axes.scatter(x, y, s=[12 + 70 * b.count / largest for b in filled], color=colour, marker=marker, alpha=0.8)
        described.append(f"{when} the expected calibration error is {100 * figures.ece:.1f} %".strip())
    for axis in (axes.xaxis, axes.yaxis):
        percent_axis(axis)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    figure.subplots_adjust(right=0.95)
    if any(stage for stage, _ in calibrations):
        legend_above(axes)
    return svg(figure, key, f"Accuracy by confidence: {'; '.join(described)}.")


def new_axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """An empty chart."""
    figure = Figure(figsize=_SIZE_INCHES)
    axes = figure.subplots()
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.spines["left"].set_visible(False)
    return figure, axes


def svg(figure: Figure, key: str, description: str, css_class: str = "chart") -> Markup:
    """The figure as an SVG element that takes its colours from the page and says to a screen reader what it shows."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    # Ids must be unique in the page that many charts go into.
    svg = re.sub(r'\bid="', f'id="{key}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{key}-", svg)
    opening = f'<svg class="{css_class}" role="img" aria-label="{escape(description)}"'
    return Markup(re.sub(r'^<svg(?: (?:width|height)="[^"]*")*', opening, svg))


def legend_above(axes: Axes, lines: Sequence[Line2D] = (), names: Sequence[str] = (), *, columns: int = 3) -> None:
    """A legend outside the axes, where it can hide no point; of the labelled lines, or of those that are given."""
    num_rows = -(-max(1, len(names)) // columns)
    axes.figure.subplots_adjust(top=0.94 - 0.065 * num_rows)
    given = {"handles": list(lines), "labels": list(names)} if names else {}
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=columns, borderaxespad=0, **given)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve with at most `_MAX_RAW_POINTS` points, each the mean of its neighbours."""
    if len(x) <= _MAX_RAW_POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), _MAX_RAW_POINTS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def _running_mean(y: np.ndarray, window: int) -> np.ndarray:
    """Mean over `window` values around each one, over fewer at the ends."""
    padded = np.concatenate([[0.0], np.cumsum(y)])
    index = np.arange(len(y))
    low, high = np.maximum(0, index - window // 2), np.minimum(len(y), index + window // 2 + 1)
    return (padded[high] - padded[low]) / (high - low)


def _loss_ceiling(y: np.ndarray) -> float:
    """Top of the loss axis: a first spike must not flatten the rest of the curve."""
    typical = float(np.quantile(y, 0.98)) * 1.25
    return max(min(float(y.max()) * 1.05, typical), 1e-6)


def percent_axis(axis: Axis) -> None:
    """Let an axis show shares in percent."""
    axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
