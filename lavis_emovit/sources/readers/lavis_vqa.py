"""Reader of questions with answers of several people in LAVIS's form, such as its VQAv2 (`coco_vqa`).

    <root>/annotations/vqa_val.json         a list
    <root>/images/<image>

An entry has `image` (`val2014/COCO_val2014_000000262148.jpg`), `question`, `question_id` and `answer`, the answers of
ten people. `vqa_val_eval.json` has no answers and cannot be measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Entry, checked_entry, read_json
from lavis_emovit.sources.json_entries import OneFileReader, records_of_questions, refuse_repeated


class _Question(Entry):
    image: str = Field(min_length=1)
    question: str = Field(min_length=1)
    question_id: int | str
    answer: list[str] = Field(min_length=1)


class LavisVqaSettings(Settings):
    """Files below the root, and the split of all records."""

    file: str = "annotations/vqa_val.json"
    images: str = "images"
    split: str = "test"


class LavisVqaReader(OneFileReader, layout="lavis_vqa"):
    """One record per image with its `questions`, without options."""

    settings_class = LavisVqaSettings
    settings: LavisVqaSettings

    def records(self) -> Iterator[EmotionRecord]:
        found: dict[str, list[dict[str, Any]]] = {}
        seen: dict[str, int] = {}
        for number, entry in enumerate(read_json(self.place, list)):
            self.notes.num_rows += 1
            with self.collect_faults(f"entry {number}"):
                one = checked_entry(_Question, entry)
                name = str(one.question_id)
                refuse_repeated(seen, name, number, f"question_id {name}")
                found.setdefault(one.image, []).append({"question": one.question, "answers": one.answer, "id": name})
        yield from records_of_questions(self, found)
