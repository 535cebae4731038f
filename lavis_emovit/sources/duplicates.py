"""What to do about duplicates that `lavis_emovit.sources.checks` finds: remove them, or keep them in one split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lavis_emovit.errors import DataError
from lavis_emovit.sources.checks import (
    MISSING,
    CheckedFile,
    ImageFacts,
    ImageUse,
    check_files,
    image_path,
    image_uses,
    near_hashes,
)
from lavis_emovit.sources.splits import group_of

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Removal:
    """An image to remove, and the one that stays; `bits` of their hashes differ, None: they have the same bytes."""

    use: ImageUse
    kept: ImageUse
    bits: int | None

    @property
    def reason(self) -> str:
        place = "in the same split"
        if self.use.file != self.kept.file:
            place = "in another file"
        elif self.use.split != self.kept.split:
            place = "in another split"
        return f"{'exact' if self.bits is None else 'near'} duplicate of an image {place}"

    @property
    def conflict(self) -> str | None:
        """A sentence if the two images have different labels."""
        if not self.use.labels or not self.kept.labels or self.use.labels == self.kept.labels:
            return None
        return f"{self.kept} is {', '.join(self.kept.labels)}; {self.use} is {', '.join(self.use.labels)}"


def find_removals(
    files: Sequence[CheckedFile], near_bits: int | None, num_workers: int, progress: Progress
) -> tuple[list[Removal], int]:
    """The images of the first file that duplicate others, and the number of its images that cannot be read.

    The images of the other files stay. In the first file, those of the split `test` stay, then those of `val`, of other
    splits in alphabetical order, and of `train`; within a split, the first in the file. An image is removed only if it
    duplicates one that stays, so no two of the remaining ones are duplicates. For the arguments see `check_records`.
    """
    cleaned = files[0].name
    uses = [use for file in files for use in image_uses(file)]
    facts = _readable_facts({use.path for use in uses}, files, num_workers, progress)
    neighbours = _neighbours(facts.values(), near_bits)
    by_content: dict[bytes, ImageUse] = {}
    by_hash: dict[int, ImageUse] = {}
    removals = []
    for use in sorted(uses, key=lambda use: (use.file == cleaned, *_rank(use.split))):
        fact = facts.get(use.path)
        if fact is None:
            continue
        twin, bits = by_content.get(fact.sha256), None
        if twin is None and fact.phash is not None and near_bits is not None:
            nearest = next((value for value in neighbours.get(fact.phash, [fact.phash]) if value in by_hash), None)
            if nearest is not None:
                twin, bits = by_hash[nearest], (fact.phash ^ nearest).bit_count()
        if twin is not None and use.file == cleaned:
            removals.append(Removal(use, twin, bits))
            continue
        by_content.setdefault(fact.sha256, use)
        if fact.phash is not None:
            by_hash.setdefault(fact.phash, use)
    return removals, sum(use.file == cleaned and use.path not in facts for use in uses)


def join_groups(
    file: CheckedFile,
    near_bits: int | None,
    num_workers: int,
    progress: Progress,
    facts: Mapping[str, ImageFacts] | None = None,
) -> tuple[dict[str, str], int]:
    """Group of records -> the first of all groups that share duplicates with it, directly or through others.

    The groups are those of `group_of`. Also returns the number of images that cannot be read. `facts` are those of
    `check_files`, if the images have been opened before.
    """
    # Slow to import, and only this function needs it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    paths = {image_path(file, record) for record in file.records}
    facts = _readable_facts(paths, [file], num_workers, progress, facts)
    groups: set[str] = set()
    alike: dict[int | bytes, set[str]] = {}
    for record in file.records:
        groups.add(group := group_of(record))
        fact = facts.get(image_path(file, record))
        if fact is not None:
            key = fact.sha256 if near_bits is None or fact.phash is None else fact.phash
            alike.setdefault(key, set()).add(group)
    links = [link for found in alike.values() for link in pairwise(sorted(found))]
    hashes = [key for key in alike if isinstance(key, int)]
    links += [(min(alike[one]), min(alike[other])) for one, other in near_hashes(hashes, near_bits or 0)]
    names = sorted(groups)
    number = {name: place for place, name in enumerate(names)}
    rows, columns = [number[one] for one, _ in links], [number[other] for _, other in links]
    graph = coo_array(([1] * len(links), (rows, columns)), shape=(len(names), len(names)))
    first: dict[int, str] = {}
    components = connected_components(graph, directed=False)[1].tolist()
    joined = {name: first.setdefault(component, name) for name, component in zip(names, components)}
    return joined, len(paths) - len(facts)


def _rank(split: str) -> tuple[int, str]:
    """The order in which splits keep their images: published results are about whole test splits."""
    return {"test": 0, "val": 1, "train": 3}.get(split, 2), split


def _readable_facts(
    paths: set[str],
    files: Sequence[CheckedFile],
    num_workers: int,
    progress: Progress,
    facts: Mapping[str, ImageFacts] | None = None,
) -> dict[str, ImageFacts]:
    """Path -> facts of every image that can be read. DataError if none of them exists."""
    if facts is None:
        facts = check_files(sorted(paths), num_workers, progress)
    if all(fact.fault == MISSING for fact in facts.values()):
        roots = ", ".join(sorted({str(file.image_root) for file in files}))
        raise DataError(f"none of the images is in {roots}; pass the folder of the image paths with `--images`")
    return {path: fact for path, fact in facts.items() if fact.fault is None}


def _neighbours(facts: Iterable[ImageFacts], near_bits: int | None) -> dict[int, list[int]]:
    """Hash -> itself and the near hashes, nearest first, of the hashes that have some; empty without `near_bits`."""
    if near_bits is None:
        return {}
    found: dict[int, list[int]] = {}
    for one, other in near_hashes({fact.phash for fact in facts if fact.phash is not None}, near_bits):
        found.setdefault(one, [one]).append(other)
        found.setdefault(other, [other]).append(one)
    for value, near in found.items():
        near.sort(key=lambda other: ((value ^ other).bit_count(), other))
    return found
