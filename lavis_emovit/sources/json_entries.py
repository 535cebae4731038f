"""What layouts share that describe images in JSON files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.base import Reader


class OneFileReader(Reader, layout=None):
    """Base of layouts whose annotation is one file, `settings.file`."""

    @property
    def place(self) -> Path:
        return self.root / self.settings.file

    def files(self) -> list[Path]:
        return [self.place]


def refuse_repeated(first: dict[str, int], name: str, number: int, what: str) -> None:
    """Note the number of the entry with a name; DataError if an earlier entry has it."""
    if first.setdefault(name, number) != number:
        raise DataError(f"{what} is already in entry {first[name]}")


def image_fields(reader: Reader, name: str) -> dict[str, Any]:
    """`id`, `image` and `split` of the record of a file below `settings.images`. DataError if it is missing."""
    image = reader.require_image(f"{reader.settings.images}/{name}")
    name = str(PurePosixPath(name))
    return {
        "id": name.rpartition(".")[0] or name,
        "image": image,
        "split": reader.settings.split,
    }


def records_of_questions(reader: Reader, found: Mapping[str, list[dict[str, Any]]]) -> Iterator[EmotionRecord]:
    """One record per image with its questions, each of which is an entry of the file."""
    for image, questions in found.items():
        reader.notes.num_joined += len(questions) - 1
        with reader.collect_faults(f"image {image}"):
            yield reader.record(f"image '{image}'", **image_fields(reader, image), questions=questions)
