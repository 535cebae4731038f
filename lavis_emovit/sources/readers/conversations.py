"""Reader of LLaVA-style `conversations` JSON, the format of EmoVIT's own instruction files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lavis_emovit.emotion.labels import LabelSetName, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, from_conversations
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Reader, read_json


class ConversationSettings(Settings):
    """A file of conversations."""

    file: str = "train.json"  # the JSON list, below the root of the dataset
    images: str = ""  # folder that the items' image paths are relative to, below the root
    label_set: LabelSetName | None = None  # label set of the emotions in the items or in their categorical answers
    split: str = "train"  # split of items without one
    check_images: bool = True  # whether every image must exist; if not, only the texts are read


class ConversationReader(Reader, layout="conversations"):
    """One record per image in the items, with all their questions; ids are derived from the images."""

    settings_class = ConversationSettings
    remedy = "Correct or remove these items."
    imported_from = "file"
    settings: ConversationSettings

    @property
    def place(self) -> Path:
        return self.root / self.settings.file

    def files(self) -> list[Path]:
        return [self.place]

    def check(self) -> None:
        items = read_json(self.place, list)
        self._records = from_conversations(
            items,
            source=self.source,
            split=self.settings.split,
            label_set=self.settings.label_set,
            place=str(self.place),
        )

    def records(self) -> Iterator[EmotionRecord]:
        labels = get_label_set(self.settings.label_set) if self.settings.label_set is not None else None
        for record in self._records:
            changes: dict[str, str] = {}
            if self.settings.images:
                changes["image"] = f"{self.settings.images.strip('/')}/{record.image}"
            with self.collect_faults(f"image '{record.image}'"):
                if labels is not None and record.emotion is not None:
                    changes["emotion"] = labels.canonical(record.emotion)
                image = changes.get("image", record.image)
                # `os.path.isfile` does not raise for names that no file can have.
                if self.settings.check_images and not os.path.isfile(self.root / image):  # noqa: PTH113
                    raise DataError(f"the image {image} is missing below {self.root}")
                yield record.model_copy(update=changes)
