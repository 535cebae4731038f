"""Reader of LLaVA-style `conversations` JSON or JSON lines, the format of EmoVIT's own instruction files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_emovit.emotion.labels import LabelSetName, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.files import parse_json, read_file
from lavis_emovit.records import EmotionRecord, build_record, from_conversations
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Reader, read_json

_KEYS = frozenset({
    "id", "image", "images", "conversations", "messages", "kind", "provenance", "split", "emotion"
})  # fmt: skip


class ConversationSettings(Settings):
    """A file of conversations."""

    file: str = "train.json"  # the JSON list, or JSON lines, below the root of the dataset
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
        items = self._items()
        self.notes.num_rows = len(items)
        for item in items:
            if isinstance(item, dict):
                self.notes.unused |= dict.fromkeys(name for name in item if name not in _KEYS)
        self._records = from_conversations(
            items,
            source=self.source,
            split=self.settings.split,
            label_set=self.settings.label_set,
            place=str(self.place),
            skip=self.notes.skip,
        )
        self.notes.num_joined = len(items) - self.notes.skipped.total() - len(self._records)

    def _items(self) -> list[Any]:
        if self.place.suffix.lower() not in (".jsonl", ".ndjson"):
            return read_json(self.place, list)
        try:
            lines = read_file(self.place).splitlines()
        except OSError as error:
            raise DataError(f"{self.place}: cannot be read ({error.strerror})") from None
        return [
            parse_json(line, f"{self.place}:{n}", unique_keys=True)
            for n, line in enumerate(lines, start=1)
            if line.strip()
        ]

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
                if self.settings.check_images:
                    changes["image"] = self.require_image(image)
                # Validated again: the folder may lead out of the image root.
                yield build_record({**record.model_dump(exclude_defaults=True), **changes}, "record")
