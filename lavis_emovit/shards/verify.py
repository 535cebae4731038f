"""Full check of a folder of shards against its index: every byte, every member, every record, every picture."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from lavis_emovit.errors import DataError
from lavis_emovit.shards.columns import COLUMNS_NAME
from lavis_emovit.shards.images import BadImageError, check_image
from lavis_emovit.shards.index import INDEX_NAME, ShardIndex
from lavis_emovit.shards.reader import ShardReader, file_sha256
from lavis_emovit.shards.tar import pair_members, scan_tar


@dataclass
class VerifyReport:
    """What a check found. `problems` is empty for a sound folder; `strays` are files that belong to no shard."""

    folder: Path
    num_shards: int = 0
    num_samples: int = 0
    problems: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def raise_if_bad(self, limit: int = 20) -> None:
        """Raise a DataError with the first `limit` problems, where there are any."""
        if self.problems:
            more = f"\n  ... and {len(self.problems) - limit} more" if len(self.problems) > limit else ""
            lines = "\n".join(f"  - {problem}" for problem in self.problems[:limit])
            raise DataError(
                f"{self.folder}: {len(self.problems)} problem(s) in the shards:\n{lines}{more}\n"
                "Restore the shards named here from their copy, or build them again with `emovit shards build`."
            )


def verify_shards(folder: str | os.PathLike[str], *, decode_images: bool = True) -> VerifyReport:
    """Compare shards with their index.

    Args:
        folder: the folder with `index.json`.
        decode_images: also decode every picture.

    Returns:
        the report; a fault of one shard does not keep the others from being checked.

    Raises:
        DataError: there is no usable index.
    """
    index = ShardIndex.load(folder)
    report = VerifyReport(index.folder, len(index.shards), index.num_samples)
    if index.cache is None:
        own = {*(shard.name for shard in index.shards), INDEX_NAME, COLUMNS_NAME, index.records_name}
        report.strays = sorted(item.name for item in index.folder.iterdir() if item.name not in own)
    # Each shard is checked just before it is read, and a broken one must not keep the others from being read.
    reader = ShardReader(index, check_files=False, max_open=1)
    ids: dict[str, str] = {}
    start = 0
    for number, shard in enumerate(index.shards):
        samples = range(start, start + shard.num_samples)
        start += shard.num_samples
        try:
            _check_shard(index, number, samples)
        except DataError as error:
            report.problems.append(str(error))
            continue
        report.problems.extend(_sample_problems(reader, samples, ids, decode_images))
    reader.close()
    return report


def _check_shard(index: ShardIndex, number: int, samples: range) -> None:
    shard = index.shards[number]
    path = index.local_path(number)
    if not path.is_file():
        raise DataError(f"{shard.name}: missing")
    if path.stat().st_size != shard.size_bytes:
        raise DataError(f"{shard.name}: {path.stat().st_size} bytes, the index says {shard.size_bytes}")
    if file_sha256(path) != shard.sha256:
        raise DataError(f"{shard.name}: changed after the index was written, its sha256 does not fit")
    columns = index.columns
    members = scan_tar(path)
    if index.records_name is not None:
        # Made elsewhere: the pictures must be members, and other members may lie between them.
        places = {(member.offset, member.size_bytes) for member in members}
        images = zip(
            columns["image_offset"][samples.start : samples.stop], columns["image_bytes"][samples.start : samples.stop]
        )
        fits = all((int(offset), int(size)) in places for offset, size in images)
    else:
        pairs = pair_members(shard.name, members)
        found = [(image.offset, image.size_bytes, record.offset, record.size_bytes) for image, record in pairs]
        names = ("image_offset", "image_bytes", "record_offset", "record_bytes")
        fits = found == [tuple(int(columns[column][sample]) for column in names) for sample in samples]
    if not fits:
        raise DataError(f"{shard.name}: its members don't lie where the index says")


def _sample_problems(reader: ShardReader, samples: range, ids: dict[str, str], decode_images: bool) -> list[str]:
    problems = []
    for sample in samples:
        place = reader.index.key_of(sample)
        try:
            content = reader.read(sample)
            if decode_images:
                check_image(content.image_bytes)
        except (DataError, BadImageError) as error:
            problems.append(f"{place}: {error}")
            continue
        first = ids.setdefault(content.record.id, place)
        if first != place:
            problems.append(f"{place}: id '{content.record.id}' stands in {first} already")
        label = content.record.emotion
        if label != reader.index.label_of(sample):
            problems.append(f"{place}: emotion '{label}' is not the one in the index")
    return problems
