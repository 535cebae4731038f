"""The table of a suite as Markdown and as LaTeX: models by benchmarks, headline figures with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lavis_emovit.evaluation.benchmark_rows import DIRECT

_METHODS = {
    "likelihood": "likelihood",
    "likelihood_sum": "likelihood, sum",
    "likelihood_calibrated": "likelihood, calibrated",
    "generation": "generation",
    DIRECT: "",
}


@dataclass(frozen=True)
class Cell:
    """One figure of the table.

    Attributes:
        text: the figure, or a dash.
        low, high: ends of its interval, or None.
        notes: what a reader must know: invalid answers, errors, a problem.
    """

    text: str
    low: str | None = None
    high: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of models, columns of benchmarks.

    Attributes:
        columns: (benchmark, metric) of each.
        rows: (model, method in words) -> one cell a column.
    """

    columns: list[tuple[str, str]]
    rows: dict[tuple[str, str], list[Cell]]


def table_of(summary: Mapping[str, Any]) -> Table:
    """The headline table out of what metrics.json holds."""
    benchmarks: Mapping[str, Any] = summary["benchmarks"]
    measured = {name: of for name, of in benchmarks.items() if any("headline" in result for result in of["results"])}
    columns = []
    keys: list[tuple[str, str]] = []
    for name, of in measured.items():
        first = next(result["headline"] for result in of["results"] if "headline" in result)
        columns.append((name, first["name"]))
        keys += [key for result in of["results"] if (key := (result["model"], result["method"])) not in keys]
    order = list(summary.get("models", []))
    keys.sort(key=lambda key: (order.index(key[0]) if key[0] in order else len(order), list(_METHODS).index(key[1])))
    rows = {}
    for model, method in keys:
        cells = []
        for of in measured.values():
            result = next((one for one in of["results"] if (one["model"], one["method"]) == (model, method)), None)
            cells.append(_cell(result))
        rows[model, _METHODS[method]] = cells
    return Table(columns, rows)


def markdown(summary: Mapping[str, Any]) -> str:
    """The table, what was left out, and the papers' figures in a table of their own."""
    table = table_of(summary)
    lines = [f"# {summary['suite']}", ""]
    if table.rows:
        head = ["model", "asked by", *(f"{name} ({metric})" for name, metric in table.columns)]
        lines += [markdown_row(head), markdown_row(["---"] * len(head))]
        notes: list[str] = []
        for (model, method), cells in table.rows.items():
            shown = []
            for (name, _), cell in zip(table.columns, cells):
                interval = f" ({cell.low} to {cell.high})" if cell.low is not None else ""
                shown.append(f"{cell.text}{interval}{'*' if cell.notes else ''}")
                notes += [f"{model}{f' ({method})' if method else ''} on {name}: {note}" for note in cell.notes]
            lines.append(markdown_row([model, method, *shown]))
        lines += ["", "Figures are shares in percent with bootstrap intervals of 95 %, CCC in [-1, 1]."]
        if notes:
            lines += ["", *(f"\\* {note}" for note in notes)]
    lines += _answers(summary)
    lines += _left_out(summary)
    lines += _references(summary.get("references", []))
    return "\n".join(lines) + "\n"


def latex(summary: Mapping[str, Any]) -> str:
    """The table alone, for a paper; needs the package booktabs."""
    table = table_of(summary)
    head = ["model", *(f"{latex_text(name)} ({latex_text(metric)})" for name, metric in table.columns)]
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        "\\toprule",
        " & ".join(head) + " \\\\",
        "\\midrule",
    ]
    for (model, method), cells in table.rows.items():
        name = latex_text(f"{model}, {method}" if method else model)
        shown = []
        for cell in cells:
            text = "--" if cell.text == "-" else latex_text(cell.text)
            interval = (
                f" {{\\scriptsize [{latex_text(cell.low)}, {latex_text(cell.high)}]}}" if cell.low and cell.high else ""
            )
            shown.append(f"{text}{interval}")
        lines.append(" & ".join([name, *shown]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _cell(result: Mapping[str, Any] | None) -> Cell:
    if result is None:
        return Cell("-")
    if "problem" in result:
        return Cell("-", notes=(result["problem"],))
    headline = result["headline"]
    notes = []
    if result["num_invalid"]:
        share = result["num_invalid"] / result["num_samples"]
        counted = "the farther end of the scale" if headline["name"].endswith("CCC") else "wrong"
        invalid = f"{100 * share:.1f} % of the answers are invalid ({result['num_invalid']})"
        notes.append(f"{invalid}; they count as {counted}")
    if result["num_errors"]:
        notes.append(f"{result['num_errors']} samples failed; the figure is over the other {result['num_samples']}")
    if headline["value"] is None:
        return Cell("-", notes=(*notes, f"the {headline['name']} is undefined here"))
    is_share = not headline["name"].endswith("CCC")
    interval = headline["interval"]
    if interval is None:
        return Cell(_figure(headline["value"], is_share), notes=tuple(notes))
    return Cell(
        _figure(headline["value"], is_share),
        _figure(interval["low"], is_share),
        _figure(interval["high"], is_share),
        tuple(notes),
    )


def _figure(value: float, is_share: bool) -> str:
    return f"{100 * value:.1f}" if is_share else f"{value:.3f}"


def _answers(summary: Mapping[str, Any]) -> list[str]:
    """How many answers every figure is over, and what became of the others; always printed."""
    head = ["benchmark", "model", "asked by", "n", "invalid", "errors", "no truth", "published rule of reading"]
    rows = []
    for name, of in summary["benchmarks"].items():
        for result in of["results"]:
            total = result.get("num_samples")
            invalid = "-" if not total else f"{100 * result['num_invalid'] / total:.1f} % ({result['num_invalid']})"
            rows.append(
                [
                    *(name, result["model"], _METHODS[result["method"]], "-" if total is None else str(total), invalid),
                    *(str(result["num_errors"]), str(result.get("num_without_truth", "-"))),
                    _published_rule(result.get("metrics", {}).get("original")),
                ]
            )
    if not rows:
        return []
    note = (
        "Invalid answers count as wrong, as numbers as the farther end of the scale; errors and pictures without a "
        "truth are left out of n. The published rule reads any run of letters as a label and "
        "drops what matches none: for comparison with published figures only."
    )
    return ["", "## Answers", "", *map(markdown_row, [head, ["---"] * len(head), *rows]), "", note]


def _published_rule(original: Mapping[str, Any] | None) -> str:
    if original is None:
        return ""
    accuracy = "-" if original["accuracy"] is None else f"{100 * original['accuracy']:.1f}"
    return f"{accuracy} ({original['num_dropped']} dropped)"


def _left_out(summary: Mapping[str, Any]) -> list[str]:
    lines = [f"- {name}: {reason}" for name, reason in summary.get("absent", {}).items()]
    for benchmark, models in summary.get("left_out", {}).items():
        for model, methods in models.items():
            lines += [f"- {model} on {benchmark} ({method}): {reason}" for method, reason in methods.items()]
    return ["", "## Left out", "", *lines] if lines else []


def _references(references: Sequence[Mapping[str, Any]]) -> list[str]:
    if not references:
        return []
    lines = ["", "## Figures of papers", "", "Quoted, not measured here; each as its source has it.", ""]
    head = ["model", "benchmark", "metric", "value", "n", "status", "source", "caveat"]
    lines += [markdown_row(head), markdown_row(["---"] * len(head))]
    for reference in references:
        shown = {**reference, "value": f"{100 * reference['value']:.2f} %"}
        lines.append(markdown_row([str(shown.get(key) or "") for key in head]))
    return lines


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


_TEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def latex_text(text: str | None) -> str:
    """Text with the characters that LaTeX would take for commands escaped."""
    return "".join(_TEX.get(character, character) for character in text or "")
