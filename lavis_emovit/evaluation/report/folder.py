"""The output folder of a training run or of a suite, read for a report.

Predictions are read strictly, because all numbers are computed from them. Other files only add details: what is missing
or damaged is skipped and named in `notes`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from lavis_emovit.emotion.labels import CUSTOM_PREFIX, LABEL_SETS, LabelSet, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmark_rows import DIRECT, BenchmarkRows, ModelKey
from lavis_emovit.evaluation.benchmarks import AXES, BenchmarkSettings, Kind, RunBenchmarkSettings
from lavis_emovit.evaluation.judging import Judgement
from lavis_emovit.evaluation.metrics.registry import metrics_of
from lavis_emovit.evaluation.predictions import PredictionRow, read_predictions
from lavis_emovit.evaluation.report.table import value_at
from lavis_emovit.evaluation.suite_settings import SuiteSettings
from lavis_emovit.evaluation.summaries import (
    benchmark_references,
    benchmark_summary,
    group_summaries,
    suite_sensitivity,
)
from lavis_emovit.evaluation.written import RowsRecord, RunMetrics, RunVersions, SuiteMetrics, log_row
from lavis_emovit.files import file_sha256, load_yaml, read_file, regular_file
from lavis_emovit.own_files import Written, parse_as, read_own_if_any
from lavis_emovit.paths import expand_home
from lavis_emovit.settings import parse_settings, written_values
from lavis_emovit.shards.reader import QUARANTINE_NAME, ListedFault

BEFORE, AFTER = "before tuning", "after tuning"
"""The stages of a run, which take the place of models."""

_STAGE_FILE = re.compile(r"(?P<name>.+)-(?P<stage>before|after)\.jsonl")
_SPLITS = ("test", "val", "train")


@dataclass
class Folder:
    """The output folder of a training run or of a suite."""

    path: Path
    is_run: bool
    name: str  # of the suite, or of the run's folder
    label: str  # name of the folder beside others; longer than its last part if that is not unique
    config: dict[str, Any] = field(default_factory=dict)  # recipe; empty if it is missing or damaged
    config_text: str | None = None
    settings: SuiteSettings | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)  # `step` events of log.jsonl, the last one of each step
    evaluations: list[dict[str, Any]] = field(default_factory=list)  # `eval` events of log.jsonl
    groups: list[dict[str, Any]] = field(default_factory=list)  # `answers` events of log.jsonl
    epochs: list[dict[str, Any]] = field(default_factory=list)  # `epoch` events of log.jsonl, with a curriculum
    drops: list[dict[str, Any]] = field(default_factory=list)  # `dropped` events of log.jsonl
    benchmarks: list[BenchmarkRows] = field(default_factory=list)  # for a run, its evaluated splits
    # (benchmark, model, method) -> what its rows were made with, for a suite.
    made_with: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)  # all numbers, in the form of a suite's metrics.json
    result: dict[str, Any] = field(default_factory=dict)  # metrics.json of a run, written at its end
    versions: dict[str, str] = field(default_factory=dict)  # of packages
    notes: list[str] = field(default_factory=list)  # what is missing or damaged, for the reader of the report

    def setting(self, path: str) -> Any:
        """A setting of the recipe, such as `model.arch`; None if it has none."""
        return value_at(self.config, path.split("."))

    @property
    def dataset(self) -> str:
        """Names of the datasets of a run."""
        return ", ".join(map(str, self.setting("datasets") or ["unknown data"]))


def read_folder(path: str | os.PathLike[str], summary: Mapping[str, Any] | None = None) -> Folder:
    """Read the output folder of a run or of a suite, finished or not.

    `summary` has the numbers of a suite, if they were just computed from its rows.

    Raises:
        DataError: no such folder, not a folder of a run or suite, damaged settings of a suite, or damaged predictions.
    """
    place = expand_home(path).absolute()
    if not place.is_dir():
        raise DataError(f"{path}: no such folder. Use the run.output_dir of a run or the suite.output_dir of a suite.")
    folder = Folder(place, not (place / "suite.yaml").exists(), place.name, place.name)
    known = _read_run(folder) if folder.is_run else _read_suite(folder, summary)
    numbers = {
        "suite": folder.name,
        "models": list(folder.settings.models) if folder.settings else [BEFORE, AFTER],
        "benchmarks": {} if summary else {one.name: benchmark_summary(one) for one in folder.benchmarks},
        "sensitivity": suite_sensitivity(folder.benchmarks),
        "groups": group_summaries(folder.benchmarks, folder.settings.groups if folder.settings else {}),
        "references": [row for one in folder.benchmarks for row in benchmark_references(one) if not folder.is_run],
    }
    # As read from a file, so that the keys of mappings are text.
    folder.summary = json.loads(json.dumps(known | numbers if summary is None else known))
    if folder.is_run:
        _check_run(folder)
    return folder


def _read_run(folder: Folder) -> dict[str, Any]:
    _read_config(folder, "config.yaml")
    _read_log(folder)
    folder.result = _known(folder, RunMetrics, "the numbers here are computed from the predictions.") or {}
    _read_stages(folder)
    faults = _lines(folder.path / QUARANTINE_NAME, lambda line: parse_as(line, ListedFault).model_dump())
    kinds = Counter(row["kind"] if row else "damaged line of the list" for row in faults)
    if kinds:
        listed = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in kinds.most_common())
        what = f"{kinds.total()} training samples could not be read and were replaced by others ({listed})"
        folder.notes.append(f"{what}; quarantine.jsonl lists them.")
    if not (folder.steps or folder.evaluations or folder.benchmarks):
        problem = "has neither log.jsonl nor predictions. Use the output folder of a run that has started."
        raise DataError(f"{folder.path}: {problem}")
    # An unfinished run has no metrics.json; its newest checkpoint names the versions too.
    manifests = sorted((folder.path / "checkpoints").glob("ckpt-*/MANIFEST.json"), reverse=True)
    found = (
        source.get("versions") for source in (folder.result, *(_written(path, RunVersions)[0] for path in manifests))
    )
    folder.versions = next((one for one in found if one), {})
    return {}


def _read_config(folder: Folder, name: str) -> None:
    try:
        folder.config_text = regular_file(folder.path / name).read_text(encoding="utf-8")
        config = load_yaml(folder.config_text)
        folder.config = config if isinstance(config, dict) else {}
    except FileNotFoundError:
        folder.notes.append(f"{name} is missing, so this report has no settings.")
    except (OSError, ValueError) as error:
        if not folder.is_run:
            raise DataError(f"{folder.path / name}: damaged: {error}. Run the suite again to restore it.") from None
        folder.notes.append(f"{name} cannot be read, so this report has no settings.")


def _read_log(folder: Folder) -> None:
    path = folder.path / "log.jsonl"
    if not path.exists():
        folder.notes.append("log.jsonl is missing, so there are no training curves.")
    steps: dict[int, dict[str, Any]] = {}
    num_damaged = 0
    places = {"eval": folder.evaluations, "answers": folder.groups, "epoch": folder.epochs, "dropped": folder.drops}
    for row in _lines(path, log_row):
        if row is None:
            num_damaged += 1
        elif row["event"] == "step":
            steps[row["step"]] = row
        elif str(row["event"]) in places:
            places[row["event"]].append(row)
    folder.steps = [steps[step] for step in sorted(steps)]
    if num_damaged:
        folder.notes.append(f"log.jsonl has {num_damaged} lines that cannot be read; they are skipped.")


def _read_stages(folder: Folder) -> None:
    """The predictions of a run: a file for each evaluated split or benchmark and each stage."""
    found: dict[str, dict[ModelKey, list[PredictionRow]]] = {}
    # The stage before tuning comes first.
    for path in sorted((folder.path / "predictions").glob("*.jsonl"), reverse=True):
        matched = _STAGE_FILE.fullmatch(path.name)
        rows = read_predictions(path, drop_partial_last_line=True) if matched else []
        if matched and rows:
            found.setdefault(matched["name"], {})[BEFORE if matched["stage"] == "before" else AFTER, ""] = rows
        else:
            problem = "is empty" if matched else "is skipped: its name is not <split>-<before|after>.jsonl"
            folder.notes.append(f"predictions/{path.name} {problem}.")
    order = {name: place for place, name in enumerate(_SPLITS)}
    for name in sorted(found, key=lambda name: (order.get(name, len(order)), name)):
        last_first = [row for rows in reversed(found[name].values()) for row in rows]
        settings = _run_benchmark(folder, name, last_first)
        label_set = None
        if settings.kind in ("emotion", "labels", "explanation"):
            label_set = _label_set(_labels_of(folder, name, last_first), settings.label_set)
        folder.benchmarks.append(BenchmarkRows(name, settings, label_set, found[name]))


def _run_benchmark(folder: Folder, name: str, rows: Sequence[PredictionRow]) -> BenchmarkSettings:
    """Settings of an evaluated benchmark or split: from the recipe, or else from the rows."""
    for key in ("test_benchmarks", "valid_benchmarks"):
        node = folder.setting(f"run.{key}")
        given = node.get(name) if isinstance(node, Mapping) else None
        if isinstance(given, Mapping):
            settings, problems = parse_settings(RunBenchmarkSettings, given, "")
            if settings is not None and not problems:
                return settings
    names = {name for row in rows for name in row.true_values or {}}
    kind: Kind = "valence_arousal" if names & {*AXES} else "action_units" if names else "emotion"
    return BenchmarkSettings(dataset=folder.dataset, split=name, kind=kind)


def _labels_of(folder: Folder, name: str, rows: Sequence[PredictionRow]) -> list[str]:
    """The scored labels in their order, or else those of the logged metrics, or else all true labels."""
    logged = (row["metrics"].get("labels") for row in folder.evaluations if row.get("split") == name)
    found = (*(list(row.scores) for row in rows if row.scores is not None), *logged)
    labels = next((labels for labels in found if isinstance(labels, list)), None)
    return labels or sorted({row.label for row in rows if row.label is not None})


def _check_run(folder: Folder) -> None:
    """Refuse splits that cannot be measured, and note what is missing or has changed."""
    stages: set[str] = set()
    earlier = _measured_before(folder)
    for name, stage in earlier:
        if not (folder.path / "predictions" / f"{name}-{stage}.jsonl").is_file():
            what = f"predictions/{name}-{stage}.jsonl is missing, although the run measured it"
            folder.notes.append(f"{what}, so it is in no table. Restore it, or see metrics.json and log.jsonl.")
    for name, benchmark in folder.summary["benchmarks"].items():
        for result in benchmark["results"]:
            stages.add(result["model"])
            stage = "before" if result["model"] == BEFORE else "after"
            _note_other_rows(folder, f"{name}-{stage}", earlier.get((name, stage), {}), result)
            if "problem" in result:
                raise DataError(f"{folder.path}: predictions of split '{name}': {result['problem']}")
        for one in benchmark["comparisons"]:
            if "problem" in one:
                folder.notes.append(f"Split {name}: the stages cannot be compared, because {one['problem']}.")
    if not stages and not earlier:
        folder.notes.append("There are no predictions yet: the run stopped before its first evaluation.")
    elif not folder.steps:
        folder.notes.append("The log has no training steps, so this report shows an evaluation only.")
    elif AFTER not in stages and not any(stage == "after" for _, stage in earlier):
        folder.notes.append("The run stopped before its last evaluation, so there are no results after tuning.")
    elif BEFORE not in stages and not any(stage == "before" for _, stage in earlier):
        folder.notes.append("The model was not evaluated before tuning, so there is no comparison.")
    if folder.steps and not any(row.get("stage") == "during" for row in folder.evaluations):
        folder.notes.append("The model was not validated during tuning.")


def _measured_before(folder: Folder) -> dict[tuple[str, str], Mapping[str, Any]]:
    """(split, stage) -> the metrics that the run wrote to metrics.json, or else to its log."""
    found = {(str(row.get("split")), str(row.get("stage"))): row["metrics"] for row in folder.evaluations}
    for name, stages in folder.result.get("splits", {}).items():
        for stage, metrics in stages.items():
            found[name, stage] = metrics
    return {key: metrics for key, metrics in found.items() if key[1] in ("before", "after")}


def _note_other_rows(folder: Folder, name: str, before: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Note predictions that give other numbers than those of the run."""
    score, now = before.get("agg_metrics"), value_at(result, ["headline", "value"])
    counts = _most_samples(before), _most_samples(result)
    if counts[0] and counts[0] != counts[1]:
        what = f"has {counts[1]} samples, but the run measured {counts[0]}"
    elif isinstance(score, float) and isinstance(now, float) and not math.isclose(score, now, abs_tol=1e-6):
        what = f"gives {now:.4f}, but the run measured {score:.4f}"
    else:
        return
    advice = "The numbers here are of the file; restore it, or evaluate the checkpoint again."
    folder.notes.append(f"predictions/{name}.jsonl {what}: it has changed since. {advice}")


def _most_samples(values: Any) -> int:
    """The largest `num_samples` in the metrics of a benchmark."""
    parts = list(values.values()) if isinstance(values, Mapping) else values if isinstance(values, list) else []
    own = values.get("num_samples") if isinstance(values, Mapping) else None
    return max((own if isinstance(own, int) else 0, *map(_most_samples, parts)))


def _read_suite(folder: Folder, summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """Read a suite; returns what its metrics.json contains, because rows do not show what was skipped."""
    _read_config(folder, "suite.yaml")
    path, node = folder.path / "suite.yaml", folder.setting("suite")
    if not isinstance(node, Mapping):
        raise DataError(f"{path}: has no node 'suite'. Run the suite again to restore it.")
    folder.settings, problems = parse_settings(SuiteSettings, node, "suite")
    if folder.settings is None:
        # A choice such as `missing` may come from an environment variable.
        resolved = written_values(folder.config_text or "")
        folder.settings, problems = parse_settings(SuiteSettings, resolved["suite"], "suite")
    if folder.settings is None or problems:
        raise DataError(f"{path}: {'; '.join(problems)}. Run the suite again to restore it.")
    folder.name = str(node["name"])
    known = (
        dict(summary)
        if summary is not None
        else _known(folder, SuiteMetrics, "the numbers are computed from the rows.")
    )
    if known is None:
        folder.notes.append("metrics.json is missing, so this report does not know what was skipped and why.")
    results = (result for of in (known or {}).get("benchmarks", {}).values() for result in of["results"])
    names = {name for result in results for name in result.get("metrics", ())}
    if unknown := sorted(names - {metric.name for kind in get_args(Kind) for metric in metrics_of(kind)}):
        which = f"metrics.json has metrics that no loaded package defines: {', '.join(unknown)}"
        folder.notes.append(f"{which}. Install their package to see them in this report.")
    unfinished: list[str] = []
    absent: list[str] = []
    for name in folder.settings.benchmarks:
        absent += _read_benchmark(folder, folder.settings, name, known or {}, unfinished)
    had_rows = bool(folder.benchmarks or (known or {}).get("benchmarks"))
    if known and absent and had_rows:
        folder.notes.append(f"No predictions, so they are in no table: {', '.join(absent)}.")
    if unfinished:
        folder.notes.append(f"Not finished, so these numbers are over the rows so far: {', '.join(unfinished)}.")
    if not had_rows:
        folder.notes.append("There are no predictions yet: the suite stopped before it wrote its first batch.")
    packages: dict[str, dict[str, None]] = {}
    for made in folder.made_with.values():
        for package, version in (made.get("versions") or {}).items():
            packages.setdefault(str(package), {})[str(version)] = None
    folder.versions = {package: ", ".join(versions) for package, versions in packages.items()}
    return known or {}


def _read_benchmark(
    folder: Folder, settings: SuiteSettings, name: str, known: Mapping[str, Any], unfinished: list[str]
) -> list[str]:
    """Read the rows of a benchmark; returns what has none, although the suite did not skip it."""
    earlier = known.get("benchmarks", {}).get(name, {})
    skipped = known.get("left_out", {}).get(name, {})
    rows: dict[ModelKey, list[PredictionRow]] = {}
    labels = None
    for model, method in itertools.product(settings.models, (*settings.methods, DIRECT)):
        if method in skipped.get(model, {}):
            continue  # rows of an earlier start with other settings
        path = folder.path / "predictions" / name / f"{model}.{method}.jsonl"
        record, problem = _written(path.with_suffix(".json"), RowsRecord)
        if path.exists():
            if found := read_predictions(path, drop_partial_last_line=True):
                rows[model, method] = found
            if not record:
                what = f"{path.relative_to(folder.path)}: the record of what it was made with"
                folder.notes.append(f"{what} is damaged. {problem}" if problem else f"{what} is missing.")
            elif record.get("finished"):
                if record.get("sha256") not in (None, file_sha256(path)):
                    changed = f"{path.relative_to(folder.path)} has changed since the suite finished it"
                    advice = "The numbers here are of the file; restore it, or run the suite again."
                    folder.notes.append(f"{changed} ({len(found)} rows). {advice}")
            else:
                unfinished.append(f"{model} on {name} ({method}), {len(found)} rows")
        if record:
            folder.made_with[name, model, method] = record["made_with"]
            labels = labels or record["made_with"].get("labels")
    if rows:
        benchmark = settings.benchmarks[name]
        label_set = _label_set(labels, earlier.get("label_set") or benchmark.label_set) if labels else None
        # Records without a truth have no rows; only the suite itself could count them.
        counts = [result.get("num_without_truth") for result in earlier.get("results", [])]
        counted = [count for count in counts if count is not None]
        num_rows = max(len({row.record_id for row in found}) for found in rows.values())
        num_records = min(counted) + num_rows if counted else None
        judgements = {key: _judgements(folder, name, key) for key in rows} if settings.judge is not None else {}
        folder.benchmarks.append(BenchmarkRows(name, benchmark, label_set, rows, num_records, judgements))
    if name in known.get("absent", {}):
        return []
    answered = {model for model, _ in rows}
    counted_before = {(one.get("model"), one.get("method")) for one in earlier.get("results", [])}
    absent = [model for model in settings.models if model not in {*answered, *skipped}]
    absent += [f"{model} ({method})" for model, method in sorted(counted_before - {*rows}) if model in answered]
    return [f"{model} on {name}" for model in absent]


def _judgements(folder: Folder, benchmark: str, key: ModelKey) -> list[Judgement]:
    """The scores of the suite's judge; damaged lines are skipped and noted."""
    path = folder.path / "judgements" / benchmark / f"{key[0]}.{key[1]}.jsonl"
    found = []
    for line in read_file(path).splitlines() if path.exists() else []:
        try:
            found.append(parse_as(line, Judgement))
        except ValueError:
            folder.notes.append(f"{path.relative_to(folder.path)} has a line that cannot be read; it is skipped.")
    return found


def _label_set(labels: Sequence[str], name: str | None) -> LabelSet:
    """The label set with these labels, by its name if that is known."""
    named = []
    if name is not None:
        with contextlib.suppress(DataError):  # a name from a file that somebody may have edited
            named.append(get_label_set(name))
    custom = LabelSet(f"{CUSTOM_PREFIX}{', '.join(labels)}", tuple(labels))
    return next((one for one in (*named, *LABEL_SETS.values()) if one.labels == custom.labels), custom)


def _known(folder: Folder, kind: type[Written], otherwise: str) -> dict[str, Any] | None:
    """What metrics.json contains: None if it is missing, nothing if it is damaged."""
    path = folder.path / "metrics.json"
    found, problem = _written(path, kind)
    if problem:
        folder.notes.append(f"metrics.json cannot be read; {otherwise} {problem}")
    return found if path.exists() else None


def _written(path: Path, kind: type[Written]) -> tuple[dict[str, Any], str]:
    """What a file contains, nothing if it is missing or damaged, and why it cannot be used."""
    try:
        found = read_own_if_any(path, kind, "Restore it, or run the same command again.")
        return ({} if found is None else found.model_dump(exclude_unset=True)), ""
    except DataError as error:
        if not path.is_file():
            raise
        return {}, str(error)


def _lines(path: Path, read: Callable[[bytes], dict[str, Any]]) -> Iterator[dict[str, Any] | None]:
    """The rows of a JSON lines file, None for a damaged line; a last line cut by a crash is skipped."""
    lines = read_file(path).split(b"\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            yield read(line)
        except ValueError:
            if line.strip() and number < len(lines):
                yield None
