"""Parts of one set, built by different machines, become one set with one index: the same bytes as built in one go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.files import TEMPORARY_SUFFIX, file_sha256
from lavis_emovit.shards.columns import COLUMNS_NAME, PAIR_COLUMNS
from lavis_emovit.shards.index import INDEX_NAME, ShardIndex, ShardInfo
from lavis_emovit.shards.writer import make_folder

PART_PATTERN = "part-*-of-*"
_BUILD_AGAIN = "Restore it from its copy, or build this part again with `--overwrite`."


def merge_parts(
    out_dir: str | os.PathLike[str], parts: Sequence[str | os.PathLike[str]] = (), *, overwrite: bool = False
) -> ShardIndex:
    """Join the parts of a build.

    Parts that lie in `out_dir` are moved, others are copied and left as they are. A merge that was stopped goes on when
    it is called again.

    Args:
        out_dir: folder of the whole set.
        parts: folders of the parts; none for all `part-*` in `out_dir`.
        overwrite: replace a finished set in `out_dir`.

    Returns:
        the index of the whole set.

    Raises:
        DataError: parts that are missing, doubled, unfinished, damaged or of different builds.
    """
    out_dir = Path(out_dir)
    folders = [Path(part) for part in parts] or sorted(path for path in out_dir.glob(PART_PATTERN) if path.is_dir())
    if not folders:
        raise DataError(
            f"{out_dir}: no part is in it. Build them with `emovit shards build ... --part 1/2`, or name them."
        )
    if (out_dir / INDEX_NAME).exists() and not overwrite:
        raise DataError(f"{out_dir}: holds finished shards already. Take another folder, or say `--overwrite`.")
    unfinished = [folder for folder in folders if not (folder / INDEX_NAME).is_file()]
    if unfinished:
        named = ", ".join(str(folder) for folder in unfinished)
        raise DataError(
            f"{named}: no {INDEX_NAME}, so {'it is no' if len(unfinished) == 1 else 'they are no'} finished part. Give "
            "the command that builds it (`emovit shards build ... --part I/N`) again: it goes on where it was."
        )
    indexes = [ShardIndex.load(folder) for folder in folders]
    _check_together(out_dir, indexes)
    placed = sorted(
        ((number, *part) for number, index in enumerate(indexes) for part in index.parts()),
        key=lambda item: item[1].name,
    )
    if not placed:
        raise DataError(f"{out_dir}: none of the parts has a shard, there is nothing to merge")
    make_folder(out_dir, out_dir)
    (out_dir / INDEX_NAME).unlink(missing_ok=True)
    for number, shard, _, _ in placed:
        _place(
            indexes[number].folder / shard.name, out_dir / shard.name, shard, move=_is_inside(folders[number], out_dir)
        )
    first = indexes[0]
    skipped = {item["id"]: item for index in indexes for item in index.build["skipped"]}
    merged = ShardIndex(
        out_dir,
        [shard for _, shard, _, _ in placed],
        {
            name: np.concatenate(
                [
                    indexes[number].columns[name][pairs if name in PAIR_COLUMNS else samples]
                    for number, _, samples, pairs in placed
                ]
            )
            for name in first.columns
        },
        labels=first.labels,
        kinds=first.kinds,
        label_sets=first.label_sets,
        build={
            **{name: value for name, value in first.build.items() if name != "part"},
            "skipped": _in_build_order(skipped, int(first.build["seed"])),
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
            raise DataError(
                f"{index.folder}: a whole set, not a part of one. Only parts of one build can be merged; leave it out."
            )
    first = indexes[0].build["part"]
    by_number: dict[int, ShardIndex] = {}
    for index in indexes:
        part = index.build["part"]
        if (part["count"], part["plan"]) != (first["count"], first["plan"]):
            raise DataError(
                f"{index.folder}: a part of another build than {indexes[0].folder}. The parts of a set need the same "
                "records, seed, samples per shard and resize, and the same version of the package."
            )
        other = by_number.setdefault(part["number"], index)
        if other is not index:
            raise DataError(
                f"{index.folder}: part {part['number']}/{part['count']}, and so is {other.folder}. Name one of them."
            )
    missing = [f"{number}/{first['count']}" for number in range(1, first["count"] + 1) if number not in by_number]
    if missing:
        raise DataError(
            f"{out_dir}: of the parts, {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. Build with "
            f"`--part {missing[0]}`, the rest of the command as for {indexes[0].folder}, and merge again."
        )


def _in_build_order(skipped: dict[str, dict[str, str]], seed: int) -> list[dict[str, str]]:
    """Samples that were left out, in the order in which one build of all would have met them."""
    from lavis_emovit.shards.writer import sample_rank

    return [skipped[record_id] for record_id in sorted(skipped, key=lambda record_id: sample_rank(seed, record_id))]


def _is_inside(folder: Path, out_dir: Path) -> bool:
    return folder.resolve().parent == out_dir.resolve()


def _place(source: Path, target: Path, shard: ShardInfo, *, move: bool) -> None:
    """A shard under its name in the whole set."""
    if not source.exists():
        # An earlier merge that was stopped has moved it already.
        if (
            move
            and target.is_file()
            and target.stat().st_size == shard.size_bytes
            and file_sha256(target) == shard.sha256
        ):
            return
        raise DataError(f"{source}: the shard is missing. {_BUILD_AGAIN}")
    if source.stat().st_size != shard.size_bytes or file_sha256(source) != shard.sha256:
        raise DataError(f"{source}: changed after its index was written. {_BUILD_AGAIN}")
    if move:
        source.replace(target)
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
