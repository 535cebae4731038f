"""Checkpoints: a folder that counts only when its MANIFEST.json verifies.

A save writes `ckpt-<step>.tmp-<nonce>/`, flushes each file to disk, writes the manifest (size and sha256 of each file)
last, and renames the folder once. So a folder with a final name is either complete or recognised as damaged, and the
loader takes the newest complete one. Nothing in a checkpoint is pickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lavis_emovit.errors import DataError, UserError
from lavis_emovit.files import file_sha256, name_full_disk, obey_umask, sync_folder
from lavis_emovit.own_files import Written, read_own, read_own_if_any
from lavis_emovit.paths import CHECKPOINT_NAME, MANIFEST_NAME, list_checkpoints
from lavis_emovit.settings import FrozenModel

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
_RESTORE = "Restore it from a copy, or use another checkpoint."
_LEFTOVER_NAME = re.compile(r"ckpt-\d+\.(tmp|old|replaced)-[0-9a-f]+")


class CheckpointError(UserError):
    """A checkpoint folder that cannot be used."""


@dataclass(frozen=True)
class CheckpointFacts:
    """What the manifests of all checkpoints of a run have in common.

    Attributes:
        index_hash: hash of the training data's index.
        config_hash: hash of the settings that decide what a run computes.
        frozen_fingerprint: identifies the frozen weights, which are not in a checkpoint.
        versions: packages that wrote it.
    """

    index_hash: str
    config_hash: str
    frozen_fingerprint: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Manifest(CheckpointFacts):
    """The manifest of a verified checkpoint.

    Attributes:
        step: optimizer steps done.
        epoch: epoch of the next step.
        files: file name -> {"bytes", "sha256"}.
    """

    step: int
    epoch: int
    files: dict[str, dict[str, Any]]


class _FileFacts(FrozenModel):
    bytes: int
    sha256: str


class _Format(Written):
    """What every version of `MANIFEST.json` has."""

    format: int


class _Stored(_Format):
    """The file `MANIFEST.json`; `sha256` is that of the rest."""

    sha256: str
    index_hash: str
    config_hash: str
    frozen_fingerprint: str
    versions: dict[str, str]
    step: int
    epoch: int
    files: dict[str, _FileFacts]


def checkpoint_name(step: int) -> str:
    return f"ckpt-{step:08d}"


def save_checkpoint(
    root: Path, facts: CheckpointFacts, *, step: int, epoch: int, writers: Mapping[str, Callable[[Path], None]]
) -> Path:
    """Write one checkpoint so that it appears under its final name complete or not at all.

    Args:
        writers: file name -> function that writes this file.

    Returns:
        the final folder, `root/ckpt-<step>`. An older folder of that name is replaced.

    Raises:
        CheckpointError: a file cannot be written, for example because the disk is full; no part of it remains.
    """
    final = root / checkpoint_name(step)
    nonce = secrets.token_hex(4)
    temporary = root / f"{final.name}.tmp-{nonce}"
    try:
        temporary.mkdir(parents=True)
        _write_folder(temporary, {"format": FORMAT_VERSION, "step": step, "epoch": epoch, **asdict(facts)}, writers)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"{final} cannot be saved: {error}. Fix this and run the same command again; earlier files are complete."
        ) from error
    try:
        if final.exists():
            # A rejected one, or one of the same step. If the machine stops between the two renames,
            # `remove_leftovers` restores it.
            final.rename(root / f"{final.name}.replaced-{nonce}")
        temporary.rename(final)
        sync_folder(root)
        remove_leftovers(root)
    except OSError as error:
        raise CheckpointError(f"{temporary} cannot be renamed to {final.name}: {error}") from error
    return final


def verify_checkpoint(path: Path) -> Manifest:
    """Check a checkpoint folder against its manifest, byte for byte; CheckpointError names the faulty file."""
    manifest_path = path / MANIFEST_NAME
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint folder")
    try:
        stated = read_own_if_any(manifest_path, _Format, _RESTORE)
        if stated is None:
            raise CheckpointError(f"{manifest_path}: missing, so the save was not finished")
        if stated.format != FORMAT_VERSION:
            raise CheckpointError(f"{manifest_path}: format {stated.format}, this version reads {FORMAT_VERSION}")
        stored = read_own(manifest_path, _Stored, _RESTORE)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    body = stored.model_dump(exclude={"sha256"})
    if stored.sha256 != _body_hash(body):
        raise CheckpointError(f"{manifest_path}: damaged: its content does not match its own sha256")
    manifest = Manifest(**{key: body[key] for key in Manifest.__dataclass_fields__})
    for name, facts in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing")
        size = file.stat().st_size
        if size != facts["bytes"]:
            raise CheckpointError(f"{file}: {size} bytes, the manifest says {facts['bytes']}")
        if file_sha256(file) != facts["sha256"]:
            raise CheckpointError(f"{file}: its sha256 is not the manifest's, so its content has changed")
    return manifest


def newest_checkpoint(root: Path) -> tuple[tuple[Path, Manifest] | None, dict[Path, str]]:
    """The newest checkpoint that verifies with its manifest, and the newer ones with the reasons that they do not."""
    rejected: dict[Path, str] = {}
    for path in reversed(list_checkpoints(root)):
        try:
            return (path, verify_checkpoint(path)), rejected
        except CheckpointError as error:
            rejected[path] = str(error)
    return None, rejected


def purge_checkpoints(root: Path, *, newest_step: int, keep_last: int, keep_steps: set[int]) -> list[Path]:
    """Delete old checkpoints after a save, except the newest `keep_last` and those of `keep_steps`.

    Args:
        newest_step: the step just saved. Its files were hashed as they were written, so one good checkpoint remains
            even if all others are damaged. Folders of later steps are not deleted.

    Returns:
        the deleted folders.
    """
    older = [path for path in list_checkpoints(root) if step_of(path) <= newest_step]
    gone = [path for path in older[:-keep_last] if step_of(path) not in keep_steps]
    for path in gone:
        # Renamed first: a half-deleted folder must not have a final name.
        leftover = path.rename(root / f"{path.name}.old-{secrets.token_hex(4)}")
        shutil.rmtree(leftover)
    return gone


def remove_leftovers(root: Path) -> list[Path]:
    """Delete the leftovers of interrupted saves. The caller holds the lock of the run's folder.

    A complete checkpoint that an interrupted save renamed is restored, because it may be the only one.
    """
    if not root.is_dir():
        return []
    removed = []
    for path in sorted(root.iterdir()):
        if not _LEFTOVER_NAME.fullmatch(path.name):
            continue
        if ".replaced-" in path.name and _restore(path):
            logger.info("restored %s, whose replacement was not finished", path.name.split(".")[0])
            continue
        shutil.rmtree(path)
        removed.append(path)
    return removed


def _restore(path: Path) -> bool:
    final = path.with_name(path.name.split(".")[0])
    if final.exists():
        return False
    try:
        verify_checkpoint(path)
    except CheckpointError:
        return False
    path.rename(final)
    return True


def step_of(path: Path) -> int:
    match = CHECKPOINT_NAME.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path}: not a checkpoint folder; expected a name such as {checkpoint_name(120)}")
    return int(match[1])


def _write_folder(folder: Path, facts: Mapping[str, Any], writers: Mapping[str, Callable[[Path], None]]) -> None:
    """Write all files, each flushed to disk, then the manifest."""
    files: dict[str, dict[str, Any]] = {}
    for name, write in writers.items():
        path = folder / name
        with name_full_disk(path):
            write(path)
        obey_umask(path)
        _fsync(path)
        files[name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    body = {**facts, "files": files}
    manifest = folder / MANIFEST_NAME
    manifest.write_text(json.dumps({**body, "sha256": _body_hash(body)}, indent=1) + "\n", encoding="utf-8")
    _fsync(manifest)
    sync_folder(folder)


def _body_hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _fsync(path: Path) -> None:
    """Flush a file to the disk, so that after a power cut it is not older than the rename."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
