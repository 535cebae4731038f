"""The parts of pages as HTML. All text from models, files and visitors is escaped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import jinja2

from lavis_emovit.evaluation.report import table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lavis_emovit.pages.answers import PageModel
    from lavis_emovit.pages.examples import Example
    from lavis_emovit.pages.judgements import SheetEntry
    from lavis_emovit.pages.reviews import Decision, ReviewItem
    from lavis_emovit.tuned.predictions import ImagePrediction


def percent(share: float) -> str:
    """A share as people read it: 61 %, or 0.4 % below one."""
    digits = 1 if 0.0005 <= share < 0.01 else 0
    return f"{100 * share:.{digits}f} %"


def signed(value: float) -> str:
    """A number with its sign, as reports write it; zero has none."""
    return table.signed(value, 2) if round(value, 2) else table.number(0.0, 2)


def header(kicker: str, title: str, lede: str, warning: str) -> str:
    """The top of a page."""
    return _macro("header", kicker, title, lede, warning)


def image(url: str, alt: str) -> str:
    """The chosen image."""
    return _macro("image", url, alt)


def problem(text: str) -> str:
    """What went wrong; screen readers announce it."""
    return _macro("problem", text)


def empty(model: PageModel) -> str:
    """The place of an answer before there is one."""
    return _macro("empty", model)


def numbers(model: PageModel, row: ImagePrediction) -> str:
    """Labels with probabilities, valence and arousal, action units."""
    return _macro("numbers", model, row)


def written(heading: str, text: str, is_ready: bool, note: str = "") -> str:
    """A written answer, or what there is of it."""
    return _macro("written", heading, text, is_ready, note)


def gallery(shown: Sequence[Example]) -> str:
    """Buttons with images to try."""
    return _macro("gallery", shown)


def attention(url: str | None, place: str) -> str:
    """The heat map, or why there is none."""
    return _macro("attention", url, place)


def moments(url: str | None, bars: Sequence[tuple[float, float, float]], label: str) -> str:
    """A film strip with a bar below each frame (see `effect_bars`), or why there is none."""
    return _macro("moments", url, bars, label)


def correction_head(folder: Path) -> str:
    """The beginning of the part that corrects labels."""
    return _macro("correction_head", folder)


def review_panel(
    item: ReviewItem,
    url: str,
    problem: str,
    labels: Sequence[tuple[str, str]],
    earlier: Decision | None,
    place: int,
    count: int,
    num_done: int,
    turn: int,
) -> str:
    """An image with its label and the buttons; `labels` are those to choose from with their keys.

    `turn` differs from that of every other panel, so that the page notices each answer to a decision.
    """
    return _macro("review_panel", item, url, problem, labels, earlier, place, count, num_done, turn)


def judge_panel(entry: SheetEntry, earlier: str | None, place: int, count: int, num_done: int, turn: int) -> str:
    """An image with two captions and the buttons; for `turn` see `review_panel`."""
    return _macro("judge_panel", entry, earlier, place, count, num_done, turn)


def review_end(count: int, num_done: int, turn: int) -> str:
    """What follows the last image."""
    return _macro("review_end", count, num_done, turn)


def _macro(name: str, *values: Any) -> str:
    return str(getattr(_templates(), name)(*values)).strip()


@cache
def _templates() -> Any:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lavis_emovit.pages"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(percent=percent, signed=signed)
    return environment.get_template("parts.html.jinja").module
