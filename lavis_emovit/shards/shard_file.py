"""One shard: pictures and records of its slot into one tar file, and what the index must know about it.

A finished shard leaves a note in the build's hidden folder: of what it was made and what it holds. A build that was
killed reads the notes and goes on after them; a shard whose records, settings or pictures changed since is made anew.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lavis_emovit.files import atomic_writer, file_sha256
from lavis_emovit.records import INSTRUCTION_KINDS, EmotionRecord
from lavis_emovit.shards.columns import NO_LABEL, PAIR_COLUMNS, SAMPLE_COLUMNS
from lavis_emovit.shards.images import BadImageError, check_image, shrink_image
from lavis_emovit.shards.index import ShardInfo
from lavis_emovit.shards.tar import RECORD_SUFFIX, Member, pair_members, scan_tar

SHARD_NAME = "shard-{number:06d}.tar"
WORK_FOLDER = ".build"
NOT_FOUND = f"cannot be read ({os.strerror(errno.ENOENT)})"
# Counted up when the same input would give other bytes than before.
WRITER_VERSION = 2


@dataclass(frozen=True)
class ShardJob:
    """What makes one shard.

    Attributes:
        number: of the slot, from which its name comes.
        records: JSON lines of the records, in the order in which they are laid down.
        keys: member names of the records.
        image_root, out_dir: folders.
        labels: all labels of the set; a sample's label is its number here.
        resize_px: shrink pictures whose shorter side is longer than that; None keeps all bytes as they are.
    """

    number: int
    records: tuple[str, ...]
    keys: tuple[str, ...]
    image_root: str
    out_dir: str
    labels: tuple[str, ...]
    resize_px: int | None

    @property
    def path(self) -> Path:
        """Where the shard will lie."""
        return Path(self.out_dir, SHARD_NAME.format(number=self.number))

    @property
    def note_path(self) -> Path:
        """Where the finished shard leaves its note."""
        return Path(self.out_dir, WORK_FOLDER, f"{self.path.stem}.json")

    @property
    def plan_hash(self) -> str:
        """sha256 over everything that decides the shard's bytes, save the pictures."""
        plan: list[Any] = [WRITER_VERSION, self.number, self.records, self.keys, self.labels, self.resize_px]
        if self.resize_px is not None:
            plan.append(_pillow_version())
        return hashlib.sha256(json.dumps(plan).encode()).hexdigest()


@dataclass
class ShardDraft:
    """What the index must know about one shard; `shard` is None where no picture of the slot can be used."""

    shard: ShardInfo | None = None
    columns: dict[str, list[int]] = field(default_factory=lambda: {n: [] for n in (*SAMPLE_COLUMNS, *PAIR_COLUMNS)})
    bad: list[tuple[str, str]] = field(default_factory=list)

    def add_sample(
        self, image: Member, record_member: Member, record: EmotionRecord, crc32: int, labels: tuple[str, ...]
    ) -> None:
        """Append one sample to the columns."""
        values = {
            "image_offset": image.offset,
            "image_bytes": image.size_bytes,
            "record_offset": record_member.offset,
            "record_bytes": record_member.size_bytes,
            "crc32": crc32,
            "label": NO_LABEL if record.emotion is None else labels.index(record.emotion),
            "num_pairs": len(record.instructions),
        }
        for name, value in values.items():
            self.columns[name].append(value)
        for instruction in record.instructions:
            self.columns["pair_kind"].append(INSTRUCTION_KINDS.index(instruction.kind))
            self.columns["pair_chars"].append(len(instruction.question) + len(instruction.answer))


def build_shard(job: ShardJob, on_sample: Callable[[], None] | None = None) -> ShardDraft:
    """Make a shard, or take the one that an earlier build finished.

    Args:
        on_sample: called after each record.
    """
    pictures = _pictures_hash(job)
    draft = _finished(job, pictures)
    if draft is not None:
        for _ in job.records if on_sample is not None else ():
            on_sample()  # type: ignore[misc]
        return draft
    draft = _write(job, on_sample)
    if _pictures_hash(job) != pictures:
        return draft  # somebody changed them meanwhile: a later build must look again
    note = {"plan": job.plan_hash, "pictures": pictures, **asdict(draft)}
    with atomic_writer(job.note_path) as file:
        json.dump(note, file)
    return draft


def _finished(job: ShardJob, pictures: str) -> ShardDraft | None:
    """What an earlier build noted, if that shard is the one that would be made now."""
    try:
        note = json.loads(job.note_path.read_text(encoding="utf-8"))
        if note["plan"] != job.plan_hash or note["pictures"] != pictures:
            return None
        bad = [(record_id, reason) for record_id, reason in note["bad"]]
        if note["shard"] is None:
            return ShardDraft(None, note["columns"], bad)
        shard = ShardInfo(**note["shard"])
        if job.path.stat().st_size != shard.size_bytes or file_sha256(job.path) != shard.sha256:
            return None
        return ShardDraft(shard, note["columns"], bad)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no note, or one that cannot be trusted: the shard is made anew


def _pictures_hash(job: ShardJob) -> str:
    """Over names, sizes and times of the pictures: changes when one is replaced."""
    digest = hashlib.sha256()
    for line in job.records:
        name = json.loads(line)["image"]
        try:
            status = Path(job.image_root, name).stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{name}\0missing\n".encode())
    return digest.hexdigest()


def _write(job: ShardJob, on_sample: Callable[[], None] | None) -> ShardDraft:
    # webdataset loads torch when imported, which nothing else in this module needs.
    from webdataset import TarWriter

    draft = ShardDraft()
    written: list[tuple[EmotionRecord, int]] = []
    try:
        with atomic_writer(job.path, "wb") as file:
            hashing = _HashingFile(file)
            with TarWriter(hashing, encoder=False, user="emovit", group="emovit", mtime=0) as tar:
                for line, key in zip(job.records, job.keys):
                    record = EmotionRecord.model_validate_json(line)
                    try:
                        suffix, image_bytes = _read_image(job, record)
                    except BadImageError as error:
                        draft.bad.append((record.id, str(error)))
                    else:
                        record_bytes = line.encode("utf-8")
                        tar.write({"__key__": key, suffix: image_bytes, RECORD_SUFFIX: record_bytes})
                        written.append((record, zlib.crc32(record_bytes, zlib.crc32(image_bytes))))
                    if on_sample is not None:
                        on_sample()
            if not written:
                raise _NothingToWriteError
    except _NothingToWriteError:
        job.path.unlink(missing_ok=True)
        return draft
    # Offsets are taken from the finished file, as any reader sees it, rather than computed beside the writer.
    members = pair_members(job.path, scan_tar(job.path))
    for (image, record_member), (record, crc32) in zip(members, written, strict=True):
        draft.add_sample(image, record_member, record, crc32, job.labels)
    histogram = Counter(record.emotion for record, _ in written if record.emotion is not None)
    draft.shard = ShardInfo(
        name=job.path.name,
        num_samples=len(written),
        num_pairs=sum(len(record.instructions) for record, _ in written),
        size_bytes=hashing.size_bytes,
        sha256=hashing.digest.hexdigest(),
        label_histogram=dict(sorted(histogram.items())),
    )
    return draft


class _NothingToWriteError(Exception):
    """Keeps a shard without samples from appearing under its name."""


def _read_image(job: ShardJob, record: EmotionRecord) -> tuple[str, bytes]:
    """(suffix, bytes) of a record's picture."""
    try:
        data = Path(job.image_root, record.image).read_bytes()
    except OSError as error:
        raise BadImageError(f"cannot be read ({error.strerror}): {record.image}") from None
    try:
        suffix = check_image(data)
        return suffix, data if job.resize_px is None else shrink_image(data, job.resize_px)
    except BadImageError as error:
        raise BadImageError(f"{record.image}: {error}") from None


class _HashingFile(io.RawIOBase):
    """Passes writes on to a file and keeps their sha256."""

    def __init__(self, file: Any):
        self.file = file
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size_bytes += len(data)
        return self.file.write(data)


def _pillow_version() -> str:
    from PIL import Image, features

    return f"{Image.__version__} {features.version('jpg')} {os.name}"
