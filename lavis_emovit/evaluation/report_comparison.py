"""Results side by side: paired differences with their intervals, and what it means that there are several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.comparisons import compare_askings, holm
from lavis_emovit.evaluation.metrics import compare_models
from lavis_emovit.evaluation.report_grid import NOTHING, Grid, GridCell, p_value, points, signed
from lavis_emovit.evaluation.report_pictures import result_name
from lavis_emovit.evaluation.run_contents import AFTER, BEFORE, RunContents
from lavis_emovit.evaluation.suite_contents import SuiteContents
from lavis_emovit.evaluation.summaries import AskedBenchmark

Compared = tuple[str, Mapping[str, Any]]
"""(what is compared, in words; the values of `compare_askings`)."""

COLUMNS = (
    "Difference",
    "95 % interval",
    "Pairs",
    "Only the later right",
    "Only the first right",
    "McNemar p",
    "Holm p",
)


def within_suite(suite: SuiteContents) -> list[Compared]:
    """Each result of each benchmark against the first of it, as metrics.json has them."""
    found = []
    for name, figures in suite.summary["benchmarks"].items():
        for one in figures.get("comparisons", []):
            words = f"{name}: {result_name(one['model'], one['way'])} less {result_name(*one['against'])}"
            found.append((words, one))
    return found


def between_suites(suites: Sequence[SuiteContents]) -> tuple[list[Compared], list[str]]:
    """Results of later suites against the first suite: the same model and way where it has them, else its first result.

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
            for key, rows in asked.rows.items():
                against = key if key in own.rows else next(iter(own.rows))
                words = (
                    f"{asked.name}: {suite.folder_name}, {result_name(*key)} less {first.folder_name}, "
                    f"{result_name(*against)}"
                )
                found.append((words, compare_askings(asked.settings, asked.label_set, own.rows[against], rows)))
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
            words = f"{split}: {run.name} less {first.name}"
            try:
                found.append((words, compare_models(firsts, seconds, labels).model_dump(mode="json")))
            except DataError as error:
                found.append((words, {"problem": str(error)}))
    return found, problems


def comparison_grid(key: str, caption: str, compared: Sequence[Compared]) -> Grid | None:
    """A table of differences, or None for none. Its last column adjusts the p values for all tests of the table."""
    measured = [(words, one) for words, one in compared if "problem" not in one]
    adjusted = iter(holm([one["p_value"] for _, one in measured if "p_value" in one]))
    notes = [f"{words}: {one['problem']}" for words, one in compared if "problem" in one]
    if not measured:
        return Grid(key, caption, "Compared", COLUMNS, [], notes) if notes else None
    rows = []
    for words, one in measured:
        show = signed if one["metric"].endswith("CCC") else points
        interval = one["interval"]
        span = GridCell(f"{show(interval['low'])} to {show(interval['high'])}") if interval else NOTHING
        unit = "" if one["metric"].endswith("CCC") else "points of "
        left_out = f"{one['num_left_out']} failed" if one["num_left_out"] else ""
        cells = [GridCell(show(one["difference"]), f"{unit}{one['metric'].replace('_', ' ')}"), span]
        cells.append(GridCell(f"{one['num_pairs']:,}", left_out))
        if "p_value" in one:
            cells += [GridCell(str(one["num_only_after"])), GridCell(str(one["num_only_before"]))]
            cells += [GridCell(p_value(one["p_value"])), GridCell(p_value(next(adjusted)))]
        else:
            cells += [NOTHING] * 4
        rows.append((words, cells))
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


def _differ(first: SuiteContents, own: AskedBenchmark, suite: SuiteContents, asked: AskedBenchmark) -> str:
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
    return ""
