"""Files of predictions: JSON lines, CSV or Parquet, which resume where an interrupted start ended."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lavis_emovit.errors import UserError
from lavis_emovit.files import atomic_path, atomic_writer, parse_json
from lavis_emovit.outside import csv_cell
from lavis_emovit.sources.table_files import import_pyarrow
from lavis_emovit.tuned.predictions import ImagePrediction

SUFFIXES = (".csv", ".jsonl", ".parquet")


class PredictionFile:
    """Collects rows in `<name>.unfinished` beside the file, which appears when all are there.

    Args:
        path: `*.csv`, `*.jsonl` or `*.parquet`.
        made_with: what decides the rows, as plain values; an unfinished file of other settings is refused.
        overwrite: replace an existing file, and an unfinished one of other settings.

    Attributes:
        done: the names of images whose rows are there.
    """

    def __init__(self, path: Path, made_with: Mapping[str, Any], *, overwrite: bool = False):
        if path.suffix not in SUFFIXES:
            raise UserError(f"{path}: the suffix decides the format, one of {', '.join(SUFFIXES)}")
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists; --overwrite replaces it")
        if path.suffix == ".parquet":
            import_pyarrow(path)  # now, not after the last image
        self.path, self._unfinished = path, path.with_name(f"{path.name}.unfinished")
        digest = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()
        header = json.dumps({"made_with": digest}).encode() + b"\n"
        self.done: set[str] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = self._read(header, overwrite) if self._unfinished.exists() else b""
        self._file: IO[bytes] = self._unfinished.open("r+b" if kept else "wb")
        if kept:
            self._file.truncate(len(kept))
            self._file.seek(len(kept))
        else:
            self._file.write(header)

    def _read(self, header: bytes, overwrite: bool) -> bytes:
        """The part of an earlier start that counts: whole lines, of the same settings."""
        content = self._unfinished.read_bytes()
        content = content[: content.rfind(b"\n") + 1]
        if not content:
            return b""
        if not content.startswith(header):
            if overwrite:
                return b""
            raise UserError(
                f"{self._unfinished}: begun with another model, other questions or other settings. Repeat that "
                "command, or start anew with --overwrite."
            )
        for line in content[len(header) :].splitlines():
            self.done.add(parse_json(line, str(self._unfinished))["image"])
        return content

    def write(self, rows: Iterable[ImagePrediction]) -> None:
        """Append rows; they have left the process when this returns."""
        for row in rows:
            self._file.write(row.model_dump_json(exclude_none=True).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Release the file; what was written is kept for the next start."""
        self._file.close()

    def finish(self, order: Sequence[str]) -> list[ImagePrediction]:
        """Write the file, with the rows in this order of images, and return them."""
        self._file.close()
        lines = self._unfinished.read_bytes().splitlines()[1:]
        found = {row.image: row for row in map(ImagePrediction.model_validate_json, lines)}
        rows = [found[name] for name in order]
        _WRITERS[self.path.suffix](self.path, rows)
        self._unfinished.unlink()
        return rows


def flat(row: ImagePrediction) -> dict[str, Any]:
    """A row as a table has it: `p_<label>` for probabilities, `AU12` for action units."""
    values = row.model_dump(exclude={"probabilities", "action_units"})
    values |= {f"p_{label}": share for label, share in (row.probabilities or {}).items()}
    return values | (row.action_units or {})


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns that any row fills, probabilities in the order of the alphabet."""
    filled = {name for row in rows for name, value in row.items() if value is not None}
    own = [name for name in ImagePrediction.model_fields if name in filled or name in ("image", "error")]
    others = sorted(filled - set(own))
    place = own.index("error")
    return [*own[:place], *others, *own[place:]]


def _write_csv(path: Path, rows: Sequence[ImagePrediction]) -> None:
    table = [flat(row) for row in rows]
    with atomic_writer(path) as file:
        writer = csv.DictWriter(file, _columns(table), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in table:
            writer.writerow({key: csv_cell(value) if isinstance(value, str) else value for key, value in row.items()})


def _write_jsonl(path: Path, rows: Sequence[ImagePrediction]) -> None:
    with atomic_writer(path) as file:
        file.writelines(row.model_dump_json(exclude_none=True) + "\n" for row in rows)


def _write_parquet(path: Path, rows: Sequence[ImagePrediction]) -> None:
    pyarrow = import_pyarrow(path)
    table = [flat(row) for row in rows]
    names = _columns(table)
    with atomic_path(path) as temporary:
        columns = {name: [row.get(name) for row in table] for name in names}
        pyarrow.parquet.write_table(pyarrow.table(columns), str(temporary))


_WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
