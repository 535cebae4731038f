"""Builds shards of a published dataset on first use: read, split, write instructions, write shards.

Everything is in one storage folder, whose files docs/dataflow.md lists. Processes that start together wait at a file
lock; the first one does the work.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lavis_emovit.chat.ledger import LEDGER_NAME
from lavis_emovit.datasets.instructions import (
    InstructionJoin,
    check_kinds,
    count_instructions,
    generated_file,
    how_to_generate,
    write_offline,
)
from lavis_emovit.datasets.settings import PrepareSettings
from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.files import atomic_writer, file_sha256
from lavis_emovit.generation.categorical import add_affect, add_categorical
from lavis_emovit.generation.offline import WRITER
from lavis_emovit.own_files import Written, read_own
from lavis_emovit.paths import RECORDS_NAME, expand_home
from lavis_emovit.progress import progress
from lavis_emovit.recipes import flatten
from lavis_emovit.records import EmotionRecord, read_records, write_records, write_summary
from lavis_emovit.shards.columns import INDEX_NAME
from lavis_emovit.shards.writer import write_shards
from lavis_emovit.sources.base import LAYOUTS, Reader
from lavis_emovit.sources.layouts import annotation_fingerprint, fingerprint, open_dataset
from lavis_emovit.sources.readers.emoset import EMOSET_SPLITS, EmosetReader
from lavis_emovit.sources.readers.records import RecordsReader

logger = logging.getLogger(__name__)

STATE_NAME = "prepared.json"
UNFINISHED_NAME = "unfinished"
DRAWN_NAME = "drawn"
GENERATED_NAME = "generated"
# Key in the state -> what it is the fingerprint of.
_FINGERPRINTED = {"fingerprint": "files", "annotations": "annotations"}
# Increase it when the same settings give different shards than before.
PREPARATION_VERSION = 1


def prepare_dataset(
    name: str,
    prepare: PrepareSettings,
    storage: Path,
    indexes: Mapping[str, Path],
    where_to_get: str = "",
    kinds: Sequence[str] | None = None,
) -> None:
    """Build the shards of a dataset, unless they exist.

    Args:
        name: registered name of the dataset; also the source of its records.
        storage: the folder for everything, including the `indexes` (split -> path).
        kinds: the kinds of instructions to train on; None: all.

    Raises:
        DataError: the published dataset or its generated instructions are missing or faulty, kinds are missing, or the
            folder has shards built with other settings.
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
            _prepare(name, prepare, storage, list(indexes), where_to_get, kinds)


class _Prepared(Written):
    """The settings of a preparation, as far as this file reads them."""

    source: str | None
    alternatives: list[_Prepared] | None = None


class _State(Written):
    """The file `prepared.json`."""

    settings: _Prepared
    fingerprint: str | None = None
    annotations: str | None = None


def _is_done(name: str, prepare: PrepareSettings, storage: Path, indexes: Mapping[str, Path]) -> bool:
    """Whether the folder has the shards of these settings; refuses one with other shards."""
    state_path = storage / STATE_NAME
    have_index = [path.is_file() for path in indexes.values()]
    if not state_path.is_file():
        # Shards that the user built are used as they are; an interrupted preparation leaves a marker file.
        return all(have_index) and not (storage / UNFINISHED_NAME).exists()
    stored = read_own(state_path, _State, f"Delete {storage}, and it is prepared again.")
    old, new = flatten(_own_nodes(stored.settings.model_dump(exclude_unset=True))), flatten(_identity(prepare))
    changed_files = []
    generated = prepare.instructions.generated
    written = old.get("instructions.generated")
    if generated is not None and written is not None:
        # As for the published dataset, a folder that is gone does not matter any more.
        present = new["instructions.generated"] or written
        changed_files = [f"the instructions in {generated} have changed since"] if present != written else []
        new["instructions.generated"] = written
    differences = [
        f"prepare.{key}: was {json.dumps(old.get(key))}, now {json.dumps(new.get(key))}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ] + changed_files
    # Earlier versions stored none for a layout of folders, or for annotations.
    for key, now in _fingerprints(prepare).items():
        before = getattr(stored, key)
        if None not in (now, before) and now != before:
            differences.append(f"the {_FINGERPRINTED[key]} in {prepare.root} have changed since")
    if differences:
        raise DataError(
            f"datasets.{name}: {storage} was prepared with other settings:\n{bullet_list(differences)}\n"
            f"Use another folder for this run (`datasets.{name}.build_info.images.storage`), or delete {storage} "
            "to prepare it again."
        )
    if not all(have_index):
        logger.warning("%s: %s is incomplete, preparing it again", name, storage)
    return all(have_index)


def _prepare(
    name: str,
    prepare: PrepareSettings,
    storage: Path,
    splits: list[str],
    where_to_get: str,
    kinds: Sequence[str] | None,
) -> None:
    if problems := missing_sources(name, prepare, storage, where_to_get):
        raise DataError("\n".join(problems))
    root = source_root(prepare, storage)
    logger.info("%s: preparing %s from %s", name, storage, "drawings" if prepare.is_drawn else root)
    storage.mkdir(parents=True, exist_ok=True)
    (storage / STATE_NAME).unlink(missing_ok=True)
    (storage / UNFINISHED_NAME).touch()
    # A new split needs the records of all published ones.
    own_splits = [split for split in EMOSET_SPLITS if prepare.redraws_splits or split in splits]
    reader: Reader
    if prepare.is_drawn:
        # An interrupted preparation may have drawn with other settings.
        shutil.rmtree(root, ignore_errors=True)
        draw, _ = _drawing(prepare)
        with progress("drawing", every=1000) as line:
            draw(root, **prepare.draw.model_dump(), progress=line.update)
        layout = EmosetReader if prepare.source == "sketch" else RecordsReader
        reader = layout(root, source=name, splits=own_splits)
    else:
        reader = open_dataset(root, prepare, source=name, extract_to=storage / DRAWN_NAME, splits=own_splits)
    records: Iterable[EmotionRecord] = prepare.resplit(reader.read(), reader.image_root, root=root)
    instructions = prepare.instructions
    if instructions.categorical is not None and instructions.is_template_only:
        records = add_categorical(records, only_missing=True, **instructions.categorical.model_dump())
    if instructions.affect is not None and instructions.is_template_only:
        records = add_affect(records, **instructions.affect.model_dump())
    count = write_records(storage / RECORDS_NAME, records)
    write_summary(storage / RECORDS_NAME, reader.image_root, source=name, **reader.notes.to_dict(count))
    reader.notes.log(name)
    state: dict[str, Any] = {"dataset": name, "settings": _identity(prepare), **_fingerprints(prepare)}
    state["instructions"] = _write_instructions(name, prepare, storage, reader.image_root, kinds)
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
                    samples_per_shard=prepare.shards.samples_per_shard,
                    seed=prepare.shards.seed,
                    frames=prepare.shards.frames,
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


def _drawing(prepare: PrepareSettings) -> tuple[Callable[..., Path], int | str]:
    """The function that draws a set, and the version of what it draws."""
    from lavis_emovit.sample_set.clips import CLIP_VERSION, write_clip_sketch
    from lavis_emovit.sample_set.write import DRAWING_VERSION, write_sketch

    return (write_sketch, DRAWING_VERSION) if prepare.source == "sketch" else (write_clip_sketch, CLIP_VERSION)


def source_root(prepare: PrepareSettings, storage: Path) -> Path:
    """Folder of the images and annotations that shards are built from."""
    return storage / DRAWN_NAME if prepare.is_drawn else expand_home(str(prepare.root)).resolve()


def missing_sources(name: str, prepare: PrepareSettings, storage: Path, where_to_get: str) -> list[str]:
    """A line for a published dataset and for generated instructions that do not exist."""
    problems = []
    root = source_root(prepare, storage)
    if not prepare.is_drawn and not root.is_dir():
        problems.append(
            f"datasets.{name}: there are no shards in {storage}, and the dataset to build them from is missing: "
            f"{root} does not exist. {where_to_get}\nPut it there, or set its folder "
            f"(--options datasets.{name}.build_info.prepare.root=FOLDER)."
        )
    generated = prepare.instructions.generated
    # Preparation writes files of the same names, and replies may have been paid for.
    if (storage / LEDGER_NAME).exists() or (
        generated and generated_file(generated).resolve().parent == storage.resolve()
    ):
        problems.append(
            f"datasets.{name}.build_info.images.storage: {storage} is a folder of `emovit generate`, whose files the "
            "shards would replace. Choose another folder for the shards."
        )
    if generated is not None and not generated_file(generated).is_file():
        problems.append(
            f"datasets.{name}.build_info.prepare.instructions: there is no {generated_file(generated)}. "
            f"{how_to_generate(name, mix=prepare.instructions.mix)}"
        )
    return problems


def _write_instructions(
    name: str, prepare: PrepareSettings, storage: Path, image_root: Path, kinds: Sequence[str] | None
) -> dict[str, Any]:
    """Write generated instructions into the records; returns the counts."""
    settings, records = prepare.instructions, storage / RECORDS_NAME
    if settings.is_template_only:
        counts: dict[str, Any] = {"splits": count_instructions(records)}
        check_kinds(name, counts["splits"], kinds)
        return counts
    source = generated_file(settings.generated) if settings.generated is not None else None
    if settings.offline is not None:
        folder = storage / GENERATED_NAME
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        source = write_offline(records, image_root, folder, settings.offline, settings.categorical)
        if settings.affect is not None:
            write_records(source, add_affect(read_records(source), **settings.affect.model_dump()))
    counts = InstructionJoin(name, settings, source, storage, kinds).run(records)
    for split, of_split in counts["splits"].items():
        logger.info(
            "%s: %s: %d of %d images have instructions (pairs: %s)",
            name,
            split,
            of_split["with_instructions"],
            of_split["images"],
            ", ".join(f"{kind} {count}" for kind, count in of_split["pairs"].items()) or "none",
        )
    return counts


def _identity(prepare: PrepareSettings) -> dict[str, Any]:
    """The settings that determine the content of the shards; the location of the published dataset does not."""
    settings = _own_nodes(prepare.model_dump(mode="json", exclude={"root"}))
    instructions = settings["instructions"]
    if prepare.instructions.generated is not None:
        file = generated_file(prepare.instructions.generated)
        instructions["generated"] = file_sha256(file) if file.is_file() else None
    if instructions["offline"] is not None:
        instructions["offline"] |= {"writer": WRITER}
    if prepare.is_drawn:
        _, settings["draw"]["version"] = _drawing(prepare)
    else:
        settings.pop("draw")
    return {"version": PREPARATION_VERSION, **settings}


def _own_nodes(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the nodes of other layouts, which have no effect, here and in the alternatives."""
    own = {key: value for key, value in settings.items() if key not in LAYOUTS or key == settings["source"]}
    return {**own, "alternatives": [_own_nodes(item) for item in settings.get("alternatives") or ()]}


def _fingerprints(prepare: PrepareSettings) -> dict[str, str | None]:
    """Fingerprint of the published dataset, None if it is missing or drawn; one of annotations if it has some."""
    root = expand_home(prepare.root).resolve() if prepare.root is not None else None
    if root is None or prepare.is_drawn or not root.is_dir():
        return {"fingerprint": None}
    lists = [file.below(root).path for file in (prepare.split_lists or {}).values()]
    of_annotations = annotation_fingerprint(root, prepare)
    found = {"fingerprint": fingerprint(root, prepare, lists)}
    return found | ({"annotations": of_annotations} if of_annotations is not None else {})
