"""Reader of LLaVA-style `conversations` JSON, the form of EmoVIT's own instruction files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from lavis_emovit.emotion.labels import LabelSetName, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord, from_conversations
from lavis_emovit.settings import Settings
from lavis_emovit.sources.problems import Notes, Problems

_REMEDY = "Correct or remove these items."


class ConversationSettings(Settings):
    """A file of conversations.

    Attributes:
        file: the JSON list, below the root of the dataset.
        images: folder that the items' picture paths start from, below the root.
        label_set: label set of the emotions that items or their categorical answers name.
        split: split of items that name none.
        check_images: whether every picture must be there; without it only the texts are read.
    """

    file: str = "train.json"
    images: str = ""
    label_set: LabelSetName | None = None
    split: str = "train"
    check_images: bool = True


def read_conversations(
    root: str | os.PathLike[str], settings: ConversationSettings, *, source: str, notes: Notes | None = None
) -> Iterator[EmotionRecord]:
    """One record for each picture that items speak of, with all their questions; ids are made from the pictures.

    Raises:
        DataError: the file cannot be read or is no such list (at once), or, after the sound ones, pictures that are
            missing and emotions outside the label set.
    """
    root = Path(root)
    path = root / settings.file
    try:
        items = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(items, list):
        raise DataError(f"{path}: expected a list of items, got {type(items).__name__}")
    records = from_conversations(
        items, source=source, split=settings.split, label_set=settings.label_set, place=str(path)
    )
    return _checked(root, path, records, settings)


def _checked(
    root: Path, path: Path, records: list[EmotionRecord], settings: ConversationSettings
) -> Iterator[EmotionRecord]:
    problems = Problems(path, _REMEDY)
    labels = get_label_set(settings.label_set) if settings.label_set is not None else None
    for record in records:
        changes: dict[str, str] = {}
        if settings.images:
            changes["image"] = f"{settings.images.strip('/')}/{record.image}"
        try:
            if labels is not None and record.emotion is not None:
                changes["emotion"] = labels.canonical(record.emotion)
            image = changes.get("image", record.image)
            # False, and no error, for a name that no file can have.
            if settings.check_images and not os.path.isfile(root / image):  # noqa: PTH113
                raise DataError(f"the picture {image} is missing below {root}")
        except DataError as error:
            problems.add(f"image '{record.image}': {error}")
            continue
        yield record.model_copy(update=changes)
    problems.finish()
