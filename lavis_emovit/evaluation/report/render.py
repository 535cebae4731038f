"""Templates of reports, and one escaping function for each format.

All text that a template inserts is escaped for its format: names, labels, answers and captions are never markup.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jinja2
import markupsafe
from markupsafe import Markup

from lavis_emovit.evaluation.report.table import MINUS, THIN_SPACE, percent, signed

_TEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    # Characters of our own numbers, which fonts without Unicode lack.
    THIN_SPACE: "\\,",
    MINUS: "$-$",
    "\u2013": "--",
    "\u00a0": "~",
}


# Markup of Markdown, HTML and GitHub's formulas. An underscore inside a word, as in the name of a model, is none.
_MARKDOWN = re.compile(
    r"[\\`*|~$]|(?<!\w)_|_(?!\w)|<(?=[\w/!?])|\](?=[(\[:])|&(?=#?\w+;)|^>|^[#+=-](?=[#+=-]*(?:\s|$))"
)


def markdown_text(text: object) -> str:
    """Text on one line in which Markdown finds no markup, HTML or formula."""
    line = _on_one_line(text).replace(THIN_SPACE, " ")
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", _MARKDOWN.sub(r"\\\g<0>", line))


def latex_text(text: object) -> str:
    """Text on one line in which LaTeX finds no commands."""
    escaped = "".join(_TEX.get(character, character) for character in _on_one_line(text))
    # At the start of a row, the command before it would take these as its argument.
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def _on_one_line(text: object) -> str:
    # All line ends of Unicode, and form feeds, which end a paragraph in TeX.
    return " ".join(line for part in str(text).splitlines() if (line := part.strip()))


def matrix_cells(counts: Sequence[int], right: int) -> Markup:
    """The cells of a row of a confusion matrix, in Python because a template is slow for thousands of them."""
    total = sum(counts)
    cells = []
    for place, count in enumerate(counts[:-1]):
        css_class = "hit" if place == right else ""
        shade = f' style="--s:{count / total:.3f}"' if count else ""
        cells.append(f'<td class="{css_class}{"" if count else " zero"}"{shade}>{int(count)}</td>')
    return Markup("".join(cells))


_ESCAPES: dict[str, Callable[[object], str]] = {
    "html": markupsafe.escape,
    "md": markdown_text,
    "tex": latex_text,
}


def render(template: str, **values: Any) -> str:
    """The text of a template, such as `report.md.jinja`, for its format."""
    text_format = template.split(".")[-2]
    text = _environment(text_format).get_template(template).render(**values)
    return text if text_format == "html" else re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@functools.cache
def _environment(text_format: str) -> jinja2.Environment:
    escape = _ESCAPES[text_format]

    def finalize(value: object) -> Markup:
        # What a macro returns is escaped already.
        return value if isinstance(value, Markup) else Markup(escape(value))

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lavis_emovit.evaluation.report"),
        autoescape=True,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "signed": signed, "matrix_cells": matrix_cells}
    return environment
