"""Writes records with their images as webdataset tar shards with an index.

The members of a sample are `<key>.<jpg|png|...>` and `<key>.json`, the record, side by side. Headers contain no time
and no user, the sample order comes from a hash of seed and id, and the samples of each shard are determined before the
first is read. So the same input gives the same bytes, whatever its order, the number of processes and machines, and the
interruptions of the build.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lavis_emovit.clips.clip import FrameSettings
from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.files import TEMPORARY_SUFFIX, read_file
from lavis_emovit.records import INSTRUCTION_KINDS, EmotionRecord
from lavis_emovit.shards.columns import COLUMNS_NAME, INDEX_NAME, join_columns
from lavis_emovit.shards.images import RESIZE_JPEG_QUALITY
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.pool import run_all
from lavis_emovit.shards.reader import SCALED_BOXES, ShardReader, ShardSample
from lavis_emovit.shards.shard_file import (
    NOT_FOUND,
    WORK_FOLDER,
    ShardDraft,
    ShardJob,
    build_shard,
    scale_between,
    scaled,
)

PART_FOLDER = "part-{number:04d}-of-{count:04d}"
_OUR_FILES = re.compile(r"^\.?shard-\d{6}\.tar(\..*)?$")
_PLAIN_KEY = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)*")
_MAX_REPORTED = 20
_MAX_KEY_LENGTH = 90  # a tar header's name field holds 100 bytes

Progress = Callable[[int, int], None]
Part = tuple[int, int]  # (number from 1, how many)


def sample_key(record_id: str) -> str:
    """The member name of a record: its id if that is plain, else a plain form of it with a hash of the id.

    Plain means lower case ASCII without dots: webdataset splits a name at its first dot, and some file systems ignore
    case.
    """
    if _PLAIN_KEY.fullmatch(record_id) and len(record_id) <= _MAX_KEY_LENGTH:
        return record_id
    parts = [re.sub(r"[^a-z0-9_-]+", "_", part) for part in record_id.lower().split("/")]
    plain = "/".join(part for part in parts if part)[: _MAX_KEY_LENGTH - 13].rstrip("/")
    return f"{plain}-{hashlib.sha256(record_id.encode()).hexdigest()[:12]}"


def write_shards(
    records: Iterable[EmotionRecord],
    image_root: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    samples_per_shard: int = 1000,
    seed: int = 0,
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    processes: int = 1,
    resize_px: int | None = None,
    part: Part | None = None,
    frames: FrameSettings | None = None,
) -> ShardIndex:
    """Write records with their images or clips as shuffled shards, and their index last.

    An interrupted build resumes when it is called again with the same input, and ends with the same bytes.

    Args:
        samples_per_shard: records in each shard but the last; skipped images leave their shard smaller.
        skip_bad: skip samples with a missing or damaged image and list them in the index under `build.skipped`.
            Otherwise any such sample refuses the whole build.
        progress: called with (samples done, number of samples).
        processes: with more than one, a calling script must keep its own work under `if __name__ == "__main__"`.
        resize_px: shrink images whose shorter side is longer; None: keep the images' own bytes.
        part: (i, n) builds only the i-th of n parts, into `out_dir/part-000i-of-000n`; `merge_parts` joins them.
        frames: which frames of clips to store, as images; None: the video files themselves, or all image files.

    Raises:
        DataError: no records, duplicate ids, a missing `image_root`, an `out_dir` that cannot be created or already has
            shards, bad images (all are counted), another build running in `out_dir`, or a process was killed.
    """
    for name, value, least in (
        ("samples_per_shard", samples_per_shard, 1),
        ("processes", processes, 1),
        ("resize_px", 8 if resize_px is None else resize_px, 8),
    ):
        if value < least:
            raise DataError(f"{name} must be at least {least}, got {value}")
    out_dir, image_root = Path(out_dir), Path(image_root)
    if not image_root.is_dir():
        raise DataError(f"{image_root}: no such folder; pass the folder of the images with `--images`")
    if part is not None:
        if not 1 <= part[0] <= part[1] <= 9999:
            raise DataError(f"part {part[0]}/{part[1]}: parts are numbered 1/n to n/n, with n at most 9999")
        out_dir = out_dir / PART_FOLDER.format(number=part[0], count=part[1])
    ordered = _shuffled(records, seed)
    jobs = _jobs(ordered, image_root, out_dir, samples_per_shard, resize_px, frames)
    build = _settings(seed, samples_per_shard, resize_px, frames, has_boxes=ordered.has_boxes)
    if part is not None:
        plan = hashlib.sha256("".join(job.plan_hash for job in jobs).encode()).hexdigest()
        build["part"] = {"number": part[0], "count": part[1], "plan": plan}
        jobs = jobs[part[0] - 1 :: part[1]]
    with _sole_build(out_dir, overwrite):
        _remove_strays(out_dir, jobs)
        drafts = _build_all(jobs, processes, progress)
        bad = [item for draft in drafts for item in draft.bad]
        if bad and not skip_bad:
            raise DataError(_bad_text(image_root, bad, sum(len(job.records) for job in jobs)))
        shards = [draft.shard for draft in drafts if draft.shard is not None]
        if not shards and part is None:
            raise DataError(
                f"{image_root}: none of the {len(ordered.ids)} images can be used, there is nothing to write"
            )
        build["skipped"] = [{"id": record_id, "reason": reason} for record_id, reason in bad]
        index = ShardIndex(
            out_dir,
            shards,
            join_columns([draft.columns for draft in drafts]),
            labels=ordered.labels,
            kinds=INSTRUCTION_KINDS,
            label_sets=ordered.label_sets,
            build=build,
        )
        index.save()
    shutil.rmtree(out_dir / WORK_FOLDER, ignore_errors=True)
    return index


def sample_rank(seed: int, record_id: str) -> bytes:
    """The sort key of a set's samples: a hash, the same on every machine."""
    return hashlib.sha256(f"{seed}/{record_id}".encode()).digest()


@dataclass(frozen=True)
class _Ordered:
    """All records as lines of JSON, sorted by the hash of seed and id, independent of the input order."""

    ids: list[str]
    lines: list[str]
    labels: list[str]
    label_sets: list[str]
    has_boxes: bool


def _shuffled(records: Iterable[EmotionRecord], seed: int) -> _Ordered:
    by_rank: dict[bytes, tuple[str, str]] = {}
    labels: set[str] = set()
    label_sets: set[str] = set()
    has_boxes = False
    for record in records:
        rank = sample_rank(seed, record.id)
        if rank in by_rank:
            raise DataError(f"two records have the id '{record.id}'; ids must be unique. Rename one of them.")
        by_rank[rank] = record.id, record.to_json()
        labels.update([record.emotion] if record.emotion is not None else [])
        label_sets.update([record.label_set] if record.label_set is not None else [])
        has_boxes = has_boxes or record.box is not None
    if not by_rank:
        raise DataError("there are no records to write; check the name of the split")
    ids, lines = zip(*(by_rank[rank] for rank in sorted(by_rank)))
    return _Ordered(list(ids), list(lines), sorted(labels), sorted(label_sets), has_boxes)


def _jobs(
    ordered: _Ordered,
    image_root: Path,
    out_dir: Path,
    samples_per_shard: int,
    resize_px: int | None,
    frames: FrameSettings | None,
) -> list[ShardJob]:
    keys: dict[str, str] = {}
    for record_id in ordered.ids:
        key = sample_key(record_id)
        first = keys.setdefault(key, record_id)
        if first != record_id:
            raise DataError(f"ids '{record_id}' and '{first}' give the same member name '{key}'")
    names = list(keys)
    return [
        ShardJob(
            number=start // samples_per_shard,
            records=tuple(ordered.lines[start : start + samples_per_shard]),
            keys=tuple(names[start : start + samples_per_shard]),
            image_root=str(image_root),
            out_dir=str(out_dir),
            labels=tuple(ordered.labels),
            resize_px=resize_px,
            frames=frames,
        )
        for start in range(0, len(names), samples_per_shard)
    ]


def _settings(
    seed: int, samples_per_shard: int, resize_px: int | None, frames: FrameSettings | None, *, has_boxes: bool
) -> dict[str, Any]:
    resize: dict[str, Any] | None = None
    if resize_px is not None:
        resize = {"short_side_px": resize_px, "jpeg_quality": RESIZE_JPEG_QUALITY}
        # Only with boxes, so that the index of other records keeps its hash.
        resize |= {SCALED_BOXES: True} if has_boxes else {}
    build = {"seed": seed, "samples_per_shard": samples_per_shard, "skipped": [], "resize": resize}
    # Only with clips, so that the index of images keeps its hash, which determines the order of samples.
    return build if frames is None else {**build, "frames": frames.model_dump()}


def is_built(
    records: Iterable[EmotionRecord],
    image_root: Path,
    out_dir: Path,
    seed: int,
    samples_per_shard: int,
    resize: int | None,
    frames: FrameSettings | None = None,
) -> bool:
    """Whether a folder has the finished shards of these records and settings, and no image changed afterwards."""
    if not (out_dir / INDEX_NAME).is_file():
        return False
    index = ShardIndex.load(out_dir)
    ordered = _shuffled(records, seed)
    settings = _settings(seed, samples_per_shard, resize, frames, has_boxes=ordered.has_boxes)
    if {**index.build, "skipped": []} != settings:
        return False
    skipped = {item["id"] for item in index.build["skipped"]}
    lines = [line for record_id, line in zip(ordered.ids, ordered.lines) if record_id not in skipped]
    if index.num_samples != len(lines):
        return False
    written_ns = (out_dir / INDEX_NAME).stat().st_mtime_ns
    reader = ShardReader(index)
    try:
        return all(
            _is_stored(reader.read(number), line, image_root, written_ns, is_shrunk=resize is not None)
            for number, line in enumerate(lines)
        )
    except (OSError, DataError):
        return False
    finally:
        reader.close()


def _is_stored(sample: ShardSample, line: str, image_root: Path, written_ns: int, *, is_shrunk: bool) -> bool:
    """Whether a sample is that of a record, as JSON, whose images are older; OSError or DataError without an image."""
    stored = sample.record
    if any((image_root / path).stat().st_mtime_ns >= written_ns for path in stored.paths):
        return False
    if is_shrunk and stored.box is not None and stored.clip is None:
        record = EmotionRecord.model_validate_json(line)
        line = scaled(record, scale_between(read_file(image_root / stored.image), sample.image_bytes)).to_json()
    return stored.to_json() == line


@contextmanager
def _sole_build(out_dir: Path, overwrite: bool) -> Iterator[None]:
    """Lock the folder for this build; with `overwrite`, first remove the index of a finished set in it."""
    refuse_finished(out_dir, overwrite)
    work = out_dir / WORK_FOLDER
    make_folder(work, out_dir)
    lock = FileLock(work / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(f"{out_dir}: another build is running there. Wait for it, or use another folder.") from None
    try:
        refuse_finished(out_dir, overwrite)
        if (out_dir / INDEX_NAME).exists():
            # Remove the index first: from here on the folder counts as unfinished.
            (out_dir / INDEX_NAME).unlink()
            for path in work.glob("*.json"):
                path.unlink()
        yield
    finally:
        lock.release()


def make_folder(path: Path, named: Path) -> None:
    """Create a folder; an error names `named`, the folder that the user specified."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        in_the_way = next((place for place in (named, *named.parents) if place.exists() and not place.is_dir()), None)
        why = f"{in_the_way} is a file" if in_the_way is not None else error.strerror
        raise DataError(f"{named}: cannot be a folder for shards, because {why}; use another `--out`") from None


def refuse_finished(out_dir: Path, overwrite: bool) -> None:
    if (out_dir / INDEX_NAME).exists() and not overwrite:
        raise DataError(f"{out_dir}: already contains finished shards. Use another folder, or pass `--overwrite`.")


def remove_shards(folder: Path) -> None:
    """Remove a set of shards from its folder, the index first, and nothing else."""
    (folder / INDEX_NAME).unlink(missing_ok=True)
    _remove_strays(folder, ())
    shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _remove_strays(out_dir: Path, jobs: Sequence[ShardJob]) -> None:
    """Remove partial files and shards that are not part of this build, and nothing else."""
    wanted = {job.path.name for job in jobs}
    for path in out_dir.iterdir():
        leftover = path.name.endswith(TEMPORARY_SUFFIX) and path.name.startswith(
            (f".{INDEX_NAME}.", f".{COLUMNS_NAME}.")
        )
        if leftover or path.name == COLUMNS_NAME or (_OUR_FILES.match(path.name) and path.name not in wanted):
            path.unlink()


def _build_all(jobs: Sequence[ShardJob], processes: int, progress: Progress | None) -> list[ShardDraft]:
    """All shards, in the order of the jobs."""
    total = sum(len(job.records) for job in jobs)
    done = 0

    def count(number: int = 1) -> None:
        nonlocal done
        done += number
        if progress is not None:
            progress(done, total)

    if processes == 1 or len(jobs) < 2:
        return [build_shard(job, count) for job in jobs]
    return run_all(build_shard, jobs, processes, lambda job: count(len(job.records)))


def _bad_text(image_root: Path, bad: list[tuple[str, str]], num_records: int) -> str:
    if len(bad) == num_records and all(reason.startswith(NOT_FOUND) for _, reason in bad):
        first = bad[0][1].removeprefix(f"{NOT_FOUND}: ")
        return f"{image_root}: contains none of the {num_records} images ({first}, ...); pass another with `--images`"
    lines = [f"{record_id}: {reason}" for record_id, reason in bad]
    return (
        f"{image_root}: {len(bad)} of {num_records} images cannot be used:\n{bullet_list(lines, _MAX_REPORTED)}\n"
        "Replace these files, or skip the samples with `--skip-bad` (`skip_bad: true` in a dataset's `prepare`). "
        "Sound shards are kept: the next build reuses them."
    )
