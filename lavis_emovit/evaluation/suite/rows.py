"""Rows of a suite on disk: written as they are made, in the order of the shards, beside a record of what made them.

Rows that were made with something else are refused, never mixed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lavis_emovit.distributed import processes
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.predictions import PredictionRow, PredictionWriter, read_predictions, write_predictions
from lavis_emovit.evaluation.suite_settings import SuiteSettings
from lavis_emovit.evaluation.written import RowsRecord
from lavis_emovit.files import file_sha256, write_json
from lavis_emovit.own_files import read_own_if_any

logger = logging.getLogger(__name__)


class SuiteRows:
    """The rows of one model and scoring method on one benchmark, and the record beside them of what made them.

    Args:
        made_with: everything that decides the rows.
        label: for messages.
        settings: of the suite; `overwrite` deletes rows that were made with something else.
        order: returns the ids of all records in the order of the shards, each with the number of its questions; called
            only for rows of an earlier start.
        on_delete: called on rank 0 when earlier rows are deleted.
    """

    def __init__(
        self,
        path: Path,
        made_with: Mapping[str, Any],
        label: str,
        settings: SuiteSettings,
        order: Callable[[], Iterable[tuple[str, int]]],
        on_delete: Callable[[], None],
    ):
        self._path, self._made_with, self.label = path, dict(made_with), label
        self._beside = path.with_suffix(".json")
        self._overwrite, self._retry_errors, self._order = settings.overwrite, settings.retry_errors, order
        self._on_delete = on_delete
        self._writer: PredictionWriter | None = None
        self._earlier_ids: frozenset[str] = frozenset()
        self.is_done = False
        self.done_records: frozenset[str] = frozenset()

    def __enter__(self) -> SuiteRows:
        self.is_done, self.done_records = processes.on_main(self._settle)
        if self.is_done:
            logger.info("%s: finished before, read from %s", self.label, self._path)
        elif self.done_records:
            logger.info("%s: resuming after %d records", self.label, len(self.done_records))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._writer is not None:
            self._writer.close()
            if kind is None:
                if self._retry_errors or self._earlier_ids:
                    self._sort()
                self._write_beside(finished=True)

    def write(self, rows: list[PredictionRow]) -> None:
        """Append the rows of all ranks in the order of ranks, except those that an earlier start wrote."""
        for part in processes.gather_objects(rows):
            if self._writer is not None:
                for row in part:
                    if row.instance_id not in self._earlier_ids:
                        self._writer.write(row)

    def replace(self, changed: Mapping[str, PredictionRow]) -> None:
        """Replace rows by their instance ids, on rank 0, in a file that is finished."""
        if changed:
            self._write_beside(finished=False)
            write_predictions(self._path, (changed.get(row.instance_id, row) for row in read_predictions(self._path)))
            self._write_beside(finished=True)

    def _settle(self) -> tuple[bool, frozenset[str]]:
        """Open the file unless it is finished. Returns whether it is, and the records that need no more rows."""
        earlier = self._read_beside()
        problem = self._problem(earlier)
        if problem and not self._overwrite:
            raise UserError(problem)
        if problem:
            logger.warning("%s: deleted, because of suite.overwrite", self._path)
            self._path.unlink(missing_ok=True)
            self._on_delete()
            earlier = None
        has_errors = self._retry_errors and earlier is not None and self._drop_errors()
        if earlier is not None and earlier.get("finished") and self._path.exists() and not has_errors:
            return True, frozenset()
        self._write_beside(finished=False)
        self._writer = PredictionWriter(self._path)
        self._earlier_ids = frozenset(self._writer.instance_ids)
        num_rows = Counter(row.record_id for row in read_predictions(self._path)) if self._earlier_ids else Counter()
        num_variants, num_questions = len(self._made_with["variants"]), dict(self._order() if num_rows else ())
        return False, frozenset(
            record for record, count in num_rows.items() if count >= num_variants * num_questions.get(record, 1)
        )

    def _problem(self, earlier: Mapping[str, Any] | None) -> str:
        """Why earlier rows cannot be continued, or nothing."""
        if not self._path.exists() and earlier is None:
            return ""
        if earlier is None:
            what = f"{self._path}: {self._beside.name}, the record of what made it, is missing."
            return f"{what} Delete the rows, or set suite.overwrite=true."
        changes = _changes(earlier["made_with"], self._made_with)
        before = earlier.get("sha256") if earlier.get("finished") and self._path.exists() else None
        if not changes and before is not None and (now := file_sha256(self._path)) != before:
            changes = f"\n      sha256 of the rows: {before} -> {now}"
        what = f"{self._path} was made with something else. Delete it, choose another suite.output_dir, or set"
        return f"{what} suite.overwrite=true. Changed:{changes}" if changes else ""

    def _drop_errors(self) -> bool:
        """Remove the rows of failed records from the file; whether there were any."""
        if not self._path.exists():
            return False
        rows = read_predictions(self._path, drop_partial_last_line=True)
        failed = {row.record_id for row in rows if row.error is not None}
        if failed:
            logger.info("%s: %d failed records are evaluated again", self.label, len(failed))
            self._write_beside(finished=False)
            write_predictions(self._path, (row for row in rows if row.record_id not in failed))
        return bool(failed)

    def _sort(self) -> None:
        """Sort the rows by the order of the shards, and those of a record by variant."""
        place = {record_id: number for number, (record_id, _) in enumerate(self._order())}
        variants = {name: number for number, name in enumerate(self._made_with["variants"])}
        rows = read_predictions(self._path)
        for row in rows:
            if row.record_id not in place or (row.variant is not None and row.variant not in variants):
                raise DataError(
                    f"{self._path}: instance '{row.instance_id}' is not in this benchmark. If the file was edited, "
                    f"delete it and {self._beside.name}."
                )
        ordered = sorted(rows, key=lambda row: (place[row.record_id], variants.get(row.variant or "", 0)))
        if ordered != rows:
            write_predictions(self._path, ordered)

    def _read_beside(self) -> dict[str, Any] | None:
        earlier = read_own_if_any(self._beside, RowsRecord, f"Delete it and {self._path.name}.")
        if earlier is None:
            return None
        # Version 0.1.0 called the scoring method so.
        found = earlier.model_dump(exclude_unset=True)
        made_with = {"method" if key == "way" else key: value for key, value in found["made_with"].items()}
        return {**found, "made_with": made_with}

    def _write_beside(self, *, finished: bool) -> None:
        sha256 = file_sha256(self._path) if finished else None
        content = {"finished": finished, "sha256": sha256, "made_with": self._made_with}
        write_json(self._beside, content, indent=1)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> str:
    """A line for every value that differs; versions of packages may differ."""
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
