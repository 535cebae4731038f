"""Sections of a report: what the templates show, the same in all formats, with texts from `texts.yaml`."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from markupsafe import Markup

from lavis_emovit.evaluation.report.images import ShownImage
from lavis_emovit.evaluation.report.table import THIN_SPACE, Table, Values


class Fact(NamedTuple):
    """A single number."""

    name: str
    value: str
    detail: str = ""


class Dot(NamedTuple):
    """A share on a line from 0 to 1, with its interval; the stage is `before`, `after` or empty."""

    name: str
    share: float
    interval: Values | None = None
    stage: str = ""


class Matrix(NamedTuple):
    """The confusion matrix of a model."""

    key: str
    name: str
    metrics: Values  # of `ClassificationMetrics`
    # The most frequent mistakes: label, answer, number of images, and all images of the label.
    mistakes: Sequence[tuple[str, str, int, int]]


@dataclass(frozen=True)
class Part:
    """A part of a section: a heading and what is below it."""

    key: str = ""
    heading: str = ""
    note: str = ""
    # Headline metric of each stage in large letters: the stage, the value, and what it is.
    hero: Sequence[tuple[str, str, str]] = ()
    dots: Sequence[Dot] = ()
    facts: Sequence[Fact] = ()
    pairs: Mapping[str, Sequence[tuple[str, str]]] | None = None  # captions of small tables -> names and values
    tables: Sequence[Table] = ()
    remarks: Sequence[str] = ()
    matrices: Sequence[Matrix] = ()
    charts: Sequence[tuple[str, Markup]] = ()
    lines: Sequence[str] = ()
    images: Sequence[tuple[str, Sequence[ShownImage]]] = ()
    details: tuple[str, str] | None = None  # summary and text of what is folded


@dataclass(frozen=True)
class Section:
    """A section of a report."""

    key: str
    heading: str
    parts: Sequence[Part]
    note: str = ""
    problems: Sequence[str] = ()
    is_benchmark: bool = False


@functools.cache
def texts() -> dict[str, Any]:
    """The texts of the report."""
    return yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text(encoding="utf-8"))


def filled(text: str, values: Values) -> str:
    """A text with the values that it names."""
    return re.sub(r"(?<=\d)%", f"{THIN_SPACE}%", text.format_map(values))


def text_part(name: str, key: str, values: Values | None = None, **contents: Any) -> Part:
    """A part with its heading and note from the texts."""
    text = texts()[name]
    note = contents.pop("note", filled(text.get("note", ""), values or {}))
    return Part(f"{key}-{name}", text["heading"], note, **contents)
