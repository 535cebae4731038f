"""Tables of the report: one form for the page, for Markdown and for LaTeX, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lavis_emovit.evaluation.tables import latex_text, markdown_row

THIN_SPACE = "\u202f"
MINUS = "\u2212"


@dataclass(frozen=True)
class GridCell:
    """One figure.

    Attributes:
        text: the figure.
        detail: what stands smaller below it: its interval, a count.
        share: length of its bar, from 0 to 1; None for no bar.
        low, high: ends of its interval on the bar.
        is_flagged: a note below the table is about it.
    """

    text: str
    detail: str = ""
    share: float | None = None
    low: float | None = None
    high: float | None = None
    is_flagged: bool = False


NOTHING = GridCell("\u2013")
"""What was not measured."""


@dataclass(frozen=True)
class Grid:
    """A table whose rows and columns both have a head.

    Attributes:
        key: id in the page, different for each grid of it.
        caption: what it holds.
        corner: what the heads of the rows are.
        columns: heads of the columns.
        rows: (head, one cell a column).
        notes: below it.
        is_text: its cells hold words, not figures.
    """

    key: str
    caption: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[GridCell]]]
    notes: Sequence[str] = field(default_factory=tuple)
    is_text: bool = False

    @property
    def has_bars(self) -> bool:
        """Whether bars are drawn, which asks for columns of one width."""
        return any(cell.share is not None for _, cells in self.rows for cell in cells)


def percent(value: float | None, decimals: int = 1) -> str:
    """A share in percent."""
    return "none" if value is None else f"{100 * value:.{decimals}f}{THIN_SPACE}%"


def points(value: float) -> str:
    """A difference of two shares in percentage points, always with its sign."""
    return f"{100 * value:+.1f}".replace("-", MINUS)


def number(value: float | None, decimals: int = 3) -> str:
    """A number, its minus as long as a plus."""
    if value is None:
        return "none"
    # What rounds to zero has no sign.
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


def signed(value: float, decimals: int = 3) -> str:
    """A difference, always with its sign."""
    return f"{value:+.{decimals}f}".replace("-", MINUS)


def p_value(value: float) -> str:
    """A p value to three places, very small ones as a bound."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def share_cell(value: float | None, interval: Mapping[str, Any] | None = None, detail: str = "") -> GridCell:
    """A share in [0, 1] with its interval and a bar; the interval is left out where a `detail` is given."""
    if value is None:
        return NOTHING
    if interval is None:
        return GridCell(percent(value), detail, value)
    low, high = interval["low"], interval["high"]
    return GridCell(percent(value), detail or f"{100 * low:.1f} to {100 * high:.1f}", value, low, high)


def number_cell(
    value: float | None, interval: Mapping[str, Any] | None = None, decimals: int = 3, *, bar: bool = False
) -> GridCell:
    """A number with its interval; `bar` draws it where it lies in [0, 1], as CCC and F1 may."""
    if value is None:
        return NOTHING
    detail = ""
    low = high = None
    if interval is not None:
        low, high = interval["low"], interval["high"]
        detail = f"{number(low, decimals)} to {number(high, decimals)}"
    if not bar:
        return GridCell(number(value, decimals), detail)
    return GridCell(number(value, decimals), detail, _on_bar(value), _on_bar(low), _on_bar(high))


def _on_bar(value: float | None) -> float | None:
    return None if value is None else min(1.0, max(0.0, value))


def grid_markdown(grid: Grid) -> list[str]:
    """A grid as the lines of a Markdown table, its caption above."""
    lines = [f"*{grid.caption}*", "", markdown_row([grid.corner, *grid.columns])]
    lines.append(markdown_row(["---"] * (len(grid.columns) + 1)))
    lines += [markdown_row([head, *map(_plain, cells)]) for head, cells in grid.rows]
    return [*lines, *(line for note in grid.notes for line in ("", f"\\* {note}")), ""]


def grid_latex(grid: Grid) -> list[str]:
    """A grid as the lines of a LaTeX table; needs the package booktabs."""
    lines = [f"% {grid.caption}", f"\\begin{{tabular}}{{l{'r' * len(grid.columns)}}}", "\\toprule"]
    lines += [" & ".join(map(latex_text, [grid.corner, *grid.columns])) + " \\\\", "\\midrule"]
    for head, cells in grid.rows:
        lines.append(" & ".join([latex_text(head), *map(_latex_cell, cells)]) + " \\\\")
    return [*lines, "\\bottomrule", "\\end{tabular}", *(f"% * {note}" for note in grid.notes), ""]


def _plain(cell: GridCell) -> str:
    text = f"{cell.text} ({cell.detail})" if cell.detail else cell.text
    return text.replace(THIN_SPACE, " ") + ("\\*" if cell.is_flagged else "")


def _latex_cell(cell: GridCell) -> str:
    """Signs that fonts without Unicode lack are spelt as LaTeX spells them."""

    def spelt(text: str) -> str:
        return latex_text(text).replace(THIN_SPACE, "\\,").replace(MINUS, "$-$").replace("\u2013", "--")

    detail = f" {{\\scriptsize [{spelt(cell.detail)}]}}" if cell.detail else ""
    return spelt(cell.text) + detail + ("$^*$" if cell.is_flagged else "")
