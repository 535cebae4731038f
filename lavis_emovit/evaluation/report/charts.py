"""Charts of a report as inline SVG: drawn by matplotlib, coloured by the style sheet of the page.

matplotlib draws with placeholder colours, which CSS variables then replace, so that one chart serves light and dark
screens and print. Text stays text. Each chart has a key, unique in its page, with which its ids start.
"""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lavis_emovit.evaluation.report.table import Values, finite, is_share

MAX_CURVES = 8
MAX_POINTS = 400

# Placeholder colour -> CSS variable of templates/report.css.
INK, MUTED, GRID, AFTER, BEFORE = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--rule", AFTER: "--after", BEFORE: "--before"}

# Colour, marker and line of each curve.
_LOOKS: Any = (
    (AFTER, "o", "solid"),
    (BEFORE, "s", (0, (4, 2))),
    (INK, "^", (0, (1, 1.5))),
    (MUTED, "D", (0, (6, 1.5, 1, 1.5))),
    (AFTER, "v", (0, (2, 2))),
    (BEFORE, "P", "solid"),
    (INK, "X", (0, (5, 2))),
    (MUTED, "*", "solid"),
)
# Of two models, the second looks like the one after tuning.
_PAIR: Any = (_LOOKS[1], _LOOKS[0])
_DOTTED: Any = {"color": MUTED, "linewidth": 1, "linestyle": (0, (1, 2))}
_MAX_STEPS = 600
_MANY = 40  # points, from which on a line has no markers
# Legends and ticks have room for so many characters; those of a browser's font may be wider than matplotlib's.
_CHARACTERS_PER_INCH = 12.5
_TICK_CHARACTERS = 36
_LEGEND_GAP = 7  # characters taken by a line of the legend and the gap after its name
_LINE_INCHES = 0.17
_TOP_BELOW_LEGEND = 0.875


@functools.cache
def _settings() -> Any:
    # Without the defaults, so that only these settings are changed, as `rc_context(fname=...)` does.
    return matplotlib.rc_params_from_file(Path(__file__).with_name("report.mplstyle"), use_default_template=False)


@contextmanager
def _in_style() -> Iterator[None]:
    """The report's style, whatever matplotlib's settings are elsewhere."""
    with matplotlib.rc_context(_settings()):
        yield


class _Chart:
    """An empty chart; use it inside `_in_style`."""

    def __init__(self, key: str, x_label: str, y_label: str, size_inches: tuple[float, float] = (3.7, 2.6)):
        self._key, self._is_broad = key, size_inches[0] > 5
        self.figure = Figure(figsize=size_inches)
        self.axes = self.figure.subplots()
        self.axes.set(xlabel=x_label, ylabel=y_label)

    def legend(self, names: Sequence[str]) -> None:
        """A legend of the lines with a label, above the axes, where it hides no point; long names are wrapped."""
        width, height = self.figure.get_size_inches()
        room = int(_CHARACTERS_PER_INCH * width)
        names = [textwrap.fill(name, room - _LEGEND_GAP) for name in names]
        lengths = [max(map(len, name.splitlines())) + _LEGEND_GAP for name in names]
        num_columns = next(n for n in (3, 2, 1) if n == 1 or sum(map(max, _in_columns(lengths, n))) <= room)
        num_lines = max(sum(name.count("\n") + 1 for name in column) for column in _in_columns(names, num_columns))
        # Further lines make the figure taller, and leave the axes as they are.
        taller = height + _LINE_INCHES * (num_lines - 1)
        self.figure.set_size_inches(width, taller)
        bounds = self.figure.subplotpars
        self.figure.subplots_adjust(bottom=bounds.bottom * height / taller, top=_TOP_BELOW_LEGEND * height / taller)
        lines = [line for line in self.axes.lines if not str(line.get_label()).startswith("_")]
        labels = [name.replace("$", r"\$") for name in names]
        self.axes.legend(lines, labels, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=num_columns, borderaxespad=0)

    def in_percent(self, *names: str) -> None:
        """Show shares in percent on these axes, `x` or `y`."""
        for name in names:
            getattr(self.axes, f"{name}axis").set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))

    def mark_places(self, x: Sequence[float]) -> None:
        """Ticks on the x axis for these places, as many as have room for their labels."""
        axis = self.axes.xaxis
        if len(set(x)) == 1:
            self.axes.set_xticks([x[0]], [_place(x[0])])
            return
        for num_ticks in (6, 4, 3, 2):
            axis.set_major_locator(MaxNLocator(nbins=num_ticks, integer=all(map(float.is_integer, x))))
            labels = axis.get_major_formatter().format_ticks(axis.get_majorticklocs().tolist())
            if sum(len(label) + 1 for label in labels) <= _TICK_CHARACTERS:
                return

    def svg(self, description: str) -> Markup:
        """The chart as SVG; the description is for screen readers."""
        buffer = io.StringIO()
        self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        svg = buffer.getvalue()
        svg = svg[svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        for colour, variable in _VARIABLES.items():
            svg = svg.replace(colour, f"var({variable})")
        svg = re.sub(r'\bid="', f'id="{self._key}-', svg)
        svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{self._key}-", svg)
        css_class = "chart broad" if self._is_broad else "chart"
        opening = f'<svg class="{css_class}" role="img" aria-label="{escape(description)}"'
        return Markup(re.sub(r'^<svg(?: (?:width|height)="[^"]*")*', lambda _: opening, svg))


def _in_columns(entries: Sequence[Any], num_columns: int) -> list[Sequence[Any]]:
    """The entries of a legend as matplotlib puts them into columns."""
    parts = np.array_split(np.arange(len(entries)), num_columns)
    return [[entries[number] for number in part] for part in parts if len(part)]


def _place(x: float) -> str:
    return f"{x:.0f}" if x.is_integer() else f"{x:.3g}"


@_in_style()
def step_chart(
    key: str,
    title: str,
    unit: str,
    steps: Sequence[int],
    values: Sequence[float],
    spikes: Sequence[int] = (),
    *,
    is_smoothed: bool = True,
) -> Markup:
    """A value of the log by step: every value faintly, and their running mean if it `is_smoothed`.

    Args:
        title: for screen readers.
        unit: of the values; empty for shares, which are shown in percent.
        spikes: steps to mark at the top.
    """
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    window = max(1, len(y) // _MANY) if is_smoothed else 1
    # A single spike must not flatten the rest of the curve, and a share of zero still needs an axis.
    top = max(min(float(y.max()) * 1.05, float(np.quantile(y, 0.98)) * 1.25), 1e-9 if unit else 0.05)
    chart = _Chart(key, "step", unit)
    if window > 1:
        chart.axes.plot(*_thinned(x, y), color=AFTER, linewidth=0.8, alpha=0.35)
    marker = "o" if len(y) <= _MANY else None
    chart.axes.plot(*_thinned(x, _running_mean(y, window)), color=AFTER, linewidth=2, marker=marker, markersize=3)
    if spikes:
        chart.axes.plot(spikes, [0.97 * top] * len(spikes), color=BEFORE, linestyle="none", marker="v")
    chart.axes.set_ylim(bottom=0, top=top)
    chart.axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    chart.axes.yaxis.get_offset_text().set_color(MUTED)
    if not unit:
        chart.in_percent("y")
    scale, sign = (1, "") if unit else (100, " %")
    first, last, *spread = (f"{scale * one:.3g}{sign}" for one in (y[0], y[-1], np.median(y), y.min(), y.max()))
    description = f"{title} by step: {first} at step {steps[0]}, {last} at step {steps[-1]}, "
    description += "median {}, from {} to {}.".format(*spread)
    if spikes:
        description += f" {len(spikes)} steps are marked as spikes."
    return chart.svg(description)


@_in_style()
def overlaid_chart(
    key: str,
    title: str,
    curves: Sequence[tuple[str, Sequence[int], Sequence[float]]],
    *,
    unit: str = "loss per answer token",
    is_smoothed: bool = True,
) -> Markup:
    """Running means of several losses by step, or other numbers as they are: name, steps and values of each."""
    chart, described = _Chart(key, "step", unit, (5.4, 3.0)), []
    for (name, steps, values), (colour, _, line) in zip(curves, _LOOKS):
        y = np.asarray(values, dtype=float)
        smooth = _running_mean(y, max(1, len(y) // _MANY)) if is_smoothed else y
        chart.axes.plot(*_thinned(np.asarray(steps, dtype=float), smooth), color=colour, linestyle=line, label=name)
        described.append(f"{name} {y[0]:.3g} to {y[-1]:.3g}")
    chart.axes.set_ylim(bottom=0)
    chart.axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    chart.legend([name for name, _, _ in curves])
    return chart.svg(f"{title} by step: {'; '.join(described)}.")


@_in_style()
def validation_chart(key: str, x_label: str, title: str, field: str, rows: Sequence[Values]) -> Markup:
    """The headline metric of validations with its intervals, and macro F1 and chance if they are logged.

    Args:
        x_label: `epoch` or `step`.
        title, field: of the metric; its interval is `<field>_interval`.
        rows: `eval` events of the log.
    """
    x, metrics = [float(row[x_label]) for row in rows], [row["metrics"] for row in rows]
    values = [float(one[field]) for one in metrics]
    is_many = len(x) > _MANY
    chart, names = _Chart(key, x_label, "" if is_share(title) else title), [title]
    marker = None if is_many else "o"
    chart.axes.plot(x, values, color=AFTER, linewidth=2, marker=marker, markersize=4, label=title)
    intervals = [one.get(f"{field}_interval") or {} for one in metrics]
    lows, highs = (
        [value if (end := finite(one.get(name))) is None else end for value, one in zip(values, intervals)]
        for name in ("low", "high")
    )
    if is_many:
        chart.axes.fill_between(x, lows, highs, color=AFTER, linewidth=0, alpha=0.25)
    else:
        chart.axes.vlines(x, lows, highs, color=AFTER, linewidth=5, alpha=0.25)
    known = [(place, f1) for place, one in zip(x, metrics) if (f1 := finite(one.get("macro_f1"))) is not None]
    if known:
        names.append("macro F1")
        colour, marker, line = _LOOKS[1]
        marker = None if is_many else marker
        chart.axes.plot(*zip(*known), color=colour, marker=marker, markersize=3, linestyle=line, label=names[-1])
    if (chance := finite(metrics[-1].get("chance"))) is not None:
        names.append("chance")
        chart.axes.axhline(chance, label="chance", **_DOTTED)
    if is_share(title):
        chart.in_percent("y")
        chart.axes.set_ylim(0, 1)
    chart.mark_places(x)
    chart.legend(names)
    scale, sign = (100, " %") if is_share(title) else (1, "")
    described = (f"{x_label} {_place(place)}: {scale * one:.3g}{sign}" for place, one in zip(x, values))
    return chart.svg(f"Validation {title} by {x_label}. {', '.join(described)}.")


@_in_style()
def reliability_chart(key: str, calibrations: Sequence[tuple[str, Values]]) -> Markup:
    """Accuracy against confidence of one or two models, from plain values of `Calibration`."""
    chart, described = _Chart(key, "confidence", "accuracy"), []
    chart.axes.plot([0, 1], [0, 1], **_DOTTED)
    for (name, values), (colour, marker, line) in zip(calibrations, _PAIR[-len(calibrations) :]):
        filled = [one for one in values["bins"] if one["count"]]
        largest = max(one["count"] for one in filled)
        x, y = [one["confidence"] for one in filled], [one["accuracy"] for one in filled]
        sizes = [12 + 70 * one["count"] / largest for one in filled]
        chart.axes.plot(x, y, color=colour, linewidth=1.5, linestyle=line, label=name)
        chart.axes.scatter(x, y, s=sizes, color=colour, marker=marker, alpha=0.8)
        described.append(f"{name}: expected calibration error {100 * values['ece']:.1f} %")
    chart.in_percent("x", "y")
    chart.axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    if len(calibrations) > 1:
        chart.legend([name for name, _ in calibrations])
    return chart.svg(f"Accuracy by confidence. {'; '.join(described)}.")


@_in_style()
def risk_coverage_chart(key: str, calibrations: Sequence[tuple[str, Values]]) -> Markup:
    """Share of wrong answers among the most confident ones, one curve for each of `MAX_CURVES` models at most."""
    is_pair = len(calibrations) <= 2
    size_inches = (3.7, 2.6) if is_pair else (5.4, 3.0)
    chart, described = _Chart(key, "answered: the most confident share", "wrong among these", size_inches), []
    for (name, values), (colour, marker, line) in zip(calibrations, _PAIR if len(calibrations) == 2 else _LOOKS):
        x = [one["coverage"] for one in values["risk_coverage"]]
        y = [one["risk"] for one in values["risk_coverage"]]
        chart.axes.plot(x, y, color=colour, linestyle=line, marker=marker, markersize=4, markevery=3, label=name)
        described.append(f"{name} {100 * y[0]:.0f} % wrong at {100 * x[0]:.0f} %, {100 * y[-1]:.0f} % overall")
    chart.in_percent("x", "y")
    chart.axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    chart.legend([name for name, _ in calibrations])
    return chart.svg(f"Risk by coverage: {'; '.join(described)}.")


@_in_style()
def scatter_chart(key: str, axis: str, true_M: Sequence[float], predicted_M: Sequence[float]) -> Markup:
    """Predicted against true numbers on [-1, 1]; on the diagonal both are equal. Of many, every n-th is drawn."""
    step = max(1, -(-len(true_M) // MAX_POINTS))
    chart = _Chart(key, f"true {axis}", f"predicted {axis}", (2.9, 2.7))
    chart.axes.axhline(0, color=MUTED, linewidth=0.5)
    chart.axes.axvline(0, color=MUTED, linewidth=0.5)
    chart.axes.plot([-1, 1], [-1, 1], **_DOTTED)
    chart.axes.scatter(true_M[::step], predicted_M[::step], s=9, color=AFTER, linewidths=0, alpha=0.45)
    chart.axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    span = f"from {min(predicted_M):.2f} to {max(predicted_M):.2f}"
    return chart.svg(f"Predicted against true {axis} of {len(true_M)} images: predictions {span}.")


@_in_style()
def curve_chart(
    key: str, title: str, unit: str, axis: str, curves: Sequence[tuple[str, Sequence[float], Sequence[float]]]
) -> Markup:
    """Valence or arousal over time on [-1, 1], the truth first: name, moments and values of each curve.

    Args:
        title: for screen readers.
        unit: of the moments.
    """
    chart, described = _Chart(key, unit, axis, (5.4, 2.6)), []
    chart.axes.axhline(0, color=MUTED, linewidth=0.5)
    for (name, moments, values), (colour, _, line) in zip(curves, (_LOOKS[2], _LOOKS[0], _LOOKS[1], *_LOOKS[3:])):
        x, y = np.asarray(moments, dtype=float), np.asarray(values, dtype=float)
        chart.axes.plot(*_thinned(x, y), color=colour, linestyle=line, linewidth=1.5, label=name)
        described.append(f"{name} {y[0]:.2f} to {y[-1]:.2f}, between {y.min():.2f} and {y.max():.2f}")
    chart.axes.set(ylim=(-1.05, 1.05), yticks=[-1, 0, 1])
    chart.mark_places(list(curves[0][1]))
    chart.legend([name for name, _, _ in curves])
    return chart.svg(f"{title} by {unit}: {'; '.join(described)}.")


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve with at most `_MAX_STEPS` points, each the mean of its neighbours."""
    if len(x) <= _MAX_STEPS:
        return x, y
    parts = np.array_split(np.arange(len(x)), _MAX_STEPS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def _running_mean(y: np.ndarray, window: int) -> np.ndarray:
    """The mean over `window` values around each one, over fewer at the ends."""
    ones = np.ones(window)
    return np.convolve(y, ones, "same") / np.convolve(np.ones_like(y), ones, "same")
