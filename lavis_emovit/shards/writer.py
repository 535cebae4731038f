"""Records and their pictures into webdataset tar shards with an index; a shard has its final name only when whole.

Members of a sample are `<key>.<jpg|png|...>` and `<key>.json`, the record, side by side. Headers carry no time and no
user, and the samples' order comes from a hash of seed and id, so the same input gives the same bytes whatever the order
in which it arrives.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.files import TEMPORARY_SUFFIX, atomic_writer
from lavis_emovit.records import INSTRUCTION_KINDS, EmotionRecord
from lavis_emovit.shards.images import BadImageError, check_image
from lavis_emovit.shards.index import INDEX_NAME, NO_LABEL, PAIR_COLUMNS, SAMPLE_COLUMNS, ShardIndex, ShardInfo
from lavis_emovit.shards.tar import RECORD_SUFFIX, Member, pair_members, scan_tar

SHARD_NAME = "shard-{number:06d}.tar"
_OUR_FILES = re.compile(r"^\.?shard-\d{6}\.tar(\..*)?$")
_PLAIN_KEY = re.compile(r"^[a-z0-9_-]+(/[a-z0-9_-]+)*$")
_MAX_KEY_LENGTH = 90  # a tar header's name field holds 100 bytes

Progress = Callable[[int, int], None]


@dataclass
class _Draft:
    """The index of the shards written so far."""

    labels: list[str]
    shards: list[ShardInfo] = field(default_factory=list)
    columns: dict[str, list[int]] = field(default_factory=lambda: {n: [] for n in (*SAMPLE_COLUMNS, *PAIR_COLUMNS)})

    def add_sample(self, image: Member, record_member: Member, record: EmotionRecord, crc32: int) -> None:
        """Append one sample to the columns."""
        values = {
            "image_offset": image.offset,
            "image_bytes": image.size_bytes,
            "record_offset": record_member.offset,
            "record_bytes": record_member.size_bytes,
            "crc32": crc32,
            "label": NO_LABEL if record.emotion is None else self.labels.index(record.emotion),
            "num_pairs": len(record.instructions),
        }
        for name, value in values.items():
            self.columns[name].append(value)
        for instruction in record.instructions:
            self.columns["pair_kind"].append(INSTRUCTION_KINDS.index(instruction.kind))
            self.columns["pair_chars"].append(len(instruction.question) + len(instruction.answer))


def sample_key(record_id: str) -> str:
    """The member name of a record: its id where that is plain, else a plain form of it with a hash of the id.

    Plain is lower case ASCII without dots: webdataset cuts a name at its first dot, and some file systems don't tell
    upper from lower case.
    """
    if _PLAIN_KEY.match(record_id) and len(record_id) <= _MAX_KEY_LENGTH:
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
    max_reported: int = 20,
    progress: Progress | None = None,
) -> ShardIndex:
    """Write records with their pictures as shuffled shards.

    Args:
        records: what to write; ids must be unique.
        image_root: the folder that the records' image paths start from.
        out_dir: folder for the shards and their `index.json`, which is written last.
        samples_per_shard: samples in each shard but the last.
        seed: seed of the order in which samples are laid down.
        skip_bad: leave samples with a missing or damaged picture out, and list them in the index under
            `build.skipped`; otherwise any such sample refuses the whole build.
        overwrite: replace a finished set of shards in `out_dir`.
        max_reported: how many bad pictures the error message names.
        progress: called with (samples done, samples in all).

    Returns:
        the index.

    Raises:
        DataError: no records, ids that repeat, shards there already, or bad pictures (all of them are counted).
    """
    if samples_per_shard < 1:
        raise DataError(f"samples_per_shard must be at least 1, got {samples_per_shard}")
    out_dir, image_root = Path(out_dir), Path(image_root)
    ordered = _shuffled(records, seed)
    _clear(out_dir, overwrite)
    bad: list[tuple[str, str]] = []
    draft = _Draft(sorted({record.emotion for record in ordered if record.emotion is not None}))
    batch: list[tuple[EmotionRecord, str, bytes]] = []
    for done, record in enumerate(ordered, start=1):
        try:
            batch.append((record, *_read_image(image_root, record)))
        except BadImageError as error:
            bad.append((record.id, str(error)))
        if bad and not skip_bad:
            batch.clear()  # nothing more is written; the rest is only checked, to name all faults at once
        elif len(batch) == samples_per_shard:
            _write_shard(out_dir, batch, draft)
            batch.clear()
        if progress is not None:
            progress(done, len(ordered))
    if bad and not skip_bad:
        _clear(out_dir, overwrite=True)
        raise DataError(_bad_text(image_root, bad, len(ordered), max_reported))
    if batch:
        _write_shard(out_dir, batch, draft)
    if not draft.shards:
        raise DataError(f"{image_root}: none of the {len(ordered)} pictures can be used, there is nothing to write")
    index = ShardIndex(
        out_dir,
        draft.shards,
        {name: np.asarray(values, dtype=np.int64) for name, values in draft.columns.items()},
        labels=draft.labels,
        kinds=INSTRUCTION_KINDS,
        label_sets=sorted({record.label_set for record in ordered if record.label_set is not None}),
        build={
            "seed": seed,
            "samples_per_shard": samples_per_shard,
            "skipped": [{"id": record_id, "reason": reason} for record_id, reason in bad],
        },
    )
    index.save()
    return index


def _shuffled(records: Iterable[EmotionRecord], seed: int) -> list[EmotionRecord]:
    """By the hash of seed and id: the same order whatever the order of the input."""
    by_rank: dict[bytes, EmotionRecord] = {}
    for record in records:
        rank = hashlib.sha256(f"{seed}/{record.id}".encode()).digest()
        if rank in by_rank:
            raise DataError(f"two records have the id '{record.id}'; ids must be unique. Rename one of them.")
        by_rank[rank] = record
    if not by_rank:
        raise DataError("there are no records to write; is the split name right?")
    return [by_rank[rank] for rank in sorted(by_rank)]


def _clear(out_dir: Path, overwrite: bool) -> None:
    """Remove what an unfinished build, or the one to be replaced, left; other files are not touched."""
    index_path = out_dir / INDEX_NAME
    if index_path.exists() and not overwrite:
        raise DataError(f"{out_dir}: holds finished shards already. Take another folder, or say `--overwrite`.")
    out_dir.mkdir(parents=True, exist_ok=True)
    # The index goes first: without it the folder counts as unfinished at every moment from here on.
    index_path.unlink(missing_ok=True)
    for path in out_dir.iterdir():
        leftover = path.name.startswith(f".{INDEX_NAME}.") and path.name.endswith(TEMPORARY_SUFFIX)
        if leftover or _OUR_FILES.match(path.name):
            path.unlink()


def _read_image(image_root: Path, record: EmotionRecord) -> tuple[str, bytes]:
    """(suffix, bytes) of a record's picture."""
    try:
        data = (image_root / record.image).read_bytes()
    except OSError as error:
        raise BadImageError(f"cannot be read ({error.strerror}): {record.image}") from None
    try:
        return check_image(data), data
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


def _write_shard(out_dir: Path, batch: list[tuple[EmotionRecord, str, bytes]], draft: _Draft) -> None:
    # webdataset loads torch when imported, which nothing else in this module needs.
    from webdataset import TarWriter

    name = SHARD_NAME.format(number=len(draft.shards))
    samples: dict[str, tuple[EmotionRecord, int]] = {}
    with atomic_writer(out_dir / name, "wb") as file:
        hashing = _HashingFile(file)
        with TarWriter(hashing, encoder=False, user="emovit", group="emovit", mtime=0) as tar:
            for record, suffix, image_bytes in batch:
                key, record_bytes = sample_key(record.id), record.to_json().encode("utf-8")
                if key in samples:
                    raise DataError(f"ids '{record.id}' and '{samples[key][0].id}' give one member name '{key}'")
                samples[key] = (record, zlib.crc32(record_bytes, zlib.crc32(image_bytes)))
                tar.write({"__key__": key, suffix: image_bytes, RECORD_SUFFIX: record_bytes})
    # Offsets are taken from the finished file, as any reader sees it, rather than computed beside the writer.
    members = pair_members(out_dir / name, scan_tar(out_dir / name))
    for (image, record_member), (record, crc32) in zip(members, samples.values(), strict=True):
        draft.add_sample(image, record_member, record, crc32)
    histogram = Counter(record.emotion for record, _ in samples.values() if record.emotion is not None)
    draft.shards.append(
        ShardInfo(
            name=name,
            num_samples=len(batch),
            num_pairs=sum(len(record.instructions) for record, _ in samples.values()),
            size_bytes=hashing.size_bytes,
            sha256=hashing.digest.hexdigest(),
            label_histogram=dict(sorted(histogram.items())),
        )
    )


def _bad_text(image_root: Path, bad: list[tuple[str, str]], num_records: int, max_reported: int) -> str:
    lines = "\n".join(f"  - {record_id}: {reason}" for record_id, reason in bad[:max_reported])
    more = f"\n  ... and {len(bad) - max_reported} more" if len(bad) > max_reported else ""
    return (
        f"{image_root}: {len(bad)} of {num_records} pictures cannot be used:\n{lines}{more}\n"
        "Replace these files, or leave the samples out with `--skip-bad` (`skip_bad: true` in a dataset's `prepare`)."
    )
