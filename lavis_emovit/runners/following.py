"""Follow runs by their logs, while they train or later: where they are, how fast, and how well."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.written import log_row
from lavis_emovit.files import load_yaml, regular_file
from lavis_emovit.own_files import reason_of
from lavis_emovit.runners.best import HEADLINE

RECENT_STEPS = 20
_BARS = "▁▂▃▄▅▆▇█"
_NUM_BARS = 24
# Event -> what is shown of its rows.
_SHOWN = {"step": ("epoch", "lr"), "eval": ("split", "stage")}


@dataclass
class FollowedRun:
    """The state of one run; `update` reads what its log has gained.

    Attributes:
        folder: the output folder.
        last_step: the newest row of a step, empty before the first.
        last_evals: split -> the newest row of an evaluation.
        last_answers: the newest row of sampled answers, of reinforcement learning.
    """

    folder: Path
    last_step: dict[str, Any] = field(default_factory=dict)
    last_evals: dict[str, dict[str, Any]] = field(default_factory=dict)
    last_answers: dict[str, Any] = field(default_factory=dict)
    _losses: list[tuple[int, float]] = field(default_factory=list)
    _recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))
    _first_of_second_epoch: int | None = None
    _read_bytes: int = 0
    _seen: tuple[int, int] = (0, 0)  # device and inode of the log

    @property
    def log_path(self) -> Path:
        return self.folder / "log.jsonl"

    def update(self) -> None:
        """Read the new rows. UserError if the log is gone or damaged, or the folder is not that of a run."""
        try:
            content = self.log_path.stat()
        except OSError:
            if not (self.folder / "config.yaml").is_file():
                raise UserError(f"{self.folder}: not the folder of a run; name a run.output_dir") from None
            return  # it has not logged yet
        if (content.st_dev, content.st_ino) != self._seen or content.st_size < self._read_bytes:
            # A resumed run replaces its log.
            vars(self).update(vars(FollowedRun(self.folder)))
            self._seen = (content.st_dev, content.st_ino)
        with regular_file(self.log_path).open("rb") as file:
            file.seek(self._read_bytes)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self._note(_checked_row(log_row(line)))
            except ValueError as error:
                place = f"{self.log_path}, line {number} after byte {self._read_bytes}"
                raise UserError(f"{place}: not a row of a log ({reason_of(error)}). Remove the line.") from None
        self._read_bytes += len(whole)

    def _note(self, row: dict[str, Any]) -> None:
        event = row.get("event")
        if event == "step":
            self.last_step = row
            self._recent.append(row)
            if isinstance(row.get("loss"), float):
                self._losses.append((row["step"], row["loss"]))
            if row["epoch"] == 2 and self._first_of_second_epoch is None:
                self._first_of_second_epoch = row["step"]
        elif event == "eval":
            self.last_evals[row["split"]] = row
        elif event == "answers":
            self.last_answers = row

    @property
    def is_finished(self) -> bool:
        return (self.folder / "metrics.json").is_file()

    @property
    def silent_s(self) -> float:
        """Seconds since the log grew."""
        return time.time() - self.log_path.stat().st_mtime if self.log_path.is_file() else 0.0

    @property
    def loss(self) -> float | None:
        """Mean of the last steps."""
        recent = [row["loss"] for row in self._recent if isinstance(row.get("loss"), float)]
        return _mean(recent) if recent else None

    def mean_of(self, key: str) -> float | None:
        """Mean of a number of the log over the last steps."""
        recent = [row[key] for row in self._recent if isinstance(row.get(key), (int, float))]
        return _mean(recent) if recent else None

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run; None until the first epoch has shown how long an epoch is."""
        run = self._settings()
        steps, epochs = run.get("max_steps"), run.get("max_epoch")
        if isinstance(steps, int) and steps > 0:
            return steps
        if self.is_finished and self.last_step:
            return int(self.last_step["step"])
        if self._first_of_second_epoch is None or not isinstance(epochs, int) or epochs < 1:
            return None
        return (self._first_of_second_epoch - 1) * epochs

    @property
    def left_s(self) -> float | None:
        """Seconds of training that are left, without evaluations."""
        total, step_s = self.total_steps, self.mean_of("step_s")
        return None if total is None or step_s is None else (total - self.last_step["step"]) * step_s

    def headline(self, split: str) -> tuple[str, float] | None:
        """Name and value of the number that stands for the newest evaluation of a split, such as the accuracy."""
        from lavis_emovit.evaluation.metrics.registry import headline_of

        metrics = self.last_evals[split]["metrics"]
        value = metrics.get(HEADLINE)
        if not isinstance(value, (int, float)):
            return None
        settings = self._settings()
        benchmarks = {**_mapping(settings.get("valid_benchmarks")), **_mapping(settings.get("test_benchmarks"))}
        found = headline_of(str(_mapping(benchmarks.get(split)).get("kind", "emotion")))
        # The splits of a task of your own may be benchmarks of another kind.
        is_named = found is not None and metrics.get(found[1].field) == value
        return (found[1].field if found is not None and is_named else "result"), float(value)

    def _settings(self) -> Mapping[str, Any]:
        try:
            content = load_yaml(regular_file(self.folder / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = None  # it is being written, or damaged
        return _mapping(_mapping(content).get("run"))

    def curve(self) -> str:
        """The loss over the whole run as a row of bars, each the mean of equally many steps with a finite loss."""
        losses = [loss for _, loss in self._losses if math.isfinite(loss)]
        size = max(1, -(-len(losses) // _NUM_BARS))
        means = [_mean(losses[start : start + size]) for start in range(0, len(losses), size)]
        if not means:
            return ""
        low, high = min(means), max(means)
        return "".join(_BARS[int((mean - low) / ((high - low) or 1) * (len(_BARS) - 1))] for mean in means)


def _checked_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a log; ValueError for one without what is shown of it."""
    if missing := [key for key in _SHOWN.get(str(row["event"]), ()) if row.get(key) is None]:
        raise ValueError(f"a row '{row['event']}' without '{missing[0]}'")
    return row


def spread(values: list[float]) -> str:
    """Mean and standard deviation of several runs as text; nan if one of them has diverged."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else ""
    deviation = statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan
    return f"{_mean(values):.3f} ± {deviation:.3f}"


def _mean(values: list[float]) -> float:
    """The mean; also of values whose sum is no finite number."""
    return sum(value / len(values) for value in values)


def _mapping(value: Any) -> Mapping[str, Any]:
    """A part of settings, which may be damaged; empty if it is no mapping."""
    return value if isinstance(value, Mapping) else {}
