"""Which images get which kinds of instructions: counts per class, drawn by seed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.generation.kinds import KINDS
from lavis_emovit.records import EmotionRecord, InstructionKind
from lavis_emovit.settings import EachOnce, Settings


class MixPart(Settings):
    """Images of a mix that get the same kinds."""

    kinds: Annotated[tuple[InstructionKind, ...], EachOnce] = Field(min_length=1)
    per_class: int | None = Field(default=None, ge=1)  # images of each class. None: all remaining images.


class Mix(Settings):
    """Parts without common images, drawn one after the other."""

    parts: tuple[MixPart, ...] = Field(min_length=1)


def _published(num_categorical: int) -> Mix:
    """1,000 images per class with three conversation pairs, 100 of them with a reasoning pair; the rest categorical."""
    return Mix(
        parts=(
            MixPart(kinds=("conversation", "reasoning"), per_class=100),
            MixPart(kinds=("conversation",), per_class=900),
            MixPart(kinds=("categorical",), per_class=num_categorical),
        )
    )


# Counts are per class; EmoSet has eight classes.
MIXES: dict[str, Mix] = {
    # Every image gets every kind.
    "all": Mix(parts=(MixPart(kinds=("categorical", *(kind.name for kind in KINDS.values()))),)),
    # The released scripts produce 8 x 4,600 = 36,800 categorical pairs.
    "released": _published(4600),
    # The paper states 51,200 images, 6,400 per class, but not how many get which kind. Here the numbers of conversation
    # and reasoning are those of the released scripts.
    "paper": _published(5400),
    # For trials: `released` on a small scale, with all kinds.
    "small": Mix(
        parts=(
            MixPart(kinds=("conversation", "reasoning", "description", "explanation"), per_class=2),
            MixPart(kinds=("categorical",), per_class=8),
        )
    ),
}


def draw_mix(
    records: Iterable[EmotionRecord], mix: Mix, *, seed: int = 0, allow_short: bool = False
) -> dict[str, tuple[str, ...]]:
    """Choose images for a mix: record id -> kinds. DataError names all classes with too few images.

    The choice depends only on seed and ids. A larger count contains all images of a smaller one. Images without emotion
    are used only if every part takes all images. `allow_short` uses all images of a class that has too few.
    """
    classes: dict[str, list[str]] = defaultdict(list)
    for record in records:
        classes[record.emotion or ""].append(record.id)
    chosen: dict[str, tuple[str, ...]] = {}
    short: list[str] = []
    num_wanted = sum(part.per_class or 0 for part in mix.parts)
    for label in sorted(classes):
        ids = sorted(classes[label], key=lambda name: hashlib.sha256(f"mix/{seed}/{name}".encode()).digest())
        if not label and num_wanted:
            continue
        if num_wanted > len(ids):
            short.append(f"{label}: {len(ids)} images, the mix needs {num_wanted}")
        for part in mix.parts:
            count = len(ids) if part.per_class is None else part.per_class
            chosen.update(dict.fromkeys(ids[:count], part.kinds))
            ids = ids[count:]
    if short and not allow_short:
        raise DataError(
            f"the mix needs more images than there are:\n{bullet_list(short)}\n"
            "Use a smaller mix, add images, or use all images of these classes (--allow-short)."
        )
    return chosen
