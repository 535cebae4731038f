"""From a published dataset to shards on first use: read, split, write instructions, write shards.

Everything goes into one storage folder:

    records.jsonl        all records with their instructions
    <split>/index.json   the shards of a split
    drawn/               pictures that were made here: those of the sample set, or of tables that hold them
    prepared.json        written last: with which settings, and from what

Processes that start together wait for each other at a file lock; the first one does the work, the others find it done.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lavis_emovit.datasets.settings import PrepareSettings
from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer, file_sha256
from lavis_emovit.generation.categorical import add_categorical
from lavis_emovit.records import EmotionRecord, read_records, write_records
from lavis_emovit.shards.index import INDEX_NAME
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.sources.emoset import EMOSET_SPLITS, read_emoset
from lavis_emovit.sources.layouts import LAYOUT_NODES, OpenDataset, list_files, open_dataset
from lavis_emovit.sources.problems import Notes
from lavis_emovit.sources.splits import resplit

logger = logging.getLogger(__name__)

RECORDS_NAME = "records.jsonl"
STATE_NAME = "prepared.json"
UNFINISHED_NAME = "unfinished"
DRAWN_NAME = "drawn"
# Counted up when the same settings would give other shards than before.
PREPARATION_VERSION = 1
PROGRESS_INTERVAL_S = 10.0


def prepare_dataset(
    name: str, prepare: PrepareSettings, storage: Path, indexes: Mapping[str, Path], where_to_get: str = ""
) -> None:
    """Make the shards of a dataset, unless they are there already.

    Args:
        name: registered name of the dataset; also the source of its records.
        prepare: how to make them.
        storage: the folder for everything.
        indexes: split -> path of its `index.json`, which must lie in the storage folder.
        where_to_get: where a person gets the published dataset, for the message when it is missing.

    Raises:
        DataError: the published dataset is missing or faulty, or the folder holds shards made with other settings.
    """
    for split, path in indexes.items():
        if path != storage / split / INDEX_NAME:
            raise DataError(
                f"datasets.{name}: the index of split '{split}' is {path}, but preparation writes it to "
                f"{storage / split / INDEX_NAME}. Set `annotations.{split}.storage` to that, or `prepare` to null."
            )
    storage.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(storage.parent / f".{storage.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("%s: waiting for another process that prepares %s", name, storage)
        lock.acquire()
    try:
        if not _is_done(name, prepare, storage, indexes):
            _prepare(name, prepare, storage, list(indexes), where_to_get)
    finally:
        lock.release()


def _is_done(name: str, prepare: PrepareSettings, storage: Path, indexes: Mapping[str, Path]) -> bool:
    """Whether the folder holds what these settings make; refuses one that holds something else."""
    state_path = storage / STATE_NAME
    present = [path.is_file() for path in indexes.values()]
    if not state_path.is_file():
        # Shards that a person built and put here are taken as they are; a killed preparation left its mark.
        return all(present) and not (storage / UNFINISHED_NAME).exists()
    try:
        stored = json.loads(state_path.read_text(encoding="utf-8"))
        differences = _differences(stored["settings"], _identity(prepare))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{state_path}: cannot be read ({type(error).__name__}: {error}). Delete {storage}.") from None
    fingerprint = _fingerprint(prepare)
    if fingerprint is not None and fingerprint != stored.get("fingerprint"):
        differences.append(f"the files in {prepare.root} are others than those it was made from")
    if differences:
        lines = "\n".join(f"  - {line}" for line in differences)
        raise DataError(
            f"datasets.{name}: {storage} was made with other settings:\n{lines}\n"
            f"Give this run a folder of its own (`datasets.{name}.build_info.images.storage`), or delete {storage} "
            "to make it anew."
        )
    if not all(present):
        logger.warning("%s: %s is incomplete, preparing it again", name, storage)
    return all(present)


def _prepare(name: str, prepare: PrepareSettings, storage: Path, splits: list[str], where_to_get: str) -> None:
    root = storage / DRAWN_NAME if prepare.source == "sketch" else Path(str(prepare.root)).expanduser().resolve()
    if prepare.source != "sketch" and not root.is_dir():
        raise DataError(
            f"datasets.{name}: its shards are not in {storage} yet, and there is nothing to make them from: "
            f"{root} does not exist. {where_to_get}\nThen run the same command again with "
            f"`--options datasets.{name}.build_info.prepare.root=FOLDER`."
        )
    logger.info("%s: preparing %s from %s", name, storage, "drawings" if prepare.source == "sketch" else root)
    storage.mkdir(parents=True, exist_ok=True)
    (storage / STATE_NAME).unlink(missing_ok=True)
    (storage / UNFINISHED_NAME).touch()
    if prepare.source == "sketch":
        _draw(prepare, root)
    notes = Notes()
    dataset = _read(name, prepare, root, storage, splits, notes)
    fractions = prepare.fractions.model_dump() if prepare.fractions is not None else None
    records = resplit(dataset.records, fractions, prepare.split_seed, prepare.stratify)
    write_records(storage / RECORDS_NAME, _instructed(records, prepare))
    notes.log(name)
    state: dict[str, Any] = {
        "dataset": name,
        "settings": _identity(prepare),
        "fingerprint": _fingerprint(prepare),
        "splits": {},
    }
    refused = []
    for split in splits:
        chosen = (record for record in read_records(storage / RECORDS_NAME) if record.split == split)
        try:
            index = write_shards(
                chosen,
                dataset.image_root,
                storage / split,
                samples_per_shard=prepare.shards.samples_per_shard,
                seed=prepare.shards.seed,
                skip_bad=prepare.skip_bad,
                overwrite=True,
                progress=_progress_log(f"{name}: {split}"),
            )
        except DataError as error:
            refused.append(f"datasets.{name}, split '{split}': {error}")
            continue
        state["splits"][split] = {"num_samples": index.num_samples, "hash": index.hash}
        logger.info("%s: %s holds %d samples in %d shards", name, split, index.num_samples, len(index.shards))
    if refused:
        raise DataError("\n".join(refused))
    with atomic_writer(storage / STATE_NAME) as file:
        json.dump(state, file, indent=1)
        file.write("\n")
    (storage / UNFINISHED_NAME).unlink()


def _progress_log(what: str) -> Callable[[int, int], None]:
    """A progress function that writes a line now and then, for work that takes long."""
    last_s = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= PROGRESS_INTERVAL_S:
            last_s = time.monotonic()
            logger.info("%s: %d of %d pictures", what, done, total)

    return show


def _draw(prepare: PrepareSettings, root: Path) -> None:
    from lavis_emovit.sample_set.write import write_sketch

    # What a killed preparation drew may have been drawn with other settings.
    shutil.rmtree(root, ignore_errors=True)
    write_sketch(root, **prepare.draw.model_dump(), progress=_progress_log("drawing"))


def _read(
    name: str, prepare: PrepareSettings, root: Path, storage: Path, splits: list[str], notes: Notes
) -> OpenDataset:
    own_splits = tuple(split for split in EMOSET_SPLITS if prepare.split_seed is not None or split in splits)
    if prepare.source == "sketch":
        return OpenDataset(read_emoset(root, source=name, splits=own_splits), root)
    return open_dataset(root, prepare, source=name, notes=notes, extract_to=storage / DRAWN_NAME, splits=own_splits)


def _instructed(records: Iterable[EmotionRecord], prepare: PrepareSettings) -> Iterable[EmotionRecord]:
    categorical = prepare.instructions.categorical
    if categorical is None:
        return records
    return add_categorical(
        records, wordings=categorical.wordings, option_order=categorical.option_order, seed=categorical.seed
    )


def _identity(prepare: PrepareSettings) -> dict[str, Any]:
    """The settings that decide what the shards hold; where the published dataset lies is not one of them."""
    settings = prepare.model_dump(mode="json", exclude={"root"})
    if prepare.source == "sketch":
        from lavis_emovit.sample_set.write import DRAWING_VERSION

        settings["draw"]["version"] = DRAWING_VERSION
    else:
        settings.pop("draw")
    for node in LAYOUT_NODES:
        if prepare.source != node:
            settings.pop(node)
    return {"version": PREPARATION_VERSION, **settings}


def _fingerprint(prepare: PrepareSettings) -> str | None:
    """Hash of the published dataset's lists; None where they are not there (any more) or there is nothing to read."""
    if prepare.root is None or prepare.source == "sketch":
        return None
    root = Path(prepare.root).expanduser().resolve()
    paths = list_files(root, prepare) if root.is_dir() else []
    hashes = {path.relative_to(root).as_posix(): file_sha256(path) for path in paths if path.is_file()}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest() if hashes else None


def _differences(stored: Any, wanted: Any, prefix: str = "prepare") -> list[str]:
    """One line for every setting that differs."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        lines = []
        for key in sorted({*stored, *wanted}):
            lines += _differences(stored.get(key), wanted.get(key), f"{prefix}.{key}")
        return lines
    return [] if stored == wanted else [f"{prefix}: made with {json.dumps(stored)}, now {json.dumps(wanted)}"]
