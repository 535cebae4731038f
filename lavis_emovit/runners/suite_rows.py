"""Rows of a suite on disk: written as they come, in the order of the shards, beside a record of what made them.

Rows that were made with something else are refused, never mixed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.predictions import PredictionRow, PredictionWriter, read_predictions
from lavis_emovit.files import atomic_writer
from lavis_emovit.runners import processes
from lavis_emovit.runners.logs import progress

logger = logging.getLogger(__name__)


class SuiteRows:
    """The file of rows of one asking, and the record beside it of what they were made with."""

    def __init__(self, path: Path, made_with: Mapping[str, Any], label: str, *, overwrite: bool):
        self._path, self._made_with, self._label = path, dict(made_with), label
        self._beside = path.with_suffix(".json")
        self._overwrite = overwrite
        self._writer: PredictionWriter | None = None
        self.is_done = False
        self.done_records: frozenset[str] = frozenset()

    def __enter__(self) -> SuiteRows:
        problem, done, records = "", False, frozenset[str]()
        if processes.is_main():
            try:
                done, records = self._settle()
            except UserError as error:
                problem = str(error)
        problem, self.is_done, self.done_records = processes.broadcast_object((problem, done, records))
        if problem:
            raise DataError(problem)
        if self.is_done:
            logger.info("%s: done before, taken from %s", self._label, self._path)
        elif self.done_records:
            logger.info("%s: going on behind %d records", self._label, len(self.done_records))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._writer is not None:
            self._writer.close()
            if kind is None:
                self._write_beside(finished=True)

    def rounds(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Batches of this rank, and empty ones while other ranks still have some; with a progress line on rank 0."""
        source = iter(batches)
        total = max(processes.gather_objects(len(batches)))  # type: ignore[arg-type]
        with progress(self._label, max(1, total), every=10) as line:
            for _ in range(total):
                yield next(source, [])
                line.advance()

    def write(self, rows: list[PredictionRow]) -> None:
        """Append the rows of all ranks in the order of ranks."""
        for part in processes.gather_objects(rows):
            if self._writer is not None:
                for row in part:
                    if row.instance_id not in self._writer.instance_ids:
                        self._writer.write(row)

    def _settle(self) -> tuple[bool, frozenset[str]]:
        """Open the file for what is missing in it; whether nothing is, and the records that are whole."""
        earlier = self._read_beside()
        if earlier is not None:
            changes = _changes(earlier["made_with"], self._made_with)
            if changes and not self._overwrite:
                raise UserError(
                    f"{self._path} was made with something else; delete it, choose another suite.output_dir, or set "
                    f"suite.overwrite=true to make it anew. Changed:{changes}"
                )
            if changes:
                logger.warning("%s: made anew, as suite.overwrite asks for", self._path)
                self._path.unlink(missing_ok=True)
                earlier = None
        elif self._path.exists():
            raise UserError(f"{self._path}: what it was made with ({self._beside.name}) is missing; delete it")
        if earlier is not None and earlier.get("finished") and self._path.exists():
            return True, frozenset()
        self._write_beside(finished=False)
        self._writer = PredictionWriter(self._path)
        per_record: dict[str, int] = {}
        if self._writer.instance_ids:
            for row in read_predictions(self._path):
                per_record[row.record_id] = per_record.get(row.record_id, 0) + 1
        whole = self._made_with["variants"]
        return False, frozenset(record for record, count in per_record.items() if count >= len(whole))

    def _read_beside(self) -> dict[str, Any] | None:
        try:
            return json.loads(self._beside.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{self._beside}: damaged ({error}); delete it and {self._path.name}") from None

    def _write_beside(self, *, finished: bool) -> None:
        with atomic_writer(self._beside) as file:
            json.dump({"finished": finished, "made_with": self._made_with}, file, indent=1, ensure_ascii=False)
            file.write("\n")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> str:
    """A line for every value that differs; versions of packages are noted but may change."""
    lines = ""
    for key in sorted({*before, *now}):
        if not prefix and key == "versions":
            continue
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += _changes(old, new, f"{prefix}{key}.")
        elif old != new:
            lines += f"\n      {prefix}{key}: {old} -> {new}"
    return lines
