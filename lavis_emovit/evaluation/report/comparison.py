"""Results side by side: paired differences with their intervals, and what it means that there are several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows, result_name
from lavis_emovit.evaluation.metrics import compare_models
from lavis_emovit.evaluation.metrics.comparison import holm
from lavis_emovit.evaluation.report.grid import NOTHING, Grid, GridCell, p_value, points, signed
from lavis_emovit.evaluation.report.run_contents import AFTER, BEFORE, RunContents
from lavis_emovit.evaluation.report.suite_contents import SuiteContents
from lavis_emovit.evaluation.summaries import compare


@dataclass(frozen=True)
class Compared:
    """One comparison.

    Attributes:
        later, first: whose difference it is: that of the later from the first.
        values: of `compare`.
    """

    later: str
    first: str
    values: Mapping[str, Any]

    @property
    def problem(self) -> str | None:
        """Why there is no difference."""
        return self.values.get("problem")


COLUMNS = ("Less", "Difference", "Pairs", "Only the later right", "Only the first right", "McNemar p", "Holm p")


def within_suite(suite: SuiteContents) -> list[Compared]:
    """Each result of each benchmark against the first of it, as metrics.json has them."""
    found = []
    for name, figures in suite.summary["benchmarks"].items():
        for one in figures.get("comparisons", []):
            later = f"{name}: {result_name(one['model'], one['method'])}"
            found.append(Compared(later, result_name(*one["against"]), one))
    return found


def between_suites(suites: Sequence[SuiteContents]) -> tuple[list[Compared], list[str]]:
    """Results of later suites against the first suite: the same model and method, else the first suite's first result.

    Returns:
        the comparisons, and why others could not be made.
    """
    first, *later = suites
    benchmarks = {one.name: one for one in first.asked}
    found: list[Compared] = []
    problems = []
    for suite in later:
        for asked in suite.asked:
            own = benchmarks.get(asked.name)
            if own is None:
                problems.append(
                    f"{suite.folder_name} asks about {asked.name}, which {first.folder_name} has no rows about."
                )
                continue
            problem = _differ(first, own, suite, asked)
            if problem:
                problems.append(f"{asked.name} in {suite.folder_name} and {first.folder_name}: {problem}.")
                continue
            for key in asked.rows:
                against = key if key in own.rows else next(iter(own.rows))
                name = f"{asked.name}: {suite.folder_name}, {result_name(*key)}"
                values = compare(own.measured(against), asked.measured(key))
                found.append(Compared(name, f"{first.folder_name}, {result_name(*against)}", values))
    return found, problems


def between_runs(runs: Sequence[RunContents]) -> tuple[list[Compared], list[str]]:
    """The last figures of later runs against those of the first, split by split.

    Returns:
        the comparisons, and why others could not be made.
    """
    first, *later = runs
    found: list[Compared] = []
    problems = []
    for run in later:
        shared = [split for split in run.predictions if split in first.predictions]
        if not shared:
            problems.append(f"{run.name} and {first.name} have no predictions on the same split.")
        for split in shared:
            before, after = (one.predictions[split] for one in (first, run))
            firsts, seconds = (stages.get(AFTER) or stages[BEFORE] for stages in (before, after))
            labels = sorted({row.label for row in [*firsts, *seconds] if row.label is not None})
            try:
                values = compare_models(firsts, seconds, labels).model_dump(mode="json")
            except DataError as error:
                values = {"problem": str(error)}
            found.append(Compared(f"{split}: {run.name}", first.name, values))
    return found, problems


def comparison_grid(key: str, caption: str, compared: Sequence[Compared]) -> Grid | None:
    """A table of differences, or None for none. Its last column adjusts the p values for all tests of the table."""
    measured = [one for one in compared if one.problem is None]
    adjusted = iter(holm([one.values["p_value"] for one in measured if "p_value" in one.values]))
    notes = [f"{one.later} less {one.first}: {one.problem}" for one in compared if one.problem is not None]
    if not compared:
        return None
    rows = []
    for one in measured:
        values = one.values
        is_share = not values["metric"].endswith("CCC")
        show = points if is_share else signed
        interval = values["interval"]
        span = f"{show(interval['low'])} to {show(interval['high'])}" if interval else ""
        metric = values["metric"].replace("_", " ") + (", in points" if is_share else "")
        left_out = f"{values['num_left_out']} failed" if values["num_left_out"] else ""
        cells = [GridCell(one.first, metric), GridCell(show(values["difference"]), span)]
        cells.append(GridCell(f"{values['num_pairs']:,}", left_out))
        if "p_value" in values:
            cells += [GridCell(str(values["num_only_after"])), GridCell(str(values["num_only_before"]))]
            cells += [GridCell(p_value(values["p_value"])), GridCell(p_value(next(adjusted)))]
        else:
            cells += [NOTHING] * 4
        rows.append((one.later, cells))
    return Grid(key, caption, "Compared", COLUMNS, rows, notes)


def several_note(num_comparisons: int) -> str:
    """What it means to look at so many differences at once."""
    if num_comparisons < 2:
        return "An interval that leaves out zero is evidence of a difference."
    return (
        f"{num_comparisons} comparisons stand here. Were there no difference anywhere, about "
        f"{num_comparisons / 20:.2g} of their intervals would still leave zero out, since each does so in 5 of 100 "
        "cases. The Holm p value holds for all tests of the table together; go by it unless one comparison was chosen "
        "before the figures were seen."
    )


def _differ(first: SuiteContents, own: BenchmarkRows, suite: SuiteContents, asked: BenchmarkRows) -> str:
    """Why a benchmark of two suites is not the same one, or nothing."""
    if own.settings.kind != asked.settings.kind:
        return f"one asks for {asked.settings.kind}, the other for {own.settings.kind}"
    if (own.label_set and own.label_set.labels) != (asked.label_set and asked.label_set.labels):
        return "other labels"
    hashes = [
        {made.get("data") for (name, _, _), made in one.made_with.items() if name == asked.name}
        for one in (first, suite)
    ]
    if all(hashes) and hashes[0] != hashes[1]:
        return "other data (their fingerprints differ)"
    records = [{row.record_id for rows in one.rows.values() for row in rows} for one in (own, asked)]
    if records[0] != records[1]:
        shared = len(records[0] & records[1])
        return f"other pictures ({len(records[1]):,} and {len(records[0]):,}, {shared:,} of them in both)"
    return ""
