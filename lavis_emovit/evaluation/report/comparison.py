"""Tables of paired differences: within a suite or run, and between several of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows, ModelKey, result_name
from lavis_emovit.evaluation.metrics.comparison import holm
from lavis_emovit.evaluation.report.folder import AFTER, Folder
from lavis_emovit.evaluation.report.table import NOTHING, Cell, Table, Values, is_share, p_value, points, signed
from lavis_emovit.evaluation.summaries import compare

COLUMNS = ("Minus", "Difference", "Pairs", "Only the later right", "Only the first right", "McNemar p", "Holm p")


class Compared(NamedTuple):
    """Names of two results, and the values of `PairedComparison` or `NumbersComparison`, or `problem`."""

    later: str
    first: str
    values: Values


def within(folder: Folder, key: str = "comparisons") -> list[Compared]:
    """Each result of each benchmark against the first one, or with `gains` against the one that the suite names."""
    return [
        Compared(f"{name}: {result_name(one['model'], one['method'])}", result_name(*one["against"]), one)
        for name, numbers in folder.summary["benchmarks"].items()
        for one in numbers.get(key, [])
    ]


def between(folders: Sequence[Folder]) -> tuple[list[Compared], list[str]]:
    """Results of later folders against the first, and why other comparisons are not possible.

    Results of suites are compared with those of the same model and method, or else with the first one; of runs, the
    last results are compared.
    """
    first, *later = folders
    benchmarks = {one.name: one for one in first.benchmarks}
    found: list[Compared] = []
    problems = []
    for folder in later:
        if folder.is_run and not {one.name for one in folder.benchmarks} & set(benchmarks):
            problems.append(f"{folder.label} and {first.label} have no predictions on the same split.")
            continue
        for benchmark in folder.benchmarks:
            own = benchmarks.get(benchmark.name)
            if own is None:
                if not folder.is_run:
                    problems.append(f"{folder.label} has the benchmark {benchmark.name}, {first.label} does not.")
                continue
            problem = _difference(first, own, folder, benchmark)
            if problem:
                problems.append(f"{benchmark.name} in {folder.label} and {first.label}: {problem}.")
                continue
            for key in _compared_keys(folder, benchmark):
                against = key if key in own.rows else _compared_keys(first, own)[0]
                name = f"{benchmark.name}: {folder.label}, {result_name(*key)}"
                values = compare(own.measured(against), benchmark.measured(key))
                found.append(Compared(name, f"{first.label}, {result_name(*against)}", values))
    return found, problems


def comparison_table(key: str, caption: str, compared: Sequence[Compared]) -> Table | None:
    """A table of differences; its last column adjusts the p values for all tests of the table."""
    measured = [one for one in compared if "problem" not in one.values]
    adjusted = iter(holm([one.values["p_value"] for one in measured if "p_value" in one.values]))
    notes = [f"{one.later} minus {one.first}: {one.values['problem']}" for one in compared if "problem" in one.values]
    rows = []
    for one in measured:
        values = one.values
        show = points if is_share(values["metric"]) else signed
        interval = values["interval"]
        metric = values["metric"].replace("_", " ") + (", in points" if show is points else "")
        failed = f"{values['num_left_out']} failed" if values["num_left_out"] else ""
        span = f"{show(interval['low'])} to {show(interval['high'])}" if interval else ""
        tests = [NOTHING] * 4
        if "p_value" in values:
            counts = (str(values["num_only_after"]), str(values["num_only_before"]))
            tests = [Cell(text) for text in (*counts, p_value(values["p_value"]), p_value(next(adjusted)))]
        pairs = Cell(f"{values['num_pairs']:,}", failed)
        rows.append((one.later, [Cell(one.first, metric), Cell(show(values["difference"]), span), pairs, *tests]))
    return Table(key, caption, "Compared", COLUMNS, rows, notes) if compared else None


def comparisons_note(compared: Sequence[Compared]) -> str:
    """How to read this number of differences."""
    count = sum("problem" not in one.values for one in compared)
    if count < 2:
        return "An interval that excludes zero is evidence of a difference."
    return (
        f"The table has {count} comparisons. Without any true difference, about {count / 20:.2g} of their intervals "
        "would exclude zero, because each does so in 5 of 100 cases. The Holm p value is adjusted for all tests of the "
        "table. Use it unless you chose a comparison before you saw the numbers."
    )


def _compared_keys(folder: Folder, benchmark: BenchmarkRows) -> list[ModelKey]:
    keys = list(benchmark.rows)
    return [(AFTER, "") if (AFTER, "") in keys else keys[-1]] if folder.is_run else keys


def _difference(first: Folder, own: BenchmarkRows, folder: Folder, benchmark: BenchmarkRows) -> str:
    """Why benchmarks of two folders cannot be compared, or nothing."""
    if own.settings.kind != benchmark.settings.kind:
        return f"their kinds are {benchmark.settings.kind} and {own.settings.kind}"
    if (own.label_set and own.label_set.labels) != (benchmark.label_set and benchmark.label_set.labels):
        return "different labels"
    hashes = [
        {made.get("data") for (name, _, _), made in one.made_with.items() if name == benchmark.name}
        for one in (first, folder)
    ]
    if all(hashes) and hashes[0] != hashes[1]:
        return "different data (their fingerprints differ)"
    records = [{row.record_id for rows in one.rows.values() for row in rows} for one in (own, benchmark)]
    if records[0] != records[1]:
        shared = len(records[0] & records[1])
        return f"different images ({len(records[1]):,} and {len(records[0]):,}, {shared:,} of them in both)"
    return ""
