"""Pictures that are in training and in a held-out set alike are refused: by their bytes, their path and their group."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord

_SHOWN = 5


def refuse_overlap(
    training: Sequence[EmotionRecord], held_out: Iterable[EmotionRecord], image_root: Path, held_out_root: Path
) -> None:
    """Compare the pictures that get instructions with those that a model will be tested on.

    Files are compared by size first, so nearly none has to be read. Groups (persons) count within one source only.

    Args:
        training: records that get instructions.
        held_out: records of other splits or other files.
        image_root, held_out_root: where their picture paths start.

    Raises:
        DataError: pictures, ids or groups that both hold; the first ones are named.
    """
    found: list[str] = []
    ids = {record.id for record in training}
    groups = {(record.source, record.group) for record in training if record.group is not None}
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for record in training:
        path = image_root / record.image
        if path.is_file():
            by_size[path.stat().st_size].append((record.id, path))
    hashes: dict[Path, str] = {}
    for record in held_out:
        name = f"'{record.id}' ({record.split})"
        if record.id in ids:
            found.append(f"{name} is in the training part as well")
            continue
        if record.group is not None and (record.source, record.group) in groups:
            found.append(f"{name} shows group '{record.group}', which the training part holds")
            continue
        path = held_out_root / record.image
        if not path.is_file():
            continue
        for other_id, other in by_size.get(path.stat().st_size, ()):
            if other.samefile(path) or _hash(path, hashes) == _hash(other, hashes):
                found.append(f"{name} is the same picture as '{other_id}'")
                break
    if found:
        shown = "\n".join(f"  - {line}" for line in found[:_SHOWN])
        more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise DataError(
            f"{len(found)} held-out pictures would be trained on:\n{shown}{more}\n"
            "Take them out of one of the two, or split again (`emovit data import ... --split-seed`)."
        )


def _hash(path: Path, known: dict[Path, str]) -> str:
    if path not in known:
        known[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    return known[path]
