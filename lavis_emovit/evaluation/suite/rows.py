"""Rows of a suite on disk: written as they come, in the order of the shards, beside a record of what made them.

Rows that were made with something else are refused, never mixed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_emovit.distributed import heartbeat, processes
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.predictions import PredictionRow, PredictionWriter, read_predictions, write_predictions
from lavis_emovit.evaluation.suite.benchmark_data import Batches
from lavis_emovit.files import atomic_writer, file_sha256
from lavis_emovit.progress import progress

logger = logging.getLogger(__name__)


class SuiteRows:
    """The file of rows of one asking, and the record beside it of what they were made with.

    Args:
        path: the JSON lines.
        made_with: all that decides the rows.
        label: what messages call it.
        overwrite: make rows anew that were made with something else.
        ask_errors_again: ask again about the records of rows that are errors.
        order: the ids of all records in the order of the shards; read only where rows have to be put back into it.
    """

    def __init__(
        self,
        path: Path,
        made_with: Mapping[str, Any],
        label: str,
        *,
        overwrite: bool,
        ask_errors_again: bool,
        order: Callable[[], Iterable[str]],
    ):
        self._path, self._made_with, self._label = path, dict(made_with), label
        self._beside = path.with_suffix(".json")
        self._overwrite, self._ask_errors_again, self._order = overwrite, ask_errors_again, order
        self._writer: PredictionWriter | None = None
        self._earlier_ids: frozenset[str] = frozenset()
        self.is_done = False
        self.done_records: frozenset[str] = frozenset()

    def __enter__(self) -> SuiteRows:
        self.is_done, self.done_records = processes.on_main(self._settle)
        if self.is_done:
            logger.info("%s: done before, taken from %s", self._label, self._path)
        elif self.done_records:
            logger.info("%s: going on behind %d records", self._label, len(self.done_records))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._writer is not None:
            self._writer.close()
            if kind is None:
                if self._ask_errors_again or self._earlier_ids:
                    self._put_in_order()
                self._write_beside(finished=True)

    def rounds(self, batches: Batches) -> Iterator[Any]:
        """Batches of this rank, and empty ones while other ranks still have some; with a progress line on rank 0."""
        source = iter(batches)
        total = max(processes.gather_objects(len(batches)))
        with progress(self._label, max(1, total), every=10) as line:
            for _ in range(total):
                batch = _next(source)
                if isinstance(batch, DataError):
                    raise batch
                heartbeat.note("evaluating")
                yield batch
                line.advance()

    def write(self, rows: list[PredictionRow]) -> None:
        """Append the rows of all ranks in the order of ranks, but those that an earlier start has written.

        Raises:
            DataError: two records of the benchmark share an id.
        """
        for part in processes.gather_objects(rows):
            if self._writer is not None:
                for row in part:
                    if row.instance_id not in self._earlier_ids:
                        self._writer.write(row)

    def _settle(self) -> tuple[bool, frozenset[str]]:
        """Open the file for what is missing in it; whether nothing is, and the records that are whole."""
        earlier = self._read_beside()
        if earlier is None and self._path.exists():
            if not self._overwrite:
                raise UserError(
                    f"{self._path}: what it was made with ({self._beside.name}) is missing; delete it, or set "
                    "suite.overwrite=true to make it anew"
                )
            self._make_anew()
        if earlier is not None:
            changes = _changes(earlier["made_with"], self._made_with) or self._edited(earlier)
            if changes and not self._overwrite:
                raise UserError(
                    f"{self._path} was made with something else; delete it, choose another suite.output_dir, or set "
                    f"suite.overwrite=true to make it anew. Changed:{changes}"
                )
            if changes:
                self._make_anew()
                earlier = None
        again = self._ask_errors_again and earlier is not None and self._drop_errors()
        if earlier is not None and earlier.get("finished") and self._path.exists() and not again:
            return True, frozenset()
        self._write_beside(finished=False)
        self._writer = PredictionWriter(self._path)
        per_record: dict[str, int] = {}
        self._earlier_ids = frozenset(self._writer.instance_ids)
        if self._earlier_ids:
            for row in read_predictions(self._path):
                per_record[row.record_id] = per_record.get(row.record_id, 0) + 1
        whole = self._made_with["variants"]
        return False, frozenset(record for record, count in per_record.items() if count >= len(whole))

    def _make_anew(self) -> None:
        logger.warning("%s: made anew, as suite.overwrite asks for", self._path)
        self._path.unlink(missing_ok=True)

    def _edited(self, earlier: Mapping[str, Any]) -> str:
        """A line where finished rows are no longer those that were written; figures of such rows are nobody's."""
        before = earlier.get("sha256")
        if not earlier.get("finished") or before is None or not self._path.exists():
            return ""
        now = file_sha256(self._path)
        return "" if now == before else f"\n      sha256 of the rows: {before} -> {now}"

    def _drop_errors(self) -> bool:
        """Take the records with a failed row out of the file; whether there were any."""
        if not self._path.exists():
            return False
        rows = read_predictions(self._path, drop_partial_last_line=True)
        failed = {row.record_id for row in rows if row.error is not None}
        if failed:
            logger.info("%s: %d records that failed are asked about again", self._label, len(failed))
            self._write_beside(finished=False)
            write_predictions(self._path, (row for row in rows if row.record_id not in failed))
        return bool(failed)

    def _put_in_order(self) -> None:
        """Rows in the order of the shards, and of the variants of a record.

        Raises:
            DataError: a row is about a record that the benchmark does not have.
        """
        place = {record_id: number for number, record_id in enumerate(self._order())}
        variants = {name: number for number, name in enumerate(self._made_with["variants"])}
        rows = read_predictions(self._path)
        for row in rows:
            if row.record_id not in place or (row.variant is not None and row.variant not in variants):
                raise DataError(
                    f"{self._path}: instance '{row.instance_id}' is not asked about by this benchmark; was the file "
                    f"edited? Delete it and {self._beside.name}"
                )
        ordered = sorted(rows, key=lambda row: (place[row.record_id], variants.get(row.variant or "", 0)))
        if ordered != rows:
            write_predictions(self._path, ordered)

    def _read_beside(self) -> dict[str, Any] | None:
        try:
            earlier = json.loads(self._beside.read_text(encoding="utf-8"))
            if not isinstance(earlier, dict) or not isinstance(earlier.get("made_with"), dict):
                raise ValueError("no 'made_with' in it")
            return earlier
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{self._beside}: damaged ({error}); delete it and {self._path.name}") from None

    def _write_beside(self, *, finished: bool) -> None:
        sha256 = file_sha256(self._path) if finished else None
        content = {"finished": finished, "sha256": sha256, "made_with": self._made_with}
        with atomic_writer(self._beside) as file:
            json.dump(content, file, indent=1, ensure_ascii=False)
            file.write("\n")


def _next(source: Iterator[Any]) -> Any:
    """The next batch, an empty one at the end."""
    try:
        return next(source, [])
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a worker process that reads pictures ended ({str(error).strip().splitlines()[0]}). It was probably "
            "killed for want of memory: set suite.num_workers lower. Started again, the evaluation goes on from here."
        ) from error


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
