"""The file of all answers of teachers, from which an interrupted run resumes and records are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from lavis_emovit.errors import UserError
from lavis_emovit.files import explain_full_disk, regular_file
from lavis_emovit.own_files import parse_own
from lavis_emovit.settings import FrozenModel
from lavis_emovit.teachers.faces import Answer


class View(NamedTuple):
    """What a teacher saw: an image by the sha256 of its file, and the part of it in pixels, or all of it."""

    sha256: str
    part: tuple[int, int, int, int] | None = None


class AnswerRow(FrozenModel):
    """One line of the file. `teacher` is name and version, `image` the path of the image for people who read it.

    Coordinates are in pixels of the whole image.
    """

    teacher: str
    image: str
    view: View
    answer: Answer


class AnswerFile:
    """An open file of answers, one JSON object a line, only appended to. Use it as a context manager.

    UserError if another process has opened it; DataError if a line is damaged. A partial last line of a killed run is
    removed.
    """

    def __init__(self, path: Path):
        self.path = path
        self._answers: dict[tuple[str, View], Answer] = {}
        with ExitStack() as parts:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                parts.enter_context(FileLock(f"{path}.lock", timeout=0))
            except Timeout:
                raise UserError(
                    f"{path.parent}: another run is writing there. Wait for it to end, or use another --out."
                ) from None
            for row in self._read():
                self._answers[row.teacher, row.view] = row.answer
            # Without a buffer, a row is in the file or raises an error, and closing cannot fail.
            self._file = parts.enter_context(path.open("ab", buffering=0))
            self._parts = parts.pop_all()

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._parts.close()

    def get(self, teacher: str, view: View) -> Answer | None:
        """The answer of a teacher to a view; None if there is none, or only a fault."""
        answer = self._answers.get((teacher, view))
        return None if answer is None or answer.fault is not None else answer

    def put(self, row: AnswerRow) -> None:
        """Append an answer, which has left the process when this returns."""
        self._answers[row.teacher, row.view] = row.answer
        with explain_full_disk(self.path.parent, "the answers written so far"):
            line = row.model_dump_json(exclude_defaults=True).encode() + b"\n"
            while line:
                line = line[self._file.write(line) :]

    def _read(self) -> Iterator[AnswerRow]:
        if not self.path.exists():
            return
        with regular_file(self.path).open("r+b") as file:
            start = 0
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    file.truncate(start)
                    return
                start += len(line)
                yield parse_own(line, AnswerRow, f"{self.path}:{number}", "Remove the line, or use another --out.")
