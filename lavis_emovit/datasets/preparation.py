"""Builds shards of a published dataset on first use: read, split, write instructions, write shards.

Everything is in one storage folder, whose files docs/dataflow.md lists. Processes that start together wait at a file
lock; the first one does the work.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lavis_emovit.datasets.settings import PrepareSettings
from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.files import atomic_writer, file_sha256
from lavis_emovit.generation.categorical import add_categorical
from lavis_emovit.progress import progress
from lavis_emovit.recipes import flatten
from lavis_emovit.records import EmotionRecord, read_records, write_records, write_summary
from lavis_emovit.shards.columns import INDEX_NAME
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.sources.base import LAYOUTS, Reader
from lavis_emovit.sources.layouts import list_files, open_dataset
from lavis_emovit.sources.readers.emoset import EMOSET_SPLITS, EmosetReader

logger = logging.getLogger(__name__)

RECORDS_NAME = "records.jsonl"
STATE_NAME = "prepared.json"
UNFINISHED_NAME = "unfinished"
DRAWN_NAME = "drawn"
# Increase it when the same settings give different shards than before.
PREPARATION_VERSION = 1


def prepare_dataset(
    name: str, prepare: PrepareSettings, storage: Path, indexes: Mapping[str, Path], where_to_get: str = ""
) -> None:
    """Build the shards of a dataset, unless they exist.

    Args:
        name: registered name of the dataset; also the source of its records.
        storage: the folder for everything, including the `indexes` (split -> path).

    Raises:
        DataError: the published dataset is missing or faulty, or the folder has shards built with other settings.
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
        held = lock.acquire(timeout=0)
    except Timeout:
        logger.info("%s: waiting for another process to prepare %s", name, storage)
        held = lock.acquire()
    with held:
        if not _is_done(name, prepare, storage, indexes):
            _prepare(name, prepare, storage, list(indexes), where_to_get)


def _is_done(name: str, prepare: PrepareSettings, storage: Path, indexes: Mapping[str, Path]) -> bool:
    """Whether the folder has the shards of these settings; refuses one with other shards."""
    state_path = storage / STATE_NAME
    present = [path.is_file() for path in indexes.values()]
    if not state_path.is_file():
        # Shards that the user built are used as they are; an interrupted preparation leaves a marker file.
        return all(present) and not (storage / UNFINISHED_NAME).exists()
    try:
        stored = json.loads(state_path.read_text(encoding="utf-8"))
        old, new = flatten(_own_nodes(stored["settings"])), flatten(_identity(prepare))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{state_path}: cannot be read ({type(error).__name__}: {error}). Delete {storage}.") from None
    differences = [
        f"prepare.{key}: was {json.dumps(old.get(key))}, now {json.dumps(new.get(key))}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    fingerprint = _fingerprint(prepare)
    if fingerprint is not None and fingerprint != stored.get("fingerprint"):
        differences.append(f"the files in {prepare.root} have changed since")
    if differences:
        raise DataError(
            f"datasets.{name}: {storage} was prepared with other settings:\n{bullet_list(differences)}\n"
            f"Use another folder for this run (`datasets.{name}.build_info.images.storage`), or delete {storage} "
            "to prepare it again."
        )
    if not all(present):
        logger.warning("%s: %s is incomplete, preparing it again", name, storage)
    return all(present)


def _prepare(name: str, prepare: PrepareSettings, storage: Path, splits: list[str], where_to_get: str) -> None:
    root = storage / DRAWN_NAME if prepare.source == "sketch" else Path(str(prepare.root)).expanduser().resolve()
    if prepare.source != "sketch" and not root.is_dir():
        raise DataError(
            f"datasets.{name}: there are no shards in {storage}, and the dataset to build them from is missing: "
            f"{root} does not exist. {where_to_get}\nPut it there, or set its folder "
            f"(--options datasets.{name}.build_info.prepare.root=FOLDER)."
        )
    logger.info("%s: preparing %s from %s", name, storage, "drawings" if prepare.source == "sketch" else root)
    storage.mkdir(parents=True, exist_ok=True)
    (storage / STATE_NAME).unlink(missing_ok=True)
    (storage / UNFINISHED_NAME).touch()
    # A new split needs the records of all published ones.
    own_splits = [split for split in EMOSET_SPLITS if prepare.split_seed is not None or split in splits]
    reader: Reader
    if prepare.source == "sketch":
        from lavis_emovit.sample_set.write import write_sketch

        # An interrupted preparation may have drawn with other settings.
        shutil.rmtree(root, ignore_errors=True)
        with progress("drawing", every=1000) as line:
            write_sketch(root, **prepare.draw.model_dump(), progress=line.update)
        reader = EmosetReader(root, source=name, splits=own_splits)
    else:
        reader = open_dataset(root, prepare, source=name, extract_to=storage / DRAWN_NAME, splits=own_splits)
    records: Iterable[EmotionRecord] = prepare.resplit(reader.read())
    if categorical := prepare.instructions.categorical:
        records = add_categorical(records, **categorical.model_dump())
    count = write_records(storage / RECORDS_NAME, records)
    write_summary(storage / RECORDS_NAME, reader.image_root, source=name, **reader.notes.to_dict(count))
    reader.notes.log(name)
    state: dict[str, Any] = {"dataset": name, "settings": _identity(prepare), "fingerprint": _fingerprint(prepare)}
    state["splits"] = {}
    refused = []
    for split in splits:
        chosen = (record for record in read_records(storage / RECORDS_NAME) if record.split == split)
        try:
            with progress(f"{name}: {split}", every=1000) as line:
                index = write_shards(
                    chosen,
                    reader.image_root,
                    storage / split,
                    **prepare.shards.model_dump(),
                    skip_bad=prepare.skip_bad,
                    overwrite=True,
                    progress=line.update,
                )
        except DataError as error:
            refused.append(f"datasets.{name}, split '{split}': {error}")
            continue
        state["splits"][split] = {"num_samples": index.num_samples, "hash": index.hash}
        logger.info("%s: %s has %d samples in %d shards", name, split, index.num_samples, len(index.shards))
    if refused:
        raise DataError("\n".join(refused))
    with atomic_writer(storage / STATE_NAME) as file:
        file.write(json.dumps(state, indent=1) + "\n")
    (storage / UNFINISHED_NAME).unlink()


def _identity(prepare: PrepareSettings) -> dict[str, Any]:
    """The settings that determine the content of the shards; the location of the published dataset does not."""
    settings = _own_nodes(prepare.model_dump(mode="json", exclude={"root"}))
    if prepare.source == "sketch":
        from lavis_emovit.sample_set.write import DRAWING_VERSION

        settings["draw"]["version"] = DRAWING_VERSION
    else:
        settings.pop("draw")
    return {"version": PREPARATION_VERSION, **settings}


def _own_nodes(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the nodes of other layouts, which have no effect, here and in the alternatives."""
    own = {key: value for key, value in settings.items() if key not in LAYOUTS or key == settings["source"]}
    return {**own, "alternatives": [_own_nodes(item) for item in settings.get("alternatives") or ()]}


def _fingerprint(prepare: PrepareSettings) -> str | None:
    """Hash of the published dataset's files; None if they are missing or the layout has none."""
    if prepare.root is None or prepare.source == "sketch":
        return None
    root = Path(prepare.root).expanduser().resolve()
    paths = list_files(root, prepare) if root.is_dir() else []
    hashes = {path.relative_to(root).as_posix(): file_sha256(path) for path in paths if path.is_file()}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest() if hashes else None
