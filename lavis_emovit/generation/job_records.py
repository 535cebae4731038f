"""The records of a job, on disk: memory does not grow with their number."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lavis_emovit.chat.scratch import Scratch
from lavis_emovit.records import EmotionRecord


class JobRecords(Sequence[EmotionRecord]):
    """Some or all records of a job. Every access reads a record from disk, in its newest state.

    A record keeps its number, its place among all records of the job. A selection needs 4 bytes a record.
    """

    def __init__(self, table: Scratch, numbers: Sequence[int]):
        self._table, self.numbers = table, numbers

    @classmethod
    def store(cls, records: Iterable[EmotionRecord], folder: Path) -> JobRecords:
        """Write records into a temporary file of the folder. Their ids must be unique."""
        table = Scratch("number INTEGER PRIMARY KEY, id TEXT UNIQUE, split TEXT, content TEXT", folder)
        count = 0
        for count, record in enumerate(records, start=1):
            values = (count - 1, record.id, record.split, record.to_json())
            table.execute("INSERT INTO scratch VALUES (?, ?, ?, ?)", values)
        return cls(table, range(count))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        return self.get(self.numbers[place])

    def items(self) -> Iterator[tuple[int, EmotionRecord]]:
        """Numbers and records."""
        for number in self.numbers:
            yield number, self.get(number)

    def get(self, number: int) -> EmotionRecord:
        (content,) = self._table.execute("SELECT content FROM scratch WHERE number = ?", (number,)).fetchone()
        return EmotionRecord.model_validate_json(content)

    def put(self, number: int, record: EmotionRecord) -> None:
        self._table.execute(
            "UPDATE scratch SET split = ?, content = ? WHERE number = ?", (record.split, record.to_json(), number)
        )

    def find(self, record_id: str) -> int | None:
        """The number of the record with an id, selected or not; None if there is none."""
        found = self._table.execute("SELECT number FROM scratch WHERE id = ?", (record_id,)).fetchone()
        return found and found[0]

    def where(self, test: Callable[[EmotionRecord], bool]) -> JobRecords:
        """The selected records that pass a test."""
        return JobRecords(self._table, array("I", (number for number, record in self.items() if test(record))))

    def numbered(self, test: Callable[[int], bool]) -> JobRecords:
        """The selected records whose number passes a test."""
        return JobRecords(self._table, array("I", filter(test, self.numbers)))

    def of_split(self, split: str) -> JobRecords:
        """The records of a split, among all records of the job."""
        found = self._table.execute("SELECT number FROM scratch WHERE split = ? ORDER BY number", (split,))
        return JobRecords(self._table, array("I", (number for (number,) in found)))

    def splits(self) -> list[str]:
        """The names of all splits of the job, sorted."""
        return sorted(split for (split,) in self._table.execute("SELECT DISTINCT split FROM scratch"))

    def lines(self) -> Iterator[str]:
        """The lines of a records file."""
        for number in self.numbers:
            yield self._table.execute("SELECT content FROM scratch WHERE number = ?", (number,)).fetchone()[0] + "\n"
