"""Tables of reports, and how numbers look in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

THIN_SPACE = "\u202f"
MINUS = "\u2212"


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    detail: str = ""  # smaller text below it: its interval, a count
    share: float | None = None  # length of its bar, from 0 to 1; None for no bar
    low: float | None = None  # ends of its interval on the bar
    high: float | None = None
    is_flagged: bool = False  # a note below the table is about this cell


NOTHING = Cell("\u2013")
"""Not measured."""


@dataclass(frozen=True)
class Table:
    """A table with row and column headings."""

    key: str  # its id, unique in the page
    caption: str
    corner: str  # heading of the row headings
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]  # heading and one cell a column
    notes: Sequence[str] = ()
    is_text: bool = False  # its cells are words, not numbers

    @property
    def has_bars(self) -> bool:
        """Whether cells have bars, which need columns of equal width."""
        return any(cell.share is not None for _, cells in self.rows for cell in cells)


Values = Mapping[str, Any]
"""A result as plain values."""


def finite(value: Any) -> float | None:
    """A logged number as a float, or None for anything else; logs contain NaN and infinity as text."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def value_at(values: Any, keys: Sequence[str]) -> Any:
    """The value at a path of keys; None if there is none."""
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def interval_at(values: Values, keys: Sequence[str]) -> Values | None:
    """The interval of a number: `<name>_interval` beside it, or its place in `intervals` or `<parent>_intervals`."""
    *parents, name = keys
    places = [[*parents, f"{name}_interval"], [*parents[:-1], "intervals", name], [*parents, "interval"]]
    if parents:
        places.append([*parents[:-1], f"{parents[-1]}_intervals", name])
    found = (value_at(values, place) for place in places)
    return next((one for one in found if isinstance(one, Mapping) and "low" in one), None)


def numbers_in(value: Any, *keys: str) -> Iterator[tuple[str, ...]]:
    """The paths of the numbers in the metrics of a result, also of undefined ones, but not those of intervals."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not keys or not key.endswith(("interval", "intervals")):
                yield from numbers_in(inner, *keys, key)
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield keys


def percent(value: float | None, decimals: int = 1) -> str:
    """A share in percent."""
    return "none" if value is None else f"{100 * value:.{decimals}f}{THIN_SPACE}%"


def points(value: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return signed(100 * value, 1)


def number(value: float, decimals: int = 3) -> str:
    """A number, with a minus sign as wide as a plus; zero has no sign."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


def signed(value: float, decimals: int = 3) -> str:
    """A difference, with its sign."""
    return f"{round(value, decimals) + 0.0:+.{decimals}f}".replace("-", MINUS)


def p_value(value: float) -> str:
    """A p value with three decimals; very small ones as a bound."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def is_share(metric: str) -> bool:
    """Whether a headline metric is shown in percent."""
    return not metric.endswith("CCC")


def share_cell(value: float | None, interval: Values | None = None, detail: str = "") -> Cell:
    """A share in [0, 1] with a bar and its interval; `detail` replaces the interval's text."""
    if value is None:
        return NOTHING
    if interval is None:
        return Cell(percent(value), detail, value)
    low, high = interval["low"], interval["high"]
    return Cell(percent(value), detail or f"{100 * low:.1f} to {100 * high:.1f}", value, low, high)


def number_cell(
    value: float | None, interval: Values | None = None, decimals: int = 3, *, has_bar: bool = False
) -> Cell:
    """A number with its interval, or a count; the bar shows the part of it in [0, 1]."""
    if value is None:
        return NOTHING
    if isinstance(value, int) and interval is None and not has_bar:
        return Cell(f"{value:,}")
    low, high = (interval["low"], interval["high"]) if interval is not None else (None, None)
    detail = f"{number(low, decimals)} to {number(high, decimals)}" if low is not None and high is not None else ""
    if not has_bar:
        return Cell(number(value, decimals), detail)
    share, low, high = (None if one is None else min(1.0, max(0.0, one)) for one in (value, low, high))
    return Cell(number(value, decimals), detail, share, low, high)


def invalid_answers(values: Values) -> Cell:
    """The share of invalid answers."""
    num_invalid, num_samples = values["num_invalid"], values["num_samples"]
    return Cell(percent(num_invalid / num_samples), f"{num_invalid} of {num_samples}")
