"""Several runs or several suites in one report, held against the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lavis_emovit.evaluation.report.comparison import between_runs, between_suites, comparison_grid, several_note
from lavis_emovit.evaluation.report.grid import Grid
from lavis_emovit.evaluation.report.run_contents import RunContents
from lavis_emovit.evaluation.report.run_view import RunView
from lavis_emovit.evaluation.report.suite_contents import SuiteContents
from lavis_emovit.evaluation.report.suite_view import headline_grid


@dataclass(frozen=True)
class SideBySide:
    """Several runs, or several suites, held against the first of them.

    Attributes:
        key: start of the ids in the page.
        heading: what they are.
        headline: table of all; None for runs, which have one of their own form.
        differences: from the first, or None where there are none to show.
        note: what it means that there are several.
        problems: why comparisons could not be made.
        runs: views of the runs; empty for suites.
    """

    key: str
    heading: str
    headline: Grid | None
    differences: Grid | None
    note: str
    problems: list[str]
    runs: list[RunView]


def side_by_side(
    contents: Sequence[RunContents | SuiteContents], run_views: Sequence[RunView] = ()
) -> list[SideBySide]:
    """What is said of several runs, and of several suites; nothing for one of each.

    Args:
        contents: runs and suites.
        run_views: views of the runs, for the page.
    """
    found = []
    runs = [one for one in contents if isinstance(one, RunContents)]
    suites = [one for one in contents if isinstance(one, SuiteContents)]
    if len(runs) > 1:
        compared, problems = between_runs(runs)
        grid = comparison_grid(
            "runs-differences", f"Accuracy less that of {runs[0].name}, on the same pictures", compared
        )
        note = several_note(sum(one.problem is None for one in compared))
        found.append(SideBySide("runs", f"{len(runs)} runs side by side", None, grid, note, problems, list(run_views)))
    if len(suites) > 1:
        compared, problems = between_suites(suites)
        caption = f"Differences from {suites[0].folder_name}, on the same pictures"
        grid = comparison_grid("suites-differences", caption, compared)
        headline = headline_grid(suites, "suites-headline")
        note = several_note(sum(one.problem is None for one in compared))
        found.append(SideBySide("suites", f"{len(suites)} suites side by side", headline, grid, note, problems, []))
    return found
