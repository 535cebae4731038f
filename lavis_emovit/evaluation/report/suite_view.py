"""What the report shows of a suite: the headline table, papers beside it, each benchmark, settings and fingerprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lavis_emovit.evaluation.benchmark_rows import result_name
from lavis_emovit.evaluation.report.benchmark import BenchmarkView, benchmark_view
from lavis_emovit.evaluation.report.comparison import comparison_grid, several_note, within_suite
from lavis_emovit.evaluation.report.grid import NOTHING, Grid, GridCell, number_cell, percent
from lavis_emovit.evaluation.report.suite_contents import SuiteContents
from lavis_emovit.evaluation.tables import table_of

_HASH_LENGTH = 12


@dataclass(frozen=True)
class SuiteView:
    """All that the page shows of one suite."""

    key: str
    name: str
    lede: str
    headline: Grid | None
    references: Grid | None
    comparisons: Grid | None
    comparisons_note: str
    sensitivity: Grid | None
    benchmarks: list[BenchmarkView]
    left_out: list[str]
    settings: list[tuple[str, str]]
    fingerprints: Grid | None
    versions: dict[str, str]
    config_text: str
    notes: list[str]
    is_suite: bool = True


def suite_view(suite: SuiteContents, key: str) -> SuiteView:
    """Everything about one suite; `key` starts the ids of its parts in the page."""
    compared = within_suite(suite)
    num_compared = sum(one.problem is None for one in compared)
    benchmarks = [benchmark_view(suite, asked, f"{key}-{number}") for number, asked in enumerate(suite.asked, start=1)]
    return SuiteView(
        key=key,
        name=suite.name,
        lede=_lede(suite),
        headline=headline_grid([suite], f"{key}-headline"),
        references=_references(suite.summary.get("references") or [], f"{key}-references-grid"),
        comparisons=comparison_grid(
            f"{key}-comparisons-grid", "Differences from the first model of each benchmark", compared
        ),
        comparisons_note=several_note(num_compared),
        sensitivity=_sensitivity(suite.summary.get("sensitivity") or [], f"{key}-sensitivity-grid"),
        benchmarks=benchmarks,
        left_out=_left_out(suite.summary),
        settings=_settings(suite),
        fingerprints=_fingerprints(suite, f"{key}-fingerprints-grid"),
        versions=_versions(suite),
        config_text=suite.config_text,
        notes=_notes(suite),
    )


def headline_grid(suites: Sequence[SuiteContents], key: str) -> Grid | None:
    """Models by benchmarks, of one suite or of several whose rows start with the name of their folder."""
    columns: dict[tuple[str, str], None] = {}
    tables = [(suite, table_of(suite.summary)) for suite in suites if suite.asked]
    for _, table in tables:
        columns |= dict.fromkeys(table.columns)
    if not columns:
        return None
    rows, notes = [], []
    for suite, table in tables:
        for (model, method), cells in table.rows.items():
            name = f"{model} ({method})" if method else model
            if len(suites) > 1:
                name = f"{suite.folder_name}: {name}"
            by_column = dict(zip(table.columns, cells))
            shown = []
            for column in columns:
                cell = by_column.get(column)
                if cell is None or (cell.text == "-" and not cell.notes):
                    shown.append(NOTHING)
                    continue
                shown.append(_headline_cell(cell, column[1]))
                notes += [f"{name} on {column[0]}: {note}." for note in cell.notes]
            rows.append((name, shown))
    heads = [f"{name}: {metric}" for name, metric in columns]
    caption = "Headline figures with bootstrap intervals of 95 %"
    return Grid(key, caption, "Model", heads, rows, tuple(dict.fromkeys(notes)))


def _headline_cell(cell: Any, metric: str) -> GridCell:
    if cell.text == "-":
        return GridCell(NOTHING.text, is_flagged=True)
    is_number = metric.endswith("CCC")
    scale = 1.0 if is_number else 0.01
    unit = "" if is_number else "\u202f%"
    low, high = (None if end is None else min(1.0, max(0.0, float(end) * scale)) for end in (cell.low, cell.high))
    detail = "" if cell.low is None else f"{cell.low} to {cell.high}".replace("-", "\u2212")
    share = min(1.0, max(0.0, float(cell.text) * scale))
    return GridCell(cell.text.replace("-", "\u2212") + unit, detail, share, low, high, bool(cell.notes))


def _lede(suite: SuiteContents) -> str:
    num_models, num_benchmarks = len(suite.settings.models), len(suite.settings.benchmarks)
    models = f"{num_models} models" if num_models > 1 else "One model"
    benchmarks = f"{num_benchmarks} benchmarks" if num_benchmarks > 1 else "one benchmark"
    num_rows = sum(len(rows) for asked in suite.asked for rows in asked.rows.values())
    return f"{models} on {benchmarks}, {num_rows:,} answers."


def _notes(suite: SuiteContents) -> list[str]:
    errors = {
        f"{result_name(*key)} on {asked.name}": sum(row.error is not None for row in rows)
        for asked in suite.asked
        for key, rows in asked.rows.items()
    }
    failed = [f"{name}: {count}" for name, count in errors.items() if count]
    if not failed:
        return suite.notes
    return [*suite.notes, f"Samples failed; no figure counts them, and they are listed below ({'; '.join(failed)})."]


def _left_out(summary: Mapping[str, Any]) -> list[str]:
    found = [f"{name}: {reason}" for name, reason in (summary.get("absent") or {}).items()]
    for benchmark, models in (summary.get("left_out") or {}).items():
        for model, methods in models.items():
            found += [f"{result_name(model, method)} on {benchmark}: {reason}" for method, reason in methods.items()]
    return found


def _references(references: Sequence[Mapping[str, Any]], key: str) -> Grid | None:
    if not references:
        return None
    names = ("benchmark", "metric", "value", "n", "status", "source", "caveat")
    rows = []
    for one in references:
        # Figures of papers are shares; they are shown as ours are.
        shown = {**one, "value": percent(one["value"]), "metric": str(one.get("metric", "")).replace("_", " ")}
        rows.append((str(one.get("model") or "unnamed"), [GridCell(_words(shown.get(name))) for name in names]))
    heads = [name if name == "n" else name.capitalize() for name in names]
    return Grid(key, "Figures of papers, quoted and not measured here", "Model", heads, rows, is_text=True)


def _sensitivity(found: Sequence[Mapping[str, Any]], key: str) -> Grid | None:
    if not found:
        return None
    tasks = list(dict.fromkeys(task for one in found for task in one["tasks"]))
    rows = []
    for one in found:
        cells = [number_cell(one["sensitivity"])]
        cells += [number_cell(one["tasks"][task]["ratio"]) if task in one["tasks"] else NOTHING for task in tasks]
        rows.append((result_name(one["model"], one["method"]), cells))
    return Grid(
        key, "Standard deviation over variants of the question, divided by the mean", "Model", ["All", *tasks], rows
    )


def _settings(suite: SuiteContents) -> list[tuple[str, str]]:
    settings = suite.settings
    models = "; ".join(f"{name}: {entry.adapter}" for name, entry in settings.models.items())
    return [
        ("Models", models),
        ("Benchmarks", ", ".join(settings.benchmarks)),
        ("Asked by", ", ".join(method.replace("_", ", ", 1) for method in settings.methods)),
        ("Batch size", str(settings.batch_size)),
    ]


def _fingerprints(suite: SuiteContents, key: str) -> Grid | None:
    rows = []
    for (benchmark, model, method), made in suite.made_with.items():
        identity = made.get("model") or {}
        weights = ", ".join(f"{name} {_words(value)}" for name, value in identity.items() if value not in (None, ""))
        cells = [GridCell(_words(made.get(name))) for name in ("data", "train_data", "questions")]
        rows.append((f"{benchmark}: {result_name(model, method)}", [*cells, GridCell(weights or NOTHING.text)]))
    if not rows:
        return None
    columns = ("Data", "Learnt from", "Questions", "Model")
    caption = f"What the answers were made with; of hashes the first {_HASH_LENGTH} digits"
    return Grid(key, caption, "Answers", columns, rows, is_text=True)


def _versions(suite: SuiteContents) -> dict[str, str]:
    """Of the packages that answered; where files of rows differ, all versions are named."""
    found: dict[str, list[str]] = {}
    for made in suite.made_with.values():
        for package, version in (made.get("versions") or {}).items():
            of_package = found.setdefault(str(package), [])
            if str(version) not in of_package:
                of_package.append(str(version))
    return {package: ", ".join(versions) for package, versions in found.items()}


def _words(value: Any) -> str:
    """A value for people: hashes shortened, lists joined, nothing as a dash."""
    if value is None or value == "":
        return NOTHING.text
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    is_hash = len(text) >= 40 and all(character in "0123456789abcdef" for character in text)
    return text[:_HASH_LENGTH] if is_hash else text
