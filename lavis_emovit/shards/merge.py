"""Merges the parts of a set that different machines built; the result has the same bytes as a build in one go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_path
from lavis_emovit.shards.columns import COLUMNS_NAME, INDEX_NAME, join_columns
from lavis_emovit.shards.index import ShardIndex, ShardInfo
from lavis_emovit.shards.writer import make_folder, refuse_finished, sample_rank

PART_PATTERN = "part-*-of-*"
_BUILD_AGAIN = "Restore it from a backup, or build this part again with `--overwrite`."


def merge_parts(
    out_dir: str | os.PathLike[str], parts: Sequence[str | os.PathLike[str]] = (), *, overwrite: bool = False
) -> ShardIndex:
    """Merge the parts of a build, by default all `part-*` in `out_dir`. An interrupted merge resumes when called again.

    Parts in `out_dir` are moved, others copied. DataError for parts that are missing, duplicated, unfinished, damaged
    or from different builds.
    """
    out_dir = Path(out_dir)
    folders = [Path(part) for part in parts] or sorted(path for path in out_dir.glob(PART_PATTERN) if path.is_dir())
    if not folders:
        raise DataError(
            f"{out_dir}: contains no parts. Build some with `emovit shards build ... --part 1/2`, or pass folders."
        )
    refuse_finished(out_dir, overwrite)
    unfinished = [str(folder) for folder in folders if not (folder / INDEX_NAME).is_file()]
    if unfinished:
        raise DataError(
            f"{', '.join(unfinished)}: no {INDEX_NAME}, so the build of this part is unfinished. Run the command that "
            "builds it (`emovit shards build ... --part I/N`) again; it resumes."
        )
    indexes = [ShardIndex.load(folder) for folder in folders]
    _check_together(out_dir, indexes)
    placed = sorted(
        ((folder, *part) for folder, index in zip(folders, indexes) for part in index.parts()),
        key=lambda item: item[1].name,
    )
    if not placed:
        raise DataError(f"{out_dir}: none of the parts has a shard, there is nothing to merge")
    make_folder(out_dir, out_dir)
    (out_dir / INDEX_NAME).unlink(missing_ok=True)
    for folder, shard, _ in placed:
        _place(folder / shard.name, out_dir / shard.name, shard, move=_is_inside(folder, out_dir))
    first = indexes[0]
    skipped = {item["id"]: item for index in indexes for item in index.build["skipped"]}
    merged = ShardIndex(
        out_dir,
        [shard for _, shard, _ in placed],
        join_columns([columns for _, _, columns in placed]),
        labels=first.labels,
        kinds=first.kinds,
        label_sets=first.label_sets,
        build={
            **{name: value for name, value in first.build.items() if name != "part"},
            # In the order in which a build in one go would have skipped them.
            "skipped": [skipped[name] for name in sorted(skipped, key=lambda n: sample_rank(first.build["seed"], n))],
        },
    )
    merged.save()
    for folder in folders:
        if _is_inside(folder, out_dir):
            for name in (INDEX_NAME, COLUMNS_NAME):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / ".build", ignore_errors=True)
            if not any(folder.iterdir()):
                folder.rmdir()
    return merged


def _check_together(out_dir: Path, indexes: Sequence[ShardIndex]) -> None:
    for index in indexes:
        if "part" not in index.build:
            raise DataError(f"{index.folder}: a complete set, not a part. Merge only parts of one build.")
    first = indexes[0].build["part"]
    by_number: dict[int, ShardIndex] = {}
    for index in indexes:
        part = index.build["part"]
        if (part["count"], part["plan"]) != (first["count"], first["plan"]):
            raise DataError(
                f"{index.folder}: from another build than {indexes[0].folder}. The parts of a set need the same "
                "records, seed, samples per shard and resize, and the same version of the package."
            )
        other = by_number.setdefault(part["number"], index)
        if other is not index:
            raise DataError(
                f"{index.folder}: part {part['number']}/{part['count']}, the same as {other.folder}. Pass one of them."
            )
    missing = [f"{number}/{first['count']}" for number in range(1, first["count"] + 1) if number not in by_number]
    if missing:
        raise DataError(
            f"{out_dir}: missing parts: {', '.join(missing)}. Build with `--part {missing[0]}` and the other options "
            f"as for {indexes[0].folder}, and merge again."
        )


def _is_inside(folder: Path, out_dir: Path) -> bool:
    return folder.resolve().parent == out_dir.resolve()


def _place(source: Path, target: Path, shard: ShardInfo, *, move: bool) -> None:
    """Move or copy a shard into the merged set."""
    if not source.exists():
        # An earlier merge that was interrupted has already moved it.
        if move and target.is_file() and shard.is_at(target):
            return
        raise DataError(f"{source}: the shard is missing. {_BUILD_AGAIN}")
    if not shard.is_at(source):
        raise DataError(f"{source}: changed after its index was written. {_BUILD_AGAIN}")
    if move:
        source.replace(target)
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
