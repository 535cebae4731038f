"""Reader of questions with answers of several people in LAVIS's form, such as its VQAv2 (`coco_vqa`).

    <root>/annotations/vqa_val.json         a list
    <root>/images/<image>

An entry has `image` (`val2014/COCO_val2014_000000262148.jpg`), `question`, `question_id` and `answer`, the answers of
ten people. `vqa_val_eval.json` has no answers and cannot be measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Entry, Reader, checked_entry, read_json


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


class LavisVqaReader(Reader, layout="lavis_vqa"):
    """One record per image with its `questions`, without options."""

    settings_class = LavisVqaSettings
    settings: LavisVqaSettings

    @property
    def place(self) -> Path:
        return self.root / self.settings.file

    def files(self) -> list[Path]:
        return [self.place]

    def records(self) -> Iterator[EmotionRecord]:
        found: dict[str, list[dict[str, Any]]] = {}
        seen: dict[str, int] = {}
        for number, entry in enumerate(read_json(self.place, list)):
            self.notes.num_rows += 1
            with self.collect_faults(f"entry {number}"):
                one = checked_entry(_Question, entry)
                name = str(one.question_id)
                if seen.setdefault(name, number) != number:
                    raise DataError(f"question_id {name} is already in entry {seen[name]}")
                found.setdefault(one.image, []).append({"question": one.question, "answers": one.answer, "id": name})
        for image, questions in found.items():
            self.notes.num_joined += len(questions) - 1
            with self.collect_faults(f"image {image}"):
                yield self.record(
                    f"image '{image}'",
                    id=image.rpartition(".")[0] or image,
                    image=self.require_image(f"{self.settings.images}/{image}"),
                    split=self.settings.split,
                    questions=questions,
                )
