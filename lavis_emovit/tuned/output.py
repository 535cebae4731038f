"""Files of predictions: JSON lines, CSV or Parquet, which resume where an interrupted start ended."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from lavis_emovit.errors import UserError
from lavis_emovit.files import atomic_path, atomic_writer, explain_full_disk, read_file
from lavis_emovit.outside import csv_cell
from lavis_emovit.own_files import parse_own
from lavis_emovit.settings import FrozenModel
from lavis_emovit.sources.table_files import import_pyarrow
from lavis_emovit.tuned.inputs import InputImage
from lavis_emovit.tuned.predictions import ImagePrediction

SUFFIXES = (".csv", ".jsonl", ".parquet")
_RESUMES_FROM = "the last row written"


class _Line(FrozenModel):
    """A line of an unfinished file: a row, and the fingerprint of the image that it is about."""

    fingerprint: str
    row: ImagePrediction


class PredictionFile:
    """Collects rows in `<name>.unfinished` beside the file, which appears when all are there.

    Args:
        path: `*.csv`, `*.jsonl` or `*.parquet`.
        images: all that get a row, in the order of the file.
        made_with: what else decides the rows, as plain values; an unfinished file of other settings is refused.
        overwrite: replace an existing file, and an unfinished one of other settings.

    Attributes:
        left: the images without a row, and those whose file or record has changed since theirs was written.
        num_changed: number of the latter.
    """

    def __init__(
        self, path: Path, images: Sequence[InputImage], made_with: Mapping[str, Any], *, overwrite: bool = False
    ):
        if path.suffix not in SUFFIXES:
            raise UserError(f"{path}: the suffix decides the format, one of {', '.join(SUFFIXES)}")
        if path.suffix == ".parquet":
            import_pyarrow(path)  # now, not after the last image
        self.path, self._unfinished = path, path.with_name(f"{path.name}.unfinished")
        self._images = {image.name: image for image in images}
        digest = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()
        self._header = json.dumps({"made_with": digest}).encode() + b"\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as parts:  # closes what is open if an error follows
            try:
                parts.enter_context(FileLock(path.with_name(f".{path.name}.lock"), timeout=0))
            except Timeout:
                raise UserError(
                    f"{path}: another command is writing it. Wait for it to end, or give this one another file."
                ) from None
            if path.exists() and not overwrite:
                raise UserError(f"{path} exists; --overwrite replaces it")
            kept = self._read(overwrite) if self._unfinished.exists() else b""
            lines = self._lines(kept)
            done = {line.row.image for line in lines.values() if self._is_current(line)}
            self.left = [image for image in images if image.name not in done]
            self.num_changed = sum(image.name in lines for image in self.left)
            self._file: IO[bytes] = parts.enter_context(self._unfinished.open("r+b" if kept else "wb"))
            if kept:
                self._file.truncate(len(kept))
                self._file.seek(len(kept))
            else:
                self._file.write(self._header)
            self._open_parts = parts.pop_all()

    def _read(self, overwrite: bool) -> bytes:
        """The part of an earlier start that counts: whole lines, of the same settings."""
        content = read_file(self._unfinished)
        content = content[: content.rfind(b"\n") + 1]
        if content and not content.startswith(self._header):
            if overwrite:
                return b""
            raise UserError(
                f"{self._unfinished}: begun with another model, other questions or other settings. Repeat that "
                "command, or start anew with --overwrite."
            )
        return content

    def _lines(self, content: bytes) -> dict[str, _Line]:
        """Name of an image -> its newest line."""
        found: dict[str, _Line] = {}
        for number, text in enumerate(content.splitlines()[1:], start=2):
            line = parse_own(
                text, _Line, f"{self._unfinished}:{number}", "Delete this line, or the file to start anew."
            )
            found[line.row.image] = line
        return found

    def _is_current(self, line: _Line) -> bool:
        image = self._images.get(line.row.image)
        return image is not None and image.fingerprint() == line.fingerprint

    def write(self, rows: Iterable[ImagePrediction]) -> None:
        """Append rows; they have left the process when this returns."""
        with explain_full_disk(self._unfinished, _RESUMES_FROM):
            for row in rows:
                line = _Line(fingerprint=self._images[row.image].fingerprint(), row=row)
                self._file.write(line.model_dump_json(exclude_none=True).encode() + b"\n")
            self._file.flush()

    def close(self) -> None:
        """Release the file; what was written is kept for the next start."""
        with explain_full_disk(self._unfinished, _RESUMES_FROM):
            self._open_parts.close()

    def finish(self) -> list[ImagePrediction]:
        """Write the file, with the rows in the order of the images, and return them."""
        with explain_full_disk(self._unfinished, _RESUMES_FROM):
            self._file.close()
        lines = self._lines(read_file(self._unfinished))
        rows = [lines[name].row for name in self._images]
        with explain_full_disk(self.path, _RESUMES_FROM):
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
