"""What people say about images, kept as records: a folder with `records.jsonl` and the images."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock

from lavis_emovit.errors import UserError
from lavis_emovit.files import atomic_writer, read_file
from lavis_emovit.images import SUFFIXES_OF_FORMAT, open_strictly
from lavis_emovit.paths import RECORDS_NAME
from lavis_emovit.records import EmotionRecord

MAX_NAME_CHARACTERS = 80
_lock = threading.Lock()


def person_named(text: str) -> str:
    """A name as it was typed, without whitespace at its ends; UserError if there is none or it cannot be kept."""
    name = " ".join(text.split())
    if not name or not name.isprintable() or len(name) > MAX_NAME_CHARACTERS:
        raise UserError(f"Write your name, with at most {MAX_NAME_CHARACTERS} characters.")
    return name


def change_file(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace the content of a file, which may not exist yet, by what `change` makes of it.

    Several people may do so at the same time, and a reader never sees half of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock, FileLock(path.with_name(f".{path.name}.lock")):
        changed = change(read_file(path) if path.exists() else b"")
        with atomic_writer(path, "wb") as file:
            file.write(changed)


def add_line(path: Path, line: str) -> None:
    """Add a line to a file, see `change_file`; earlier lines stay as they are."""

    def added(earlier: bytes) -> bytes:
        separator = b"" if not earlier or earlier.endswith(b"\n") else b"\n"
        return earlier + separator + line.encode() + b"\n"

    change_file(path, added)


def add_correction(
    folder: Path,
    data: bytes,
    *,
    label: str,
    label_set: str,
    person: str,
    models: Mapping[str, str | float],
) -> EmotionRecord:
    """Keep an image with the label that a person gives it.

    Args:
        data: the encoded image, which has been decoded before.
        models: what the models of the page said, for `extra` of the record.

    Raises:
        UserError: the person has no name.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    name, saved_at = person_named(person), datetime.now(timezone.utc).isoformat(timespec="microseconds")
    with open_strictly(data) as image:
        suffix = SUFFIXES_OF_FORMAT.get(image.format or "", (str(image.format).lower(),))[0]
    record = EmotionRecord(
        id=f"{sha256[:16]}/{name}/{saved_at}",
        image=f"images/{sha256}.{suffix}",
        split="train",
        source="corrections",
        emotion=label,
        label_set=label_set,
        group=sha256,  # several corrections of one image are never divided between splits
        extra={"image_sha256": sha256, "person": name, "saved_at": saved_at, **models},
    )
    path = folder / record.image
    if not path.exists():
        with atomic_writer(path, "wb") as file:
            file.write(data)
    add_line(folder / RECORDS_NAME, record.to_json())
    return record
