"""Builds one shard: writes images and records of its slot into a tar file and collects its part of the index.

A finished shard leaves a note in the build's hidden folder: its inputs and its contents. An interrupted build reads the
notes and resumes after them. A shard whose records, settings or images changed since is built again.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lavis_emovit.boxes import part_of
from lavis_emovit.clips.clip import FrameSettings
from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer, file_sha256, load_json, read_file
from lavis_emovit.images import image_size_px
from lavis_emovit.own_files import Written, parse_as
from lavis_emovit.records import EmotionRecord
from lavis_emovit.shards.clips import pack_clip
from lavis_emovit.shards.columns import NO_LABEL, append_sample, empty_columns, sample_crc32
from lavis_emovit.shards.images import BadImageError, check_image, shrink_image
from lavis_emovit.shards.index import ShardInfo
from lavis_emovit.shards.tar import RECORD_SUFFIX, pair_members, scan_tar

SHARD_NAME = "shard-{number:06d}.tar"
WORK_FOLDER = ".build"
NOT_FOUND = f"cannot be read ({os.strerror(errno.ENOENT)})"
# Increase it when the same input gives different bytes than before.
WRITER_VERSION = 3


@dataclass(frozen=True)
class ShardJob:
    """The inputs of one shard."""

    number: int  # of the slot; determines the shard's name
    records: tuple[str, ...]  # JSON lines of the records, in the order in which they are written
    keys: tuple[str, ...]  # member names of the records
    # image_root, out_dir: folders.
    image_root: str
    out_dir: str
    labels: tuple[str, ...]  # all labels of the set; a sample's label is stored as its position here
    resize_px: int | None  # shrink images whose shorter side is longer; None: keep all bytes unchanged
    frames: FrameSettings | None = None  # which frames of clips to store; None: all of each clip

    @property
    def path(self) -> Path:
        return Path(self.out_dir, SHARD_NAME.format(number=self.number))

    @property
    def note_path(self) -> Path:
        return Path(self.out_dir, WORK_FOLDER, f"{self.path.stem}.json")

    @property
    def plan_hash(self) -> str:
        """sha256 over everything that determines the shard's bytes, except the images."""
        plan: list[Any] = [WRITER_VERSION, self.number, self.records, self.keys, self.labels, self.resize_px]
        if self.resize_px is not None:
            from PIL import Image, features

            plan.append(f"{Image.__version__} {features.version('jpg')} {os.name}")
        if self.frames is not None:
            plan.append(self.frames.model_dump())
        return hashlib.sha256(json.dumps(plan).encode()).hexdigest()


@dataclass
class ShardDraft:
    """One shard's part of the index; `shard` is None if no image of the slot can be used."""

    shard: ShardInfo | None = None
    columns: dict[str, list[int]] = field(default_factory=empty_columns)
    bad: list[tuple[str, str]] = field(default_factory=list)


class _Note(Written):
    """What is kept about a finished shard until all are."""

    plan: str
    pictures: str
    shard: ShardInfo | None
    columns: dict[str, list[int]]
    bad: list[tuple[str, str]]


def build_shard(job: ShardJob, on_sample: Callable[[], None] = lambda: None) -> ShardDraft:
    """Build a shard, or reuse the one that an earlier build finished; `on_sample` is called after each record."""
    images = _images_hash(job)
    draft = _finished(job, images)
    if draft is not None:
        for _ in job.records:
            on_sample()
        return draft
    draft = _write(job, on_sample)
    if _images_hash(job) != images:
        return draft  # the images changed in the meantime: a later build must check again
    # The key `pictures` belongs to the format of the notes.
    note = {"plan": job.plan_hash, "pictures": images, **asdict(draft)}
    with atomic_writer(job.note_path) as file:
        json.dump(note, file)
    return draft


def _finished(job: ShardJob, images: str) -> ShardDraft | None:
    """The note of an earlier build, if its shard is the one that would be built now."""
    try:
        note = parse_as(read_file(job.note_path), _Note)
        is_same = note.plan == job.plan_hash and note.pictures == images
        is_there = note.shard is None or (is_same and note.shard.is_at(job.path))
    except (OSError, ValueError):
        return None  # no usable note: build the shard again
    return ShardDraft(note.shard, note.columns, note.bad) if is_same and is_there else None


def _images_hash(job: ShardJob) -> str:
    """Hash over names, sizes and times of the images: changes when one is replaced."""
    digest = hashlib.sha256()
    for line in job.records:
        values = load_json(line)
        for name in values.get("clip", {}).get("frames") or [values["image"]]:
            try:
                status = Path(job.image_root, name).stat()
                digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
            except OSError:
                digest.update(f"{name}\0missing\n".encode())
    return digest.hexdigest()


def _write(job: ShardJob, on_sample: Callable[[], None]) -> ShardDraft:
    draft = ShardDraft()
    written: list[tuple[EmotionRecord, int]] = []
    with atomic_writer(job.path, "wb") as file, tarfile.open(fileobj=file, mode="w|") as tar:
        for line, key in zip(job.records, job.keys):
            record = EmotionRecord.model_validate_json(line)
            try:
                suffix, image_bytes, scale = _read_image(job, record)
            except BadImageError as error:
                draft.bad.append((record.id, str(error)))
            else:
                record_bytes = (line if scale == (1, 1) else scaled(record, scale).to_json()).encode("utf-8")
                for name, data in sorted({suffix: image_bytes, RECORD_SUFFIX: record_bytes}.items()):
                    tar.addfile(_header(f"{key}.{name}", data), io.BytesIO(data))
                written.append((record, sample_crc32(image_bytes, record_bytes)))
            on_sample()
    if not written:
        job.path.unlink()
        return draft
    # Offsets come from the finished file, as any reader finds them.
    members = pair_members(job.path, scan_tar(job.path))
    for (image, record_member), (record, crc32) in zip(members, written, strict=True):
        label = NO_LABEL if record.emotion is None else job.labels.index(record.emotion)
        append_sample(draft.columns, record, image.span, record_member.span, crc32, label)
    histogram = Counter(record.emotion for record, _ in written if record.emotion is not None)
    draft.shard = ShardInfo(
        name=job.path.name,
        num_samples=len(written),
        num_pairs=sum(len(record.instructions) for record, _ in written),
        size_bytes=job.path.stat().st_size,
        sha256=file_sha256(job.path),
        label_histogram=dict(sorted(histogram.items())),
    )
    return draft


def _header(name: str, data: bytes) -> tarfile.TarInfo:
    """As webdataset's writer makes it, which would import torch."""
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.uname, header.gname = len(data), 0o444, "emovit", "emovit"
    return header


def _read_image(job: ShardJob, record: EmotionRecord) -> tuple[str, bytes, tuple[float, float]]:
    """(suffix, bytes) of a record's image or clip; and if the record has a box, by which its pixels were scaled."""
    if record.clip is not None:
        if record.box is not None and job.resize_px is not None:
            raise BadImageError(f"{record.image}: a clip whose record has a box cannot be shrunk")
        return *pack_clip(Path(job.image_root), record, record.clip, job.frames, job.resize_px), (1, 1)
    try:
        data = read_file(Path(job.image_root, record.image))
    except OSError as error:
        raise BadImageError(f"cannot be read ({error.strerror}): {record.image}") from None
    try:
        suffix = check_image(data)
        small = data if job.resize_px is None else shrink_image(data, job.resize_px)
        if record.box is None:
            return suffix, small, (1, 1)
        part_of(record.box, image_size_px(data))
        return suffix, small, scale_between(data, small)
    except (BadImageError, DataError) as error:
        raise BadImageError(f"{record.image}: {error}") from None


def scale_between(data: bytes, small: bytes) -> tuple[float, float]:
    """By which width and height of an image were scaled; DataError if one of the two cannot be read."""
    (old_width, old_height), (width, height) = image_size_px(data), image_size_px(small)
    return width / old_width, height / old_height


def scaled(record: EmotionRecord, scale: tuple[float, float]) -> EmotionRecord:
    """The record with its box, if any, in pixels of an image that was scaled in width and height."""
    if record.box is None or scale == (1, 1):
        return record
    left, top, right, bottom = record.box
    return record.model_copy(update={"box": (left * scale[0], top * scale[1], right * scale[0], bottom * scale[1])})
