"""What a run's output folder holds, read back for a report.

Predictions are read strictly, because figures are computed from them. All else only illustrates: what is missing,
half-written or unreadable is left out and named in `notes`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.predictions import PredictionRow, read_predictions

BEFORE, AFTER = "before", "after"
_PREDICTION_FILE = re.compile(r"(?P<split>.+)-(?P<stage>before|after)\.jsonl")
_SPLIT_ORDER = {"test": 0, "val": 1, "train": 2}


@dataclass
class RunContents:
    """A run as its folder tells it.

    Attributes:
        path: the folder.
        config_text: config.yaml as it stands, or None.
        config: the same, parsed; empty where it cannot be.
        steps: `step` events of log.jsonl in order of the step, each step once, the last time it was done.
        evaluations: `eval` events in the order of the log.
        predictions: split -> stage (`before`, `after`) -> rows; the test split first.
        summary: metrics.json, which a run writes at its end; empty before.
        versions: packages that the run used.
        notes: what is missing or could not be read, for people.
        label: the folder's name where its last part alone does not tell it from another one.
    """

    path: Path
    config_text: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    predictions: dict[str, dict[str, list[PredictionRow]]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    label: str = ""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.label or self.path.name


def read_run(run_dir: str | os.PathLike[str]) -> RunContents:
    """Read the output folder of a run, finished or not.

    Raises:
        DataError: no such folder, nothing in it that a run writes, or a prediction file that is damaged.
    """
    path = Path(run_dir).expanduser().absolute()
    if not path.is_dir():
        raise DataError(f"{run_dir}: no such folder; give the output folder of a run (run.output_dir of its recipe)")
    run = RunContents(path)
    _read_config(run)
    _read_log(run)
    _read_predictions(run)
    _read_summary(run)
    _note_faults(run)
    if not (run.steps or run.evaluations or run.predictions):
        raise DataError(
            f"{run_dir}: no log.jsonl and no predictions in it; give the output folder of a run that has begun"
        )
    run.versions = _versions(run)
    _note_what_is_missing(run)
    return run


def _read_config(run: RunContents) -> None:
    path = run.path / "config.yaml"
    try:
        run.config_text = path.read_text(encoding="utf-8")
        config = yaml.safe_load(run.config_text)
    except FileNotFoundError:
        run.notes.append("config.yaml is missing, so the settings of the run are not shown.")
        return
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        run.notes.append("config.yaml cannot be read, so the settings of the run are not shown.")
        return
    run.config = config if isinstance(config, dict) else {}


def _read_log(run: RunContents) -> None:
    path = run.path / "log.jsonl"
    if not path.exists():
        run.notes.append("log.jsonl is missing, so there are no training curves.")
        return
    steps: dict[int, dict[str, Any]] = {}
    num_unreadable = 0
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _json_object(line)
        if row is None:
            # A line without an end is what a stopped run leaves; it is not worth a word.
            num_unreadable += number < len(lines)
        elif row.get("event") == "step" and isinstance(row.get("step"), int):
            steps[row["step"]] = row
        elif row.get("event") == "eval" and isinstance(row.get("metrics"), Mapping):
            run.evaluations.append(row)
    run.steps = [steps[step] for step in sorted(steps)]
    if num_unreadable:
        run.notes.append(f"log.jsonl has {num_unreadable} lines that cannot be read; they are left out.")


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:  # also text that is not UTF-8
        return None
    return row if isinstance(row, dict) else None


def _read_predictions(run: RunContents) -> None:
    found: dict[str, dict[str, list[PredictionRow]]] = {}
    for path in sorted((run.path / "predictions").glob("*.jsonl")):
        name = _PREDICTION_FILE.fullmatch(path.name)
        if name is None:
            run.notes.append(f"predictions/{path.name} is left out: no name of the form <split>-<before|after>.jsonl.")
            continue
        rows = read_predictions(path, drop_partial_last_line=True)
        if rows:
            found.setdefault(name["split"], {})[name["stage"]] = rows
        else:
            run.notes.append(f"predictions/{path.name} is empty.")
    run.predictions = {split: found[split] for split in sorted(found, key=lambda s: (_SPLIT_ORDER.get(s, 3), s))}


def _read_summary(run: RunContents) -> None:
    path = run.path / "metrics.json"
    if not path.exists():
        return
    summary = _json_object(path.read_bytes())
    if summary is None:
        run.notes.append("metrics.json cannot be read; the figures here are computed from the predictions anyway.")
    else:
        run.summary = summary


def _note_faults(run: RunContents) -> None:
    """Say how many training samples could not be read."""
    path = run.path / "quarantine.jsonl"
    if not path.exists():
        return
    kinds: Counter[str] = Counter()
    for line in path.read_bytes().splitlines():
        row = _json_object(line)
        if row is not None:
            kinds[str(row.get("kind", "unknown"))] += 1
    if kinds:
        listed = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in kinds.most_common())
        what = f"{kinds.total()} training samples could not be read and were replaced by others ({listed})"
        run.notes.append(f"{what}; {path.name} lists them.")


def _versions(run: RunContents) -> dict[str, str]:
    """Versions from metrics.json or, while a run is not finished, from its newest checkpoint."""
    sources = [run.summary]
    for manifest in sorted((run.path / "checkpoints").glob("ckpt-*/MANIFEST.json"), reverse=True):
        sources.append(_json_object(manifest.read_bytes()) or {})
    for source in sources:
        versions = source.get("versions")
        if isinstance(versions, Mapping) and versions:
            return {str(package): str(version) for package, version in versions.items()}
    return {}


def _note_what_is_missing(run: RunContents) -> None:
    stages = {stage for by_stage in run.predictions.values() for stage in by_stage}
    if not stages:
        run.notes.append("There are no predictions yet: the run was stopped before its first evaluation was done.")
    elif not run.steps:
        run.notes.append("The log has no training steps, so this shows an evaluation only.")
    elif AFTER not in stages:
        run.notes.append("The run was stopped before its last evaluation: there are no figures after tuning.")
    elif BEFORE not in stages:
        run.notes.append("Nothing was evaluated before tuning, so there is nothing to compare with.")
    if run.steps and not any(row.get("stage") == "during" for row in run.evaluations):
        run.notes.append("Nothing was validated while the model was tuned.")


def finite(value: Any) -> float | None:
    """A logged number as a float, or None for what is none: logs spell NaN and infinity as text."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
