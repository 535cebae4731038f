"""Full check of a folder of shards against its index: every byte, member, record and image."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.files import file_sha256
from lavis_emovit.shards.clips import check_clip
from lavis_emovit.shards.columns import CARD_NAME, COLUMNS_NAME, INDEX_NAME
from lavis_emovit.shards.images import BadImageError, check_image
from lavis_emovit.shards.index import ShardIndex
from lavis_emovit.shards.pool import run_all
from lavis_emovit.shards.reader import ShardReader
from lavis_emovit.shards.tar import pair_members, scan_tar

_MAX_REPORTED = 20


@dataclass
class VerifyReport:
    """The result of a check. `problems` is empty for a sound folder; `strays` are files that belong to no shard."""

    folder: Path
    num_shards: int = 0
    num_samples: int = 0
    problems: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def raise_if_bad(self) -> None:
        if self.problems:
            raise DataError(
                f"{self.folder}: {len(self.problems)} problem(s) in the shards:\n"
                f"{bullet_list(self.problems, _MAX_REPORTED)}\n"
                "Restore these shards from a backup, or build them again with `emovit shards build`."
            )


def verify_shards(
    folder: str | os.PathLike[str],
    *,
    decode_images: bool = True,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Compare shards, on this machine or at a URL, with their index. DataError without a usable index.

    Faults of shards are in the report. `progress` is called with (shards done, number of shards).
    """
    index = ShardIndex.load(folder)
    report = VerifyReport(index.folder, len(index.shards), index.num_samples)
    if index.cache is None:
        own = {*(shard.name for shard in index.shards), INDEX_NAME, COLUMNS_NAME, CARD_NAME, index.records_name}
        report.strays = sorted(item.name for item in index.folder.iterdir() if item.name not in own)
        if index.records_name is not None:
            report.problems += _records_problems(index)
    done = 0

    def count(job: range) -> None:
        nonlocal done
        done += len(job)
        if progress is not None:
            progress(done, len(index.shards))

    # Every job carries the index, so a job is several shards.
    size = max(1, -(-len(index.shards) // (processes * 8)))
    jobs = [range(len(index.shards))[first : first + size] for first in range(0, len(index.shards), size)]
    ids: dict[str, str] = {}
    for problems, places in run_all(partial(_verify, index, decode_images), jobs, processes, count):
        report.problems += problems
        for record_id, place in places:
            first_place = ids.setdefault(record_id, place)
            if first_place != place:
                report.problems.append(f"{place}: id '{record_id}' is already used by {first_place}")
    return report


def _verify(index: ShardIndex, decode_images: bool, shards: range) -> tuple[list[str], list[tuple[str, str]]]:
    """The problems of some shards, and (id, place) of their samples."""
    problems: list[str] = []
    places: list[tuple[str, str]] = []
    # Without `check_files`: each shard is checked just before it is read, and a broken one must not stop the others.
    reader = ShardReader(index, check_files=False, max_open=1)
    starts = index.sample_starts
    for number in shards:
        samples = range(int(starts[number]), int(starts[number + 1]))
        try:
            _check_shard(index, number, samples)
        except DataError as error:
            problems.append(str(error))
            continue
        problems += _sample_problems(reader, samples, places, decode_images)
    reader.close()
    return problems, places


def _records_problems(index: ShardIndex) -> list[str]:
    name = str(index.records_name)
    path = index.folder / name
    if not path.is_file():
        return [f"{name}: missing, it contains the records of the tars"]
    if file_sha256(path) != index.build["records_sha256"]:
        return [f"{name}: changed after the index was written, its sha256 does not match"]
    return []


def _check_shard(index: ShardIndex, number: int, samples: range) -> None:
    shard = index.shards[number]
    path = index.local_path(number)
    if not path.is_file():
        raise DataError(f"{shard.name}: missing")
    if path.stat().st_size != shard.size_bytes:
        raise DataError(f"{shard.name}: {path.stat().st_size} bytes, expected {shard.size_bytes}")
    if file_sha256(path) != shard.sha256:
        raise DataError(f"{shard.name}: changed after the index was written, its sha256 does not match")
    members = scan_tar(path)

    def indexed(*names: str) -> list[tuple[int, ...]]:
        return list(zip(*(index.columns[name][samples.start : samples.stop].tolist() for name in names)))

    if index.records_name is not None:
        # From another tool: there may be other members between the images.
        fits = set(indexed("image_offset", "image_bytes")) <= {item.span for item in members}
    else:
        pairs = pair_members(shard.name, members)
        found = [(*image.span, *record.span) for image, record in pairs]
        fits = found == indexed("image_offset", "image_bytes", "record_offset", "record_bytes")
    if not fits:
        raise DataError(f"{shard.name}: its members are not at the indexed positions")


def _sample_problems(
    reader: ShardReader, samples: range, places: list[tuple[str, str]], decode_images: bool
) -> list[str]:
    problems = []
    for sample in samples:
        place = reader.index.key_of(sample)
        try:
            content = reader.read(sample)
            if decode_images and content.record.clip is not None:
                check_clip(content.image_bytes, content.record.clip)
            elif decode_images:
                check_image(content.image_bytes)
        except (DataError, BadImageError) as error:
            problems.append(f"{place}: {error}")
            continue
        places.append((content.record.id, place))
        label = content.record.emotion
        if label != reader.index.label_of(sample):
            problems.append(f"{place}: emotion '{label}' is not the one in the index")
    return problems
