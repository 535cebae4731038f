"""The log of a run: log.jsonl, TensorBoard, and warnings about texts."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lavis_emovit.evaluation.written import any_log_row
from lavis_emovit.files import atomic_writer, read_file

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Receives the numbers of the log, such as TensorBoard."""

    def write(self, row: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class RunLog:
    """log.jsonl with one object per line, and other sinks, which are closed with the log.

    Opening it removes the rows after `step`, because a resumed run does these steps again.

    Args:
        tensorboard_folder: for TensorBoard's files; None: none.
        step: the step that the run resumes from; -1 removes everything.
        validate_again: also remove the validation after that step.
    """

    def __init__(
        self,
        path: Path,
        tensorboard_folder: Path | None,
        *,
        step: int,
        validate_again: bool = False,
        sinks: Sequence[Sink] = (),
    ):
        self.path = path
        keep_rows_until(path, step, validate_again=validate_again)
        # Without a buffer, a row is in the file or raises an error, and closing cannot fail.
        self._file = path.open("ab", buffering=0)
        self._sinks = list(sinks)
        if tensorboard_folder is not None:
            self._sinks.append(TensorboardSink(tensorboard_folder, purge_step=step + 1 if step else None))

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. `event` and `step` are required; its numbers also go to the sinks.

        On a full disk it raises OSError; a partial line is removed when the run resumes.
        """
        line = (json.dumps(_json_safe(row), ensure_ascii=False, allow_nan=False) + "\n").encode()
        while line:
            line = line[self._file.write(line) :]
        for sink in self._sinks:
            sink.write(row)

    def sync(self) -> None:
        """Flush the rows to the disk, so that no checkpoint is ahead of the log after a power cut."""
        if not self._file.closed:
            os.fsync(self._file.fileno())

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        for sink in self._sinks:
            sink.close()


class SilentLog(RunLog):
    """The log of ranks other than 0, which writes nothing."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, row: Mapping[str, Any]) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class TensorboardSink:
    """The numbers of the rows as TensorBoard's scalars."""

    def __init__(self, folder: Path, *, purge_step: int | None):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def write(self, row: Mapping[str, Any]) -> None:
        for name, value in scalars_of(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._writer.close()


def scalars_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row, named `train/loss` or `eval/val/accuracy`."""
    group = "train" if row["event"] == "step" else f"{row['event']}/{row.get('split', '')}"
    numbers = row.get("metrics", row)
    return {
        f"{group}/{key}": value
        for key, value in numbers.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key not in ("step", "epoch")
    }


# Counts of pairs in the rows of steps -> what happened, and what to do.
NOTES = {
    "num_truncated_questions": "questions were cut at model.max_txt_len and lost their beginning; raise it",
    "num_truncated_answers": "answers were cut at model.max_output_txt_len and lost their end; raise it",
    "num_unsupervised": "answers are empty, so that only their end is learned; check the instruction data",
}


class TextNotes:
    """Warns about texts that are cut or empty: once when it first happens, and with totals at the end."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def warn(self, noted: Mapping[str, Sequence[str]]) -> None:
        """Warn when a count first occurs; `noted` maps names of counts to instance ids of a step."""
        for name, instance_ids in noted.items():
            if instance_ids and name not in self._reported:
                self._reported.add(name)
                logger.warning("%s (first: %s; log.jsonl counts them)", NOTES.get(name, name), instance_ids[0])

    def log_totals(self, log_path: Path) -> None:
        """Report the totals over all steps, including those of earlier starts."""
        steps = [row for row in read_log(log_path) if row.get("event") == "step"]
        for name, what in NOTES.items():
            total = sum(count for row in steps if isinstance(count := row.get(name, 0), int))
            if total:
                logger.warning("in the whole run, all epochs together: %d %s", total, what)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; lines that a crash left incomplete, or that an edit made unusable, are skipped."""
    if not path.exists():
        return []
    rows = []
    for line in read_file(path).split(b"\n"):
        try:
            rows.append(any_log_row(line))
        except ValueError:
            logger.debug("%s: a line that is no row is skipped", path)
    return rows


def keep_rows_until(path: Path, step: int, *, validate_again: bool = False) -> None:
    """Remove the rows after `step` and those of the final evaluation."""
    rows = read_log(path)
    kept = [row for row in rows if row.get("step", 0) <= step and row.get("stage") != "after"]
    if validate_again:
        kept = [row for row in kept if row.get("stage") != "during" or row.get("step") != step]
    if not path.exists() or (len(kept) == len(rows) and read_file(path).endswith(b"\n")):
        return
    with atomic_writer(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)


def _json_safe(value: Any) -> Any:
    """The value with NaN and infinity as strings, because they are not JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    return value
