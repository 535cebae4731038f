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
    other_frames,
)
from lavis_emovit.sources.splits import group_of, one_spelling

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Removal:
    """An image to remove, and the one that stays; `bits` of their hashes differ, None: they have the same bytes."""

    use: ImageUse
    kept: ImageUse
    bits: int | None

    @property
    def is_leak(self) -> bool:
        """Whether the two images are in different splits or files."""
        return (self.use.file, self.use.split) != (self.kept.file, self.kept.split)

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
    files: Sequence[CheckedFile],
    facts: Mapping[str, ImageFacts],
    near_bits: int | None,
    *,
    within_split: bool = True,
    leaks: bool = True,
) -> list[Removal]:
    """The images of the first file that duplicate others.

    The images of the other files stay. In the first file, those of the split `test` stay, then those of `val`, of other
    splits in alphabetical order, and of `train`; within a split, the first in the file. An image is removed only if it
    duplicates one that stays, so no two of the remaining ones are duplicates.

    Args:
        facts: of the images, from `open_images`; images that cannot be opened stay.
        near_bits: as for `check_records`.
        within_split: remove an image whose duplicate is in the same split of the same file.
        leaks: remove an image whose duplicate is in another split or file.
    """
    cleaned = files[0].name
    uses = [use for file in files for use in image_uses(file)]
    neighbours = _neighbours((facts[use.path] for use in uses), near_bits)
    by_content: dict[bytes, list[ImageUse]] = {}
    by_hash: dict[int, list[ImageUse]] = {}
    removals = []
    for use in sorted(uses, key=lambda use: (use.file == cleaned, *_rank(use.split))):
        fact = facts[use.path]
        if fact.fault is not None:
            continue
        alike: list[tuple[ImageUse, int | None]] = [(other, None) for other in by_content.get(fact.sha256, ())]
        if fact.phash is not None and near_bits is not None:
            for value in neighbours.get(fact.phash, [fact.phash]):
                bits = (fact.phash ^ value).bit_count()
                alike += [(other, bits) for other in by_hash.get(value, ())]
        found = (Removal(use, other, bits) for other, bits in alike)
        chosen = (removal for removal in found if (leaks if removal.is_leak else within_split))
        if use.file == cleaned and (removal := next(chosen, None)) is not None:
            removals.append(removal)
            continue
        by_content.setdefault(fact.sha256, []).append(use)
        if fact.phash is not None:
            by_hash.setdefault(fact.phash, []).append(use)
    return removals


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

    if facts is None:
        facts = open_images([file], num_workers, progress)
    groups: set[str] = set()
    alike: dict[int | bytes, set[str]] = {}
    for record in file.records:
        groups.add(group := group_of(record))
        fact = facts[image_path(file, record)]
        if fact.fault is None:
            key = fact.sha256 if near_bits is None or fact.phash is None else fact.phash
            alike.setdefault(key, set()).add(group)
    links = [link for found in alike.values() for link in pairwise(sorted(found))]
    hashes = [key for key in alike if isinstance(key, int)]
    links += [(min(alike[one]), min(alike[other])) for one, other in near_hashes(hashes, near_bits or 0)]
    links += one_spelling(groups).items()
    names = sorted(groups)
    number = {name: place for place, name in enumerate(names)}
    rows, columns = [number[one] for one, _ in links], [number[other] for _, other in links]
    graph = coo_array(([1] * len(links), (rows, columns)), shape=(len(names), len(names)))
    first: dict[int, str] = {}
    components = connected_components(graph, directed=False)[1].tolist()
    joined = {name: first.setdefault(component, name) for name, component in zip(names, components)}
    return joined, sum(fact.fault is not None for fact in facts.values())


def _rank(split: str) -> tuple[int, str]:
    """The order in which splits keep their images: published results are about whole test splits."""
    return {"test": 0, "val": 1, "train": 3}.get(split, 2), split


def open_images(files: Sequence[CheckedFile], num_workers: int, progress: Progress) -> dict[str, ImageFacts]:
    """Path -> facts of all images of records files, with the frames of clips. DataError if none of them exists."""
    paths = {image_path(file, record) for file in files for record in file.records}
    paths |= {path for file in files for path, _ in other_frames(file)}
    facts = check_files(sorted(paths), num_workers, progress)
    if all(fact.fault == MISSING for fact in facts.values()):
        roots = ", ".join(sorted({str(file.image_root) for file in files}))
        raise DataError(f"none of the images is in {roots}; pass the folder of the image paths with `--images`")
    return facts


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
