"""Runs that differ in the tested fold only: WAR and UAR of each fold, and their means."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmark_rows import BenchmarkRows, group_key
from lavis_emovit.evaluation.metrics.folds import FoldMetrics, fold_metrics
from lavis_emovit.evaluation.report.folder import Folder
from lavis_emovit.evaluation.report.sections import Part, text_part
from lavis_emovit.evaluation.report.table import Cell, Table, share_cell
from lavis_emovit.recipes import flatten

_FOLD = "test_fold"
# Each fold has shards and an output folder of its own.
_DIFFERING = (_FOLD, "storage", "output_dir")


def folds_parts(runs: Sequence[Folder]) -> tuple[list[Part], list[str]]:
    """A part for each group of runs with several folds, and what cannot be measured."""
    groups: dict[str, dict[str, Folder]] = {}
    for run in runs:
        settings = flatten(run.config)
        folds = {key: value for key, value in settings.items() if _last(key) == _FOLD and value is not None}
        if folds:
            kept = {key: value for key, value in settings.items() if _last(key) not in _DIFFERING}
            name = ", ".join(map(str, folds.values()))
            groups.setdefault(json.dumps([*folds, kept], sort_keys=True, default=str), {}).setdefault(name, run)
    tables: list[Table] = []
    problems: list[str] = []
    for group in groups.values():
        for benchmark in next(iter(group.values())).benchmarks if len(group) > 1 else ():
            # The validation splits of several folds have the same clips.
            if benchmark.name == "test" and benchmark.label_set is not None:
                try:
                    metrics = _measured(group, benchmark, benchmark.label_set.labels)
                except DataError as error:
                    problems.append(f"{benchmark.name} over folds: {error}")
                    continue
                tables.append(_table(f"runs-folds-table-{len(tables) + 1}", benchmark.name, metrics))
    return [text_part("folds", "runs", tables=tables)] if tables else [], problems


def _measured(group: dict[str, Folder], benchmark: BenchmarkRows, labels: Sequence[str]) -> FoldMetrics:
    """The last stage of each run on a benchmark."""
    folds = {}
    for fold, run in group.items():
        found = next((one for one in run.benchmarks if one.name == benchmark.name), None)
        if found is None:
            raise DataError(f"fold {fold} ({run.label}) has no predictions; evaluate this run, too")
        folds[fold] = found.plain(list(found.rows)[-1])
    folds = dict(sorted(folds.items()))
    return fold_metrics(folds, labels, group_by=group_key([row for rows in folds.values() for row in rows]))


def _table(key: str, name: str, metrics: FoldMetrics) -> Table:
    rows = [
        (
            f"Fold {fold}",
            [Cell(f"{one.num_samples:,}"), Cell(f"{one.num_errors:,}"), share_cell(one.war), share_cell(one.uar)],
        )
        for fold, one in metrics.folds.items()
    ]
    cells = [
        share_cell(value, interval.model_dump() if interval is not None else None)
        for value, interval in ((metrics.war, metrics.war_interval), (metrics.uar, metrics.uar_interval))
    ]
    groups = f"; intervals resample whole groups ({metrics.groups:,} of them)" if metrics.groups is not None else ""
    caption = f"WAR and UAR over {len(metrics.folds)} folds: {name}{groups}"
    num_errors = sum(one.num_errors for one in metrics.folds.values())
    sums = [Cell(f"{metrics.num_samples:,}"), Cell(f"{num_errors:,}")]
    return Table(key, caption, "", ("Clips", "Errors", "WAR", "UAR"), [*rows, ("Mean", [*sums, *cells])])


def _last(key: str) -> str:
    return key.rpartition(".")[2]
