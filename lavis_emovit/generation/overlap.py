"""Reject images that are in both training and test data: by id, group (person) and file content."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.files import file_sha256
from lavis_emovit.records import EmotionRecord

_MAX_SHOWN = 5


def refuse_overlap(
    training: Sequence[EmotionRecord], held_out: Iterable[EmotionRecord], image_root: Path, held_out_root: Path
) -> None:
    """Compare the images that get instructions with held-out images. DataError names the first ones that are in both.

    Only files of the same size are read. Groups (persons) are compared within one source.
    """
    found: list[str] = []
    ids = {record.id for record in training}
    groups = {(record.source, record.group) for record in training if record.group is not None}
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for record in training:
        path = image_root / record.image
        if path.is_file():
            by_size[path.stat().st_size].append((record.id, path))
    sha256 = cache(file_sha256)
    for record in held_out:
        name = f"'{record.id}' ({record.split})"
        if record.id in ids:
            found.append(f"{name} is also in the training data")
            continue
        if record.group is not None and (record.source, record.group) in groups:
            found.append(f"{name} belongs to group '{record.group}', which is also in the training data")
            continue
        path = held_out_root / record.image
        if not path.is_file():
            continue
        for other_id, other in by_size.get(path.stat().st_size, ()):
            if other.samefile(path) or sha256(path) == sha256(other):
                found.append(f"{name} is the same image as '{other_id}'")
                break
    if found:
        raise DataError(
            f"{len(found)} held-out images overlap with the training data:\n{bullet_list(found, _MAX_SHOWN)}\n"
            "Remove them from one of the two, or split again (`emovit data import ... --split-seed`)."
        )
