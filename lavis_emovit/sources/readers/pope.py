"""Reader of POPE, questions about objects that are or are not in an image (Li et al., EMNLP 2023, arXiv 2305.10355).

    <root>/coco_pope_adversarial.json       one object a line, or a list; also coco_pope_popular and coco_pope_random
    <root>/val2014/<image>

An entry has `question_id`, `image`, `text` ("Is there a dog in the image?") and `label` (yes or no).
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lavis_emovit.errors import DataError
from lavis_emovit.files import parse_json, read_file
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Entry, Reader, checked_entry
from lavis_emovit.sources.json_entries import records_of_questions, refuse_repeated

YES_NO = ["yes", "no"]


class _Question(Entry):
    question_id: int | str
    image: str = Field(min_length=1)
    text: str = Field(min_length=1)
    label: Literal["yes", "no"]


class PopeSettings(Settings):
    """Files below the root by the name of their setting, the folder of the images, and the split of all records."""

    files: dict[str, str] = Field(
        default={name: f"coco_pope_{name}.json" for name in ("random", "popular", "adversarial")}, min_length=1
    )
    images: str = "val2014"
    split: str = "test"


class PopeReader(Reader, layout="pope"):
    """One record per image with its `questions`, whose category `setting` names their file."""

    settings_class = PopeSettings
    settings: PopeSettings

    @property
    def place(self) -> Path:
        return self.root / next(iter(self.settings.files.values()))

    def files(self) -> list[Path]:
        return [self.root / name for name in self.settings.files.values()]

    def records(self) -> Iterator[EmotionRecord]:
        found: dict[str, list[dict[str, Any]]] = {}
        for setting, name in self.settings.files.items():
            seen: dict[str, int] = {}
            for number, entry in enumerate(entries_of(self.root / name)):
                self.notes.num_rows += 1
                with self.collect_faults(f"{name}: entry {number}"):
                    one = checked_entry(_Question, entry)
                    refuse_repeated(seen, str(one.question_id), number, f"question_id {one.question_id}")
                    found.setdefault(one.image, []).append(
                        {"question": one.text, "answers": [one.label], "options": YES_NO,
                         "categories": {"setting": setting}, "id": f"{setting}-{one.question_id}"}
                    )  # fmt: skip
        yield from records_of_questions(self, found)


def entries_of(path: Path) -> list[Any]:
    """The entries of a JSON list, or of a file with one object a line. DataError names the line that is not JSON."""
    try:
        content = read_file(path).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if content.lstrip().startswith(b"["):
        found = parse_json(content, str(path), unique_keys=True)
        return found if isinstance(found, list) else [found]
    lines = [line for line in content.splitlines() if line.strip()]
    return [parse_json(line, f"{path}:{number}", unique_keys=True) for number, line in enumerate(lines, start=1)]
