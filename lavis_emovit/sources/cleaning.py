"""Which records to remove for what a check finds: broken images, contradictory labels, duplicates, leaks, boxes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from lavis_emovit.records import RecordStore
from lavis_emovit.sources.checks import (
    SMALL_PX,
    CheckedFile,
    ImageFacts,
    ImageUse,
    box_faults,
    contradictions,
    equal_images,
    image_uses,
    is_contradictory,
    other_frames,
    shared_images,
)
from lavis_emovit.sources.duplicates import find_removals

Kind = Literal["broken", "small", "conflicts", "boxes", "duplicates", "leaks"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# What `verify --strict` refuses; small images are only odd.
DEFAULT_KINDS: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind != "small")


@dataclass(frozen=True, slots=True)
class Removed:
    """Why a record is removed, and the record whose image stays instead, if any."""

    kind: Kind
    reason: str
    kept: str | None = None


@dataclass
class Cleaning:
    """Id -> why it is removed, in the order of the kinds; and sentences about duplicates with different labels."""

    removed: dict[str, Removed] = field(default_factory=dict)
    label_conflicts: list[str] = field(default_factory=list)
    num_unread: int = 0  # images that cannot be opened and stay

    def add(self, use: ImageUse, removed: Removed) -> None:
        for record_id in use.ids:
            self.removed.setdefault(record_id, removed)


def clean_records(
    files: Sequence[CheckedFile], facts: Mapping[str, ImageFacts], kinds: Collection[Kind], near_bits: int | None
) -> Cleaning:
    """Choose the records of the first file to remove; those of the other files stay.

    - `broken`: images that are missing or cannot be decoded.
    - `small`: images smaller than 16 pixels.
    - `conflicts`: all equal images with different labels, and all records of one image and box with different labels,
      since none of the labels can be trusted.
    - `boxes`: records whose box does not fit their image.
    - `duplicates`, `leaks`: as `find_removals`, among the records that remain.

    Args:
        facts: of the images, from `open_images`.
        near_bits: as for `check_records`.
    """
    file, *others = files
    found = Cleaning()
    uses = image_uses(file)
    for use in uses:
        fact = facts[use.path]
        if fact.fault is not None and "broken" in kinds:
            found.add(use, Removed("broken", f"the image cannot be used: {fact.fault}"))
        if "small" in kinds and fact.size_px is not None and min(fact.size_px) < SMALL_PX:
            found.add(use, Removed("small", f"the image is smaller than {SMALL_PX} px"))
    for path, record in other_frames(file) if "broken" in kinds else ():
        if (fault := facts[path].fault) is not None:
            found.removed.setdefault(record.id, Removed("broken", f"a frame cannot be used: {path}: {fault}"))
    if "conflicts" in kinds:
        all_uses = [*uses, *(use for other in others for use in image_uses(other))]
        for group in equal_images(all_uses, facts).values():
            if is_contradictory(group):
                for use in group:
                    if use.file == file.name:
                        found.add(use, Removed("conflicts", "an equal image has another label"))
        for same in contradictions(file, shared_images(uses)):
            for record in (record for records in same.values() for record in records):
                found.removed.setdefault(record.id, Removed("conflicts", "a record of the image has another label"))
    if "boxes" in kinds:
        for record, fault in box_faults(file, facts):
            found.removed.setdefault(record.id, Removed("boxes", f"its box {fault}"))
    if not {"duplicates", "leaks"}.isdisjoint(kinds):
        rest = RecordStore(record for record in file.records if record.id not in found.removed)
        left = [CheckedFile(file.name, rest, file.image_root), *others]
        removals = find_removals(left, facts, near_bits, within_split="duplicates" in kinds, leaks="leaks" in kinds)
        for removal in removals:
            kind: Kind = "leaks" if removal.is_leak else "duplicates"
            found.add(removal.use, Removed(kind, removal.reason, removal.kept.ids[0]))
        found.label_conflicts = [removal.conflict for removal in removals if removal.conflict is not None]
    found.num_unread = sum(facts[use.path].fault is not None and use.ids[0] not in found.removed for use in uses)
    return found
