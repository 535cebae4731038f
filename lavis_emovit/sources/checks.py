"""Checks of records with their images: broken files, duplicates, leaks between splits and between datasets.

Duplicates are exact (the same bytes) or near (64-bit perceptual hashes that differ in a few bits).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from lavis_emovit.clips.video import VIDEO_FILE_SUFFIXES, Video
from lavis_emovit.distributed.cores import usable_cpus
from lavis_emovit.distributed.workers import end_with_parent
from lavis_emovit.emotion.typos import find_typos
from lavis_emovit.errors import DataError
from lavis_emovit.files import file_sha256, read_file
from lavis_emovit.images import (
    ORIENTATION,
    SUFFIXES_OF_FORMAT,
    describe_failure,
    displayed_size_px,
    open_strictly,
    refusal,
    to_rgb,
)
from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.statistics import labels_of, labels_outside, wrong_answers

_HASH_BITS = 64
_PARALLEL_FROM = 2000
_CHUNK = 64
# The fault of a file that does not exist.
MISSING = "missing"
SMALL_PX = 16
_HASH_SIDE = 8
_BOX_TOLERANCE_PX = 1  # for rounded corners
# An image of nearly one tone has no structure for a perceptual hash.
_FLAT_RANGE = 8


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The results for one image file."""

    path: str
    fault: str | None = None  # why it cannot be used; None if it is sound
    odd: tuple[str, ...] = ()  # special cases: `CMYK`, `16-bit`, `animated`, `turned by EXIF`
    sha256: bytes = b""  # of the file's bytes; empty if there is no file
    phash: int | None = None  # 64-bit perceptual hash (DCT) of the image as displayed; None for an image of one tone
    size_px: tuple[int, int] | None = None  # width and height as displayed
    end_s: float | None = None  # of a video


def check_file(path: str) -> ImageFacts:
    """Open an image, decode all of it, and compute its fingerprints. Never raises because of the file's content.

    Of a video only the frames in the middle and at the end are decoded; a build of shards decodes what it stores.
    """
    if Path(path).suffix.lower() in VIDEO_FILE_SUFFIXES:
        return _check_video(path)
    try:
        data = read_file(path)
    except FileNotFoundError:
        return ImageFacts(path, fault=MISSING)
    except OSError as error:
        return ImageFacts(path, fault=f"cannot be read ({error.strerror})")
    sha256 = hashlib.sha256(data).digest()
    if not data:
        return ImageFacts(path, fault="the file is empty", sha256=sha256)
    try:
        with open_strictly(data) as image:
            if (reason := refusal(image)) is not None:
                return ImageFacts(path, fault=reason, sha256=sha256)
            odd = oddities(image, path)
            size_px = displayed_size_px(image)
            # A small JPEG is enough for the hash; decoding still reads the whole file.
            image.draft("RGB", (128, 128))
            image.load()
            shown = _as_shown(image)
        # As for shards: checksums behind the last pixel (PNG).
        with open_strictly(data) as image:
            image.verify()
    except Exception as error:
        return ImageFacts(path, fault=describe_failure(error, data), sha256=sha256)
    return ImageFacts(path, odd=odd, sha256=sha256, phash=_perceptual_hash(shown), size_px=size_px)


def _check_video(path: str) -> ImageFacts:
    try:
        sha256 = bytes.fromhex(file_sha256(Path(path)))
        with Video(Path(path)) as video:
            (_, shown), _ = video.frames_at([video.end_s / 2, video.end_s])
    except FileNotFoundError:
        return ImageFacts(path, fault=MISSING)
    except OSError as error:
        return ImageFacts(path, fault=f"cannot be read ({error.strerror})")
    except DataError as error:
        return ImageFacts(path, fault=str(error), sha256=sha256)
    return ImageFacts(path, sha256=sha256, phash=_perceptual_hash(shown), size_px=shown.size, end_s=video.end_s)


def open_thumbnail(path: Path, min_side_px: int) -> Image.Image:
    """An image to display, decoded no larger than needed. DataError if it is missing or damaged."""
    data = b""
    try:
        data = read_file(path)
        with open_strictly(data) as image:
            image.draft("RGB", (min_side_px, min_side_px))
            image.load()
            return _as_shown(image)
    except Exception as error:
        raise DataError(f"{path}: the image cannot be read ({describe_failure(error, data)})") from None


def _as_shown(image: Image.Image) -> Image.Image:
    """A loaded image as a viewer shows it, in RGB."""
    return to_rgb(ImageOps.exif_transpose(image))


def oddities(image: Image.Image, path: str) -> tuple[str, ...]:
    """The special cases of an opened image: `CMYK`, `16-bit`, `animated`, `turned by EXIF`, `transparent`, ..."""
    odd = []
    if image.mode == "CMYK":
        odd.append("CMYK")
    if image.mode.startswith("I"):
        odd.append("16-bit")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        odd.append("animated")
    if image.getexif().get(ORIENTATION, 1) != 1:
        odd.append("turned by EXIF")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        odd.append("transparent")
    if min(image.size) < SMALL_PX:
        odd.append(f"smaller than {SMALL_PX} px")
    if Path(path).suffix.lower().removeprefix(".") not in SUFFIXES_OF_FORMAT[image.format or ""]:
        odd.append(f"{image.format} called {Path(path).suffix or 'nothing'}")
    return tuple(odd)


def _perceptual_hash(image: Image.Image) -> int | None:
    import imagehash

    grey = image.convert("L")
    low, high = grey.getextrema()
    if float(high) - float(low) < _FLAT_RANGE:  # type: ignore[arg-type]
        return None
    return int(str(imagehash.phash(grey, hash_size=_HASH_SIDE)), 16)


@dataclass(frozen=True)
class CheckedFile:
    """Records of one file, and the folder that their image paths are relative to."""

    name: str
    records: Sequence[EmotionRecord]
    image_root: Path


@dataclass
class CheckReport:
    """The results. Findings are lists of sentences; `odd` counts special cases that are not faults."""

    # num_records, num_images: number of checked records and images.
    num_records: int = 0
    num_images: int = 0
    num_missing: int = 0  # images that do not exist
    faults: list[str] = field(default_factory=list)  # images that are missing or broken
    # exact, near: pairs of images with the same bytes, or nearly the same content, within a split of a file.
    exact: list[str] = field(default_factory=list)
    near: list[str] = field(default_factory=list)
    # Pairs of such images in two splits or two files, and groups in two splits.
    leaks: list[str] = field(default_factory=list)
    # Images with the same bytes and different labels, and records of one image and box with different labels.
    conflicts: list[str] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)  # boxes that do not fit their image
    labels: list[str] = field(default_factory=list)  # labels that are probably misspelt
    outside: list[str] = field(default_factory=list)  # labels that are not in the label set of their records
    answers: list[str] = field(default_factory=list)  # categorical answers that name another label than their record
    odd: Counter[str] = field(default_factory=Counter)  # kind of oddity -> images

    def findings(self) -> dict[str, list[str]]:
        """Title -> sentences, for everything that a strict check refuses.

        The titles are keys of `emovit data verify --json`, so they keep the word of earlier versions.
        """
        return {
            "missing or broken pictures": self.faults,
            "leaks between splits or files": self.leaks,
            "same picture, different labels": self.conflicts,
            "exact duplicates": self.exact,
            "near duplicates": self.near,
            "boxes that do not fit the image": self.boxes,
            "labels that are probably misspelt": self.labels,
            "labels outside their label set": self.outside,
            "answers with another label": self.answers,
        }

    @property
    def num_findings(self) -> int:
        return sum(map(len, self.findings().values()))


@dataclass(frozen=True, slots=True)
class ImageUse:
    """An image in a split of a file, with the records that use it."""

    file: str
    split: str
    path: str
    ids: tuple[str, ...]
    labels: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {len(self.ids) - 1} more" if len(self.ids) > 1 else ""
        return f"{self.ids[0]}{more} ({self.split})"


def check_records(
    files: Sequence[CheckedFile],
    *,
    near_bits: int | None = 2,
    num_workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
    facts: Mapping[str, ImageFacts] | None = None,
) -> CheckReport:
    """Check every image of records files, and compare all images with each other, also those of different files.

    Args:
        near_bits: bits by which the hashes of near duplicates may differ (of 64); None: only exact duplicates. Two bits
            find images that were scaled or compressed again; posed faces of different people differ in four.
        num_workers: processes that decode images.
        progress: called with (images done, number of images).
        facts: those of `check_files`, if the images have been opened before.
    """
    report = CheckReport(num_records=sum(len(file.records) for file in files))
    uses = [use for file in files for use in image_uses(file)]
    paths = sorted({use.path for use in uses})
    report.num_images = len(paths)
    frames = [(path, record) for file in files for path, record in other_frames(file)]
    if facts is None:
        facts = check_files(sorted({*paths, *(path for path, _ in frames)}), num_workers, progress)
    faulty = {path for path in paths if facts[path].fault is not None}
    users = {use.path: use for use in reversed(uses) if use.path in faulty}
    for path in paths:
        if facts[path].fault is not None:
            report.num_missing += facts[path].fault == MISSING
            report.faults.append(f"{users[path]}: {path}: {facts[path].fault}")
        report.odd.update(facts[path].odd)
    for path, record in frames:
        if path in facts and facts[path].fault is not None:
            report.faults.append(f"{record.id} ({record.split}): frame {path}: {facts[path].fault}")
    for file in files:
        report.faults += [f"{record.id} ({record.split}): {fault}" for record, fault in _clip_faults(file, facts)]
    _compare(uses, facts, near_bits, report)
    shared = shared_images(uses)
    for file in files:
        report.leaks += _group_leaks(file)
        for same in contradictions(file, shared):
            report.conflicts.append(
                "; ".join(f"{one.id} ({one.split}) is {labels}" for labels, (one, *_) in same.items())
            )
        report.boxes += [f"{record.id} ({record.split}): its box {fault}" for record, fault in box_faults(file, facts)]
        counts = Counter(label for record in file.records for label in labels_of(record))
        report.labels += [f"{typo}{_in(file, files)}" for typo in find_typos(counts)]
        report.outside += [f"{line}{_in(file, files)}" for line in labels_outside(file.records)]
        report.answers += [
            f"{record.id} ({record.split}) is {', '.join(labels_of(record))}, but its answer is '{one.answer}'"
            for record in file.records
            for one in wrong_answers(record)
        ]
    return report


def _in(file: CheckedFile, files: Sequence[CheckedFile]) -> str:
    return f" in {file.name}" if len(files) > 1 else ""


def image_path(file: CheckedFile, record: EmotionRecord) -> str:
    return os.path.normpath(file.image_root / record.image)


def image_uses(file: CheckedFile) -> list[ImageUse]:
    """Several records may use one image, for example for the people in it; these are not duplicates."""
    users: dict[tuple[str, str], ImageUse] = {}
    for record in file.records:
        split, path = sys.intern(record.split), image_path(file, record)
        found = users.get((split, path))
        ids, labels = (found.ids, found.labels) if found is not None else ((), ())
        labels = tuple(sorted({*labels, *map(sys.intern, labels_of(record))}))
        users[split, path] = ImageUse(file.name, split, path, (*ids, record.id), labels)
    return list(users.values())


def other_frames(file: CheckedFile) -> Iterator[tuple[str, EmotionRecord]]:
    """The frames of clips besides `image`. They are not compared with each other: neighbours look alike."""
    for record in file.records:
        for path in record.paths:
            if path != record.image:
                yield os.path.normpath(file.image_root / path), record


def _clip_faults(file: CheckedFile, facts: Mapping[str, ImageFacts]) -> Iterator[tuple[EmotionRecord, str]]:
    """The records whose clip is no part of their video, and why."""
    for record in file.records:
        if record.clip is None or (end_s := facts[path := image_path(file, record)].end_s) is None:
            continue
        if (fault := record.clip.outside(end_s)) is not None:
            yield record, f"{path}: {fault}"


def num_decoders(num_images: int) -> int:
    """Processes that are worth starting to decode so many images."""
    return usable_cpus() if num_images >= _PARALLEL_FROM else 1


def check_files(paths: Sequence[str], num_workers: int, progress: Callable[[int, int], None]) -> dict[str, ImageFacts]:
    """Path -> facts of the image there; see `check_records` for the arguments."""
    facts: dict[str, ImageFacts] = {}

    def add(found: Iterable[ImageFacts]) -> None:
        for fact in found:
            facts[fact.path] = fact
            progress(len(facts), len(paths))

    if num_workers <= 1 or len(paths) < _CHUNK:
        add(map(check_file, paths))
    else:
        # Spawned, not forked: a fork of a process with threads (torch, tqdm) can hang.
        try:
            with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
                add(pool.map(check_file, paths, chunksize=_CHUNK))
        except BrokenProcessPool:
            raise DataError(
                "a process that reads images was killed, perhaps because memory ran out; use fewer --workers"
            ) from None
    return facts


def _compare(uses: list[ImageUse], facts: Mapping[str, ImageFacts], near_bits: int | None, report: CheckReport) -> None:
    same = equal_images(uses, facts)
    for group in same.values():
        # Compare with the first of each split and file only, so that n copies don't give n squared lines.
        first: dict[tuple[str, str], ImageUse] = {}
        for use in group:
            twin = first.setdefault((use.file, use.split), use)
            if twin is not use:
                report.exact.append(f"{twin} and {use} have the same bytes")
        for one, other in combinations(first.values(), 2):
            report.leaks.append(f"{one}{_of(one, other)} and {other}{_of(other, one)} have the same bytes")
        if is_contradictory(group):
            named = dict.fromkeys(f"{use} is {', '.join(use.labels)}" for use in group if use.labels)
            report.conflicts.append("; ".join(named))
    if near_bits is None:
        return
    alike: dict[int, list[bytes]] = {}  # hash -> contents
    for sha256, group in same.items():
        phash = facts[group[0].path].phash
        if phash is not None:
            alike.setdefault(phash, []).append(sha256)
    pairs = [(0, one, other) for group in alike.values() for one, other in pairwise(group)]
    for one_hash, other_hash in near_hashes(alike, near_bits):
        pairs.append(((one_hash ^ other_hash).bit_count(), alike[one_hash][0], alike[other_hash][0]))
    for bits, one_sha, other_sha in sorted(pairs):
        one, other = same[one_sha][0], same[other_sha][0]
        found = report.near if (one.file, one.split) == (other.file, other.split) else report.leaks
        found.append(
            f"{one}{_of(one, other)} and {other}{_of(other, one)} look alike ({bits} of {_HASH_BITS} bits differ)"
        )


def equal_images(uses: Iterable[ImageUse], facts: Mapping[str, ImageFacts]) -> dict[bytes, list[ImageUse]]:
    """Hash of the bytes -> the uses of images with these bytes, of the images that can be opened."""
    same: dict[bytes, list[ImageUse]] = {}
    for use in uses:
        if facts[use.path].fault is None:
            same.setdefault(facts[use.path].sha256, []).append(use)
    return same


def is_contradictory(group: Sequence[ImageUse]) -> bool:
    """Whether equal images have different labels."""
    return len({use.labels for use in group if use.labels}) > 1


def _of(use: ImageUse, other: ImageUse) -> str:
    """The file's name, if two files are compared."""
    return f" of {use.file}" if use.file != other.file else ""


def near_hashes(hashes: Collection[int], near_bits: int) -> set[tuple[int, int]]:
    """Every two different hashes that differ in at most `near_bits` bits, the smaller one first.

    Instead of comparing all pairs, it compares hashes that share a band: two hashes that differ in at most d bits are
    equal in at least one of d + 1 bands.
    """
    bands = near_bits + 1
    edges = [_HASH_BITS * band // bands for band in range(bands + 1)]
    found: set[tuple[int, int]] = set()
    for low, high in pairwise(edges):
        buckets: dict[int, list[int]] = {}
        for value in hashes:
            buckets.setdefault((value >> low) & ((1 << (high - low)) - 1), []).append(value)
        for bucket in buckets.values():
            for one, other in combinations(bucket, 2):
                if (one ^ other).bit_count() <= near_bits:
                    found.add((min(one, other), max(one, other)))
    return found


def _group_leaks(file: CheckedFile) -> list[str]:
    splits: dict[str, set[str]] = {}
    for record in file.records:
        if record.group_key is not None:
            splits.setdefault(record.group_key, set()).add(record.split)
    return [
        f"group '{group}' of {file.name} is in the splits {', '.join(sorted(found))}"
        for group, found in splits.items()
        if len(found) > 1
    ]


def contradictions(file: CheckedFile, shared: Collection[tuple[str, str]]) -> Iterator[dict[str, list[EmotionRecord]]]:
    """Labels -> their records, for records of one image or clip, box and label set with different labels.

    Only of the images (split, path) in `shared`.
    """
    found: dict[tuple[Any, ...], dict[str, list[EmotionRecord]]] = {}
    for record in file.records if shared else ():
        path, labels = image_path(file, record), ", ".join(sorted(labels_of(record)))
        if labels and (record.split, path) in shared:
            same = found.setdefault((record.split, path, record.box, record.clip, record.label_set), {})
            same.setdefault(labels, []).append(record)
    yield from (same for same in found.values() if len(same) > 1)


def shared_images(uses: Iterable[ImageUse]) -> set[tuple[str, str]]:
    """(split, path) of the images that several records with different labels use."""
    return {(use.split, use.path) for use in uses if len(use.ids) > 1 and len(use.labels) > 1}


def box_faults(file: CheckedFile, facts: Mapping[str, ImageFacts]) -> Iterator[tuple[EmotionRecord, str]]:
    """Every record whose box does not fit its image, and what is wrong with the box."""
    for record in file.records:
        size_px = facts[image_path(file, record)].size_px if record.box is not None else None
        if record.box is not None and size_px is not None and (fault := _box_fault(record.box, size_px)) is not None:
            yield record, f"({', '.join(f'{corner:g}' for corner in record.box)}) {fault}"


def _box_fault(box: tuple[float, float, float, float], size_px: tuple[int, int]) -> str | None:
    left, top, right, bottom = box
    outside_px = max(-left, -top, right - size_px[0], bottom - size_px[1])
    if outside_px > _BOX_TOLERANCE_PX:
        return f"reaches outside the image of {size_px[0]} x {size_px[1]} pixels"
    if max(box) <= 1:
        return "looks like fractions of the image, but boxes are in pixels"
    return "is smaller than a pixel" if min(right - left, bottom - top) < 1 else None
