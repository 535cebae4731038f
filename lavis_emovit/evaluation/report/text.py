"""The tables of a report as Markdown, for a repository or a chat, and as LaTeX, for a paper."""

from __future__ import annotations

from collections.abc import Sequence

from lavis_emovit.evaluation.metrics import ClassificationMetrics
from lavis_emovit.evaluation.report.grid import (
    Grid,
    GridCell,
    grid_latex,
    grid_markdown,
    number_cell,
    share_cell,
)
from lavis_emovit.evaluation.report.run_contents import RunContents
from lavis_emovit.evaluation.report.run_view import RunView, run_view
from lavis_emovit.evaluation.report.suite_contents import SuiteContents
from lavis_emovit.evaluation.report.suite_view import SuiteView, suite_view
from lavis_emovit.evaluation.report.together import SideBySide


def markdown_report(contents: Sequence[RunContents | SuiteContents], together: Sequence[SideBySide]) -> str:
    """All tables with their notes; no pictures and no charts."""
    lines: list[str] = []
    for group in together:
        lines += [f"# {group.heading}", ""]
        lines += grid_markdown(group.headline) if group.headline is not None else []
        lines += [line for problem in group.problems for line in (problem, "")]
        lines += [*grid_markdown(group.differences), group.note, ""] if group.differences is not None else []
    for one in contents:
        view = _view(one)
        lines += [f"# {view.name}", ""]
        if isinstance(view, SuiteView):
            lines += [view.lede, ""]
        for heading, grids in _sections(view):
            lines += [f"## {heading}", ""]
            for grid in grids:
                lines += grid_markdown(grid)
        if isinstance(view, SuiteView) and view.left_out:
            lines += ["## Left out", "", *(f"- {one}" for one in view.left_out), ""]
        if view.notes:
            lines += ["## Missing", "", *(f"- {note}" for note in view.notes), ""]
    return "\n".join(lines).rstrip() + "\n"


def latex_report(contents: Sequence[RunContents | SuiteContents], together: Sequence[SideBySide]) -> str:
    """All tables, one tabular each, to be taken into a paper."""
    lines = ["% needs \\usepackage{booktabs}", ""]
    for group in together:
        lines += [f"% {group.heading}", *(f"% {problem}" for problem in group.problems)]
        for grid in (group.headline, group.differences):
            lines += grid_latex(grid) if grid is not None else []
    for one in contents:
        view = _view(one)
        for heading, grids in _sections(view):
            lines += [f"% {view.name}: {heading}"]
            for grid in grids:
                lines += grid_latex(grid)
    return "\n".join(lines).rstrip() + "\n"


def _view(contents: RunContents | SuiteContents) -> RunView | SuiteView:
    return suite_view(contents, "s") if isinstance(contents, SuiteContents) else run_view(contents, "r")


def _sections(view: RunView | SuiteView) -> list[tuple[str, list[Grid]]]:
    """(heading, tables) of a run or a suite."""
    if isinstance(view, RunView):
        return [("Result", [_run_grid(view)])] if view.splits else []
    found = [("Result", [view.headline])] if view.headline is not None else []
    named = [("Figures of papers", view.references), ("Differences", view.comparisons)]
    found += [(heading, [grid]) for heading, grid in named if grid is not None]
    for benchmark in view.benchmarks:
        grids = [grid for part in benchmark.parts for grid in part.grids]
        if grids:
            found.append((benchmark.name, grids))
    return found


def _run_grid(view: RunView) -> Grid:
    columns = ("Pictures", "Accuracy", "Balanced accuracy", "Macro F1", "Calibration error", "Invalid answers")
    rows = []
    for split in view.splits:
        for stage, metrics in split.stages.items():
            name = f"{split.name}, {stage} tuning" if len(split.stages) > 1 or stage == "before" else split.name
            rows.append((name, _run_cells(metrics)))
    return Grid("result", "Figures with bootstrap intervals of 95 %", "Split", columns, rows)


def _run_cells(metrics: ClassificationMetrics) -> list[GridCell]:
    return [
        GridCell(f"{metrics.num_samples:,}"),
        share_cell(metrics.accuracy, metrics.accuracy_interval.model_dump()),
        share_cell(metrics.balanced_accuracy),
        number_cell(metrics.macro_f1),
        share_cell(metrics.calibration.ece if metrics.calibration else None),
        share_cell(metrics.num_invalid / metrics.num_samples),
    ]
