"""Reader of statements about the emotion of images: MVEI and INSETS-462k (Wu et al., 2025, arXiv 2509.21950).

    <root>/MVEI_metadata.json               a list of images
    <root>/images/<image_id>

An entry has `image_id` (`contentment/contentment_14236.jpg`, EmoSet's name of the image), `ov_emotion` (words of
emotion) and `statement_list`; a statement has `statement`, `label` (`correct` or `incorrect`), `class` and `subclass`.
INSETS-462k has the same entries and more keys, among them candidate words, which are not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Entry, checked_entry, read_json
from lavis_emovit.sources.json_entries import OneFileReader, image_fields, refuse_repeated


class _Statement(Entry):
    """A statement; `none` is no subclass."""

    statement: str
    label: Literal["correct", "incorrect"]
    class_: str | None = Field(default=None, alias="class")
    subclass: str | None = None


class _Image(Entry):
    image_id: str = Field(min_length=1)
    ov_emotion: list[str] | None = None
    statement_list: list[_Statement] = Field(min_length=1)


class StatementSettings(Settings):
    """Files below the root, and the split of all records."""

    file: str = "MVEI_metadata.json"
    images: str = "images"
    split: str = "test"


class StatementReader(OneFileReader, layout="statements"):
    """One record per image, with its `statements` and its `words`."""

    settings_class = StatementSettings
    settings: StatementSettings

    def records(self) -> Iterator[EmotionRecord]:
        first: dict[str, int] = {}
        for number, entry in enumerate(read_json(self.place, list)):
            self.notes.num_rows += 1
            with self.collect_faults(f"entry {number}"):
                image = checked_entry(_Image, entry)
                self.notes.unused |= dict.fromkeys(key for key in entry if key not in _Image.model_fields)
                record = self._record(image)
                refuse_repeated(first, record.id, number, f"the image '{image.image_id}'")
                yield record

    def _record(self, image: _Image) -> EmotionRecord:
        return self.record(
            f"image '{image.image_id}'",
            **image_fields(self, image.image_id),
            # A word may occur twice in a list that several models wrote.
            words=list(dict.fromkeys(image.ov_emotion or ())) or None,
            statements=[
                {"text": one.statement, "is_correct": one.label == "correct", "categories": _categories(one)}
                for one in image.statement_list
            ],
        )


def _categories(one: _Statement) -> dict[str, str] | None:
    found = {"class": one.class_, "subclass": one.subclass}
    return {name: value for name, value in found.items() if value and value != "none"} or None
