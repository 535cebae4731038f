"""Which pictures get which kinds of instructions: counts by class, drawn by seed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field, field_validator

from lavis_emovit.errors import DataError
from lavis_emovit.generation.kinds import KINDS
from lavis_emovit.records import INSTRUCTION_KINDS, EmotionRecord
from lavis_emovit.settings import Settings


class MixPart(Settings):
    """Pictures of a mix that get the same kinds.

    Attributes:
        kinds: the kinds of instructions.
        per_class: pictures of each class; None is all that are left.
    """

    kinds: tuple[str, ...] = Field(min_length=1)
    per_class: int | None = Field(default=None, ge=1)

    @field_validator("kinds")
    @classmethod
    def _kinds_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        strange = [kind for kind in value if kind not in INSTRUCTION_KINDS]
        if strange:
            raise ValueError(f"no such kinds: {', '.join(strange)} (there are: {', '.join(INSTRUCTION_KINDS)})")
        return value


class Mix(Settings):
    """Parts that share no picture, drawn one after the other."""

    parts: tuple[MixPart, ...] = Field(min_length=1)


_WRITTEN = tuple(KINDS)
# Counts are per class; EmoSet has eight.
MIXES: dict[str, Mix] = {
    # Every picture gets every kind.
    "all": Mix(parts=(MixPart(kinds=("categorical", *_WRITTEN)),)),
    # What the released scripts make: 8 x 4,600 = 36,800 categorical; 8 x 1,000 pictures with 3 exchanges each; one
    # reasoning pair for 8 x 100 of these.
    "released": Mix(
        parts=(
            MixPart(kinds=("conversation", "reasoning"), per_class=100),
            MixPart(kinds=("conversation",), per_class=900),
            MixPart(kinds=("categorical",), per_class=4600),
        )
    ),
    # The paper says 51,200 pictures, 6,400 a class, and not how they are shared out among the kinds; here conversation
    # and reasoning are as in the released scripts, and all others categorical.
    "paper": Mix(
        parts=(
            MixPart(kinds=("conversation", "reasoning"), per_class=100),
            MixPart(kinds=("conversation",), per_class=900),
            MixPart(kinds=("categorical",), per_class=5400),
        )
    ),
    # For trying: the shares of `released` in small, with all kinds.
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
    """Choose pictures for a mix.

    The choice depends on seed and ids only, and a larger count takes the pictures of a smaller one along.

    Args:
        records: the pictures to choose from; those without emotion count where a part takes all.
        mix: what is wanted.
        seed: another seed takes other pictures.
        allow_short: take what there is where a class has too few.

    Returns:
        record id -> kinds.

    Raises:
        DataError: a class has too few pictures; all such classes are named.
    """
    classes: dict[str, list[str]] = defaultdict(list)
    for record in records:
        classes[record.emotion or ""].append(record.id)
    chosen: dict[str, tuple[str, ...]] = {}
    short: list[str] = []
    for label in sorted(classes):
        ids = sorted(classes[label], key=lambda name: hashlib.sha256(f"mix/{seed}/{name}".encode()).digest())
        wanted = sum(part.per_class or 0 for part in mix.parts)
        if not label and wanted:
            continue
        if wanted > len(ids):
            short.append(f"{label}: {len(ids)} pictures, {wanted} are wanted")
        for part in mix.parts:
            count = len(ids) if part.per_class is None else part.per_class
            chosen.update(dict.fromkeys(ids[:count], part.kinds))
            ids = ids[count:]
    if short and not allow_short:
        raise DataError(
            "the mix wants more pictures than there are:\n"
            + "\n".join(f"  - {line}" for line in short)
            + "\nTake a smaller mix, more pictures, or what there is (--allow-short)."
        )
    return chosen


def count_mix(records: Sequence[EmotionRecord], chosen: Mapping[str, tuple[str, ...]]) -> dict[str, dict[str, int]]:
    """Pictures of each kind by class."""
    counts: dict[str, dict[str, int]] = {}
    for record in records:
        for kind in chosen.get(record.id, ()):
            by_class = counts.setdefault(kind, {})
            by_class[record.emotion or "none"] = by_class.get(record.emotion or "none", 0) + 1
    return counts
