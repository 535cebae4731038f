"""What a suite's output folder holds, read back for a report.

Rows of predictions are read strictly, because every figure is computed from them. metrics.json is read only for what
rows cannot tell: what was left out, and why.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lavis_emovit.emotion.labels import CUSTOM_PREFIX, LABEL_SETS, LabelSet, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmark_rows import DIRECT, BenchmarkRows
from lavis_emovit.evaluation.judging import Judgement
from lavis_emovit.evaluation.predictions import read_predictions
from lavis_emovit.evaluation.suite.settings import SuiteSettings
from lavis_emovit.evaluation.summaries import (
    benchmark_references,
    benchmark_summary,
    suite_sensitivity,
)
from lavis_emovit.settings import parse_settings

SETTINGS_NAME, METRICS_NAME = "suite.yaml", "metrics.json"

Asking = tuple[str, str, str]
"""Benchmark, model, method."""


@dataclass
class SuiteContents:
    """A suite as its folder tells it.

    Attributes:
        path: the folder.
        settings: of the suite.
        config_text: suite.yaml as it stands.
        asked: the benchmarks with all rows about them.
        made_with: what each file of rows was made with.
        summary: all figures, in the form of metrics.json.
        notes: what is missing or could not be read, for people.
        label: the folder's name where its last part alone does not tell it from another one.
    """

    path: Path
    settings: SuiteSettings
    config_text: str
    asked: list[BenchmarkRows] = field(default_factory=list)
    made_with: dict[Asking, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    label: str = ""

    @property
    def name(self) -> str:
        """The suite's own name."""
        return self.settings.name

    @property
    def folder_name(self) -> str:
        """What it goes by beside other suites."""
        return self.label or self.path.name


def is_suite(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is the output of a suite."""
    return (Path(path) / SETTINGS_NAME).is_file()


def read_suite(suite_dir: str | os.PathLike[str], summary: Mapping[str, Any] | None = None) -> SuiteContents:
    """Read the output folder of a suite, finished or not.

    Args:
        suite_dir: the folder.
        summary: its figures, where they have just been computed from the rows; None computes them.

    Raises:
        DataError: no such folder, settings that cannot be read, damaged predictions.
    """
    path = Path(suite_dir).expanduser().absolute()
    if not is_suite(path):
        raise DataError(f"{suite_dir}: no {SETTINGS_NAME} in it; give the output folder of a suite (suite.output_dir)")
    text = _text(path / SETTINGS_NAME)
    suite = SuiteContents(path, _settings(path / SETTINGS_NAME, text), text)
    known = _earlier_summary(suite) if summary is None else dict(summary)
    unfinished: list[str] = []
    for name in suite.settings.benchmarks:
        _read_benchmark(suite, name, known, unfinished)
    if unfinished:
        suite.notes.append(f"Not finished, so these figures are over the rows so far: {', '.join(unfinished)}.")
    if not any(one.rows for one in suite.asked):
        suite.notes.append("There are no predictions yet: the suite was stopped before its first batch was written.")
    suite.summary = known if summary is not None else known | _figures(suite)
    return suite


def _read_benchmark(suite: SuiteContents, name: str, known: Mapping[str, Any], unfinished: list[str]) -> None:
    settings = suite.settings
    earlier = known.get("benchmarks", {}).get(name, {})
    left_out = known.get("left_out", {}).get(name, {})
    rows, labels = {}, None
    for model in settings.models:
        for method in (*settings.methods, DIRECT):
            if method in left_out.get(model, {}):
                continue  # rows of an earlier start, which asked what is not asked any more
            path = suite.path / "predictions" / name / f"{model}.{method}.jsonl"
            beside = _json(path.with_suffix(".json"))
            if path.exists():
                found = read_predictions(path, drop_partial_last_line=True)
                if found:
                    rows[model, method] = found
                if beside is None:
                    suite.notes.append(f"{path.relative_to(suite.path)}: what it was made with is missing or damaged.")
                elif not beside.get("finished"):
                    unfinished.append(f"{model} on {name} ({method}), {len(found)} rows")
            if beside is not None and isinstance(beside.get("made_with"), Mapping):
                suite.made_with[name, model, method] = dict(beside["made_with"])
                labels = labels or beside["made_with"].get("labels")
    if rows:
        label_set = _label_set(labels, earlier.get("label_set") or settings.benchmarks[name].label_set)
        # Records without the truth that was asked for left no rows; only the suite itself could count them.
        counted = [result.get("num_without_truth") for result in earlier.get("results", [])]
        without_truth = min((count for count in counted if isinstance(count, int)), default=None)
        num_records = None
        if without_truth is not None:
            num_records = without_truth + max(len({row.record_id for row in found}) for found in rows.values())
        judgements = _judgements(suite, name, rows) if settings.judge is not None else {}
        benchmark = settings.benchmarks[name]
        suite.asked.append(BenchmarkRows(name, benchmark, label_set, rows, num_records, judgements))


def _judgements(suite: SuiteContents, name: str, rows: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """What the suite's judge said; a damaged line is left out and counted."""
    found: dict[tuple[str, str], list[Judgement]] = {}
    for model, method in rows:
        path = suite.path / "judgements" / name / f"{model}.{method}.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        for line in lines:
            try:
                found.setdefault((model, method), []).append(Judgement(**json.loads(line)))
            except (ValueError, TypeError):
                suite.notes.append(f"{path.relative_to(suite.path)} has a line that cannot be read; it is left out.")
    return found


def _label_set(labels: list[str] | None, name: str | None) -> LabelSet | None:
    """The set that was asked with, by its name, or else by its labels."""
    if labels is None:
        return None
    custom = f"{CUSTOM_PREFIX}{', '.join(labels)}"
    for known in (name, *LABEL_SETS, custom):
        try:
            label_set = get_label_set(known) if known is not None else None
        except DataError:  # a name out of a file that people may have changed
            continue
        if label_set is not None and label_set.labels == tuple(labels):
            return label_set
    return LabelSet(custom, tuple(labels))


def _figures(suite: SuiteContents) -> dict[str, Any]:
    return {
        "suite": suite.settings.name,
        "models": list(suite.settings.models),
        "benchmarks": {one.name: benchmark_summary(one) for one in suite.asked},
        "sensitivity": suite_sensitivity(suite.asked),
        "references": [row for one in suite.asked for row in benchmark_references(one)],
    }


def _earlier_summary(suite: SuiteContents) -> dict[str, Any]:
    """What metrics.json has, or nothing where the suite has not come so far."""
    path = suite.path / METRICS_NAME
    if not path.exists():
        suite.notes.append("metrics.json is missing, so what was left out, and why, is not known here.")
        return {}
    found = _json(path)
    if found is None:
        suite.notes.append("metrics.json cannot be read; the figures are computed from the rows anyway.")
    return found or {}


def _settings(path: Path, text: str) -> SuiteSettings:
    try:
        node = (yaml.safe_load(text) or {}).get("suite")
    except (yaml.YAMLError, AttributeError) as error:
        raise DataError(f"{path}: damaged: {error}; run the suite again to write it anew") from None
    if not isinstance(node, Mapping):
        raise DataError(f"{path}: has no node 'suite'; run the suite again to write it anew")
    settings, problems = parse_settings(SuiteSettings, node, "suite")
    if settings is None or problems:
        raise DataError(f"{path}: {'; '.join(problems)}; run the suite again to write it anew")
    return settings


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; run the suite again to write it anew") from None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
