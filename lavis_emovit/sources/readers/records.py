"""Reader of a records file, such as one that was imported, cleaned or generated before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from lavis_emovit.paths import RECORDS_NAME
from lavis_emovit.records import EmotionRecord, read_records
from lavis_emovit.settings import Settings
from lavis_emovit.sources.json_entries import OneFileReader


class RecordsSettings(Settings):
    file: str = RECORDS_NAME  # below the root of the dataset, which is the folder of the image paths; or absolute


class RecordsReader(OneFileReader, layout="records"):
    """The records as they are, with their ids, splits and instructions."""

    settings_class = RecordsSettings
    imported_from: ClassVar[Literal["file", "folder"] | None] = None
    settings: RecordsSettings

    def records(self) -> Iterator[EmotionRecord]:
        for record in read_records(self.place):
            self.notes.num_rows += 1
            yield record
