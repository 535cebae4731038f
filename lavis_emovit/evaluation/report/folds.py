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
# The validation splits of several folds have the same clips.
_TEST = "test"


def folds_parts(runs: Sequence[Folder]) -> tuple[list[Part], list[str]]:
    """A part for each group of runs with several folds, and what cannot be measured."""
    groups: dict[str, dict[str, list[Folder]]] = {}
    for run in runs:
        settings = flatten(run.config)
        folds = {key: value for key, value in settings.items() if _last(key) == _FOLD and value is not None}
        if folds:
            kept = {key: value for key, value in settings.items() if _last(key) not in _DIFFERING}
            key = json.dumps([*folds, kept], sort_keys=True, default=str)
            groups.setdefault(key, {}).setdefault(", ".join(map(str, folds.values())), []).append(run)
    tables: list[Table] = []
    problems: list[str] = []
    for group in groups.values():
        tested = (_test_of(run) for of_fold in group.values() for run in of_fold)
        label_set = next((one.label_set for one in tested if one is not None), None)
        if len(group) < 2 or label_set is None:
            continue
        try:
            metrics = _measured(group, label_set.labels)
        except DataError as error:
            problems.append(f"{_TEST} over folds: {error}")
            continue
        tables.append(_table(f"runs-folds-table-{len(tables) + 1}", _TEST, metrics))
    return [text_part("folds", "runs", tables=tables)] if tables else [], problems


def _test_of(run: Folder) -> BenchmarkRows | None:
    """The test split of a run, if it has labels."""
    return next((one for one in run.benchmarks if one.name == _TEST and one.label_set is not None), None)


def _measured(group: dict[str, list[Folder]], labels: Sequence[str]) -> FoldMetrics:
    """The last stage of the run of each fold on the test split."""
    folds = {}
    for fold, runs in sorted(group.items()):
        if len(runs) > 1:
            names = ", ".join(run.label for run in runs)
            raise DataError(f"fold {fold} has {len(runs)} runs ({names}); report only one run of each fold")
        found = _test_of(runs[0])
        if found is None:
            raise DataError(f"fold {fold} ({runs[0].label}) has no predictions; evaluate this run, too")
        folds[fold] = found.plain(list(found.rows)[-1])
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
