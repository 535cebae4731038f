"""Checkpoints: a folder that counts only when its MANIFEST.json verifies.

A save writes `ckpt-<step>.tmp-<nonce>/`, flushes each file to disk, writes the manifest (size and sha256 of each file)
last, and renames the folder once. So whatever happens to the machine, a folder under a final name is either whole or is
recognised as damaged, and the loader goes back to the newest one that is whole. Nothing in a checkpoint is pickled.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lavis_emovit.errors import UserError
from lavis_emovit.files import file_sha256, sync_folder

logger = logging.getLogger(__name__)

MANIFEST_NAME = "MANIFEST.json"
FORMAT_VERSION = 1
_FINAL_NAME = re.compile(r"ckpt-(\d+)")
_LEFTOVER_NAME = re.compile(r"ckpt-\d+\.(tmp|old|replaced)-[0-9a-f]+")


class CheckpointError(UserError):
    """A checkpoint folder that cannot be used; the text names the file and what is wrong with it."""


@dataclass(frozen=True)
class Manifest:
    """What a verified checkpoint says about itself.

    Attributes:
        step: optimizer steps done.
        epoch: epoch in which the next step lies.
        index_hash: hash of the training data's index.
        config_hash: hash of the settings that decide what a run computes.
        frozen_fingerprint: names the frozen weights, which a checkpoint does not hold.
        versions: packages that wrote it.
        files: file name -> {"bytes", "sha256"}.
    """

    step: int
    epoch: int
    index_hash: str
    config_hash: str
    frozen_fingerprint: str
    versions: dict[str, str]
    files: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Rejected:
    """A checkpoint folder that was passed over, and why."""

    path: Path
    reason: str


def checkpoint_name(step: int) -> str:
    return f"ckpt-{step:08d}"


def save_checkpoint(
    root: Path,
    *,
    step: int,
    epoch: int,
    index_hash: str,
    config_hash: str,
    frozen_fingerprint: str,
    versions: Mapping[str, str],
    writers: Mapping[str, Callable[[Path], None]],
) -> Path:
    """Write one checkpoint so that it appears under its final name complete or not at all.

    Args:
        root: folder of the run's checkpoints, made if missing.
        writers: file name -> function that writes that file to the path it is given.

    Returns:
        the final folder, `root/ckpt-<step>`. An older folder of that name is replaced.

    Raises:
        CheckpointError: a file cannot be written, on a full disk for one; nothing is left of the attempt.
    """
    final = root / checkpoint_name(step)
    nonce = secrets.token_hex(4)
    temporary = root / f"{final.name}.tmp-{nonce}"
    facts = {
        "format": FORMAT_VERSION,
        "step": step,
        "epoch": epoch,
        "index_hash": index_hash,
        "config_hash": config_hash,
        "frozen_fingerprint": frozen_fingerprint,
        "versions": dict(versions),
    }
    try:
        temporary.mkdir(parents=True)
        _write_folder(temporary, facts, writers)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"{final} cannot be saved: {error}. Earlier checkpoints are whole; put this right and start the run again."
        ) from error
    try:
        if final.exists():
            # One that was rejected, or one of the same step that another save follows. A machine that stops between
            # the two renames has it put back by `remove_leftovers`.
            final.rename(root / f"{final.name}.replaced-{nonce}")
        temporary.rename(final)
        sync_folder(root)
        remove_leftovers(root)
    except OSError as error:
        raise CheckpointError(f"{final} cannot be put into its place: {error}") from error
    return final


def verify_checkpoint(path: Path) -> Manifest:
    """Check a checkpoint folder against its manifest, byte for byte.

    Raises:
        CheckpointError: names the file and what is wrong: missing, cut, changed, or no manifest at all.
    """
    manifest_path = path / MANIFEST_NAME
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint folder")
    try:
        text = manifest_path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(f"{manifest_path}: missing, so the save was not finished") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{manifest_path}: cannot be read: {error}") from None
    try:
        body = json.loads(text)
        stated_hash = body.pop("sha256")
        version = body["format"]
        manifest = Manifest(**{key: value for key, value in body.items() if key != "format"})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{manifest_path}: damaged: {error}") from None
    if stated_hash != _body_hash(body):
        raise CheckpointError(f"{manifest_path}: damaged: its content does not match its own sha256")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{manifest_path}: format {version}, this version reads {FORMAT_VERSION}")
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


def list_checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders under `root`, oldest step first, verified or not."""
    if not root.is_dir():
        return []
    found = [(int(match[1]), path) for path in root.iterdir() if (match := _FINAL_NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def newest_checkpoint(root: Path) -> tuple[Path | None, Manifest | None, list[Rejected]]:
    """The newest checkpoint that verifies, its manifest, and those newer ones that had to be passed over."""
    rejected: list[Rejected] = []
    for path in reversed(list_checkpoints(root)):
        try:
            return path, verify_checkpoint(path), rejected
        except CheckpointError as error:
            rejected.append(Rejected(path, str(error)))
    return None, None, rejected


def purge_checkpoints(root: Path, *, newest_step: int, keep_last: int, keep_steps: set[int]) -> list[Path]:
    """Delete old checkpoints after a save.

    Args:
        newest_step: the step just saved. Its files were hashed as they were written, so one good checkpoint stays
            whatever the state of the others; folders of later steps are left alone.
        keep_last: how many to keep, the newest included.
        keep_steps: steps to keep besides, such as the best one.

    Returns:
        the folders deleted.
    """
    older = [path for path in list_checkpoints(root) if step_of(path) <= newest_step]
    gone = [path for path in older[:-keep_last] if step_of(path) not in keep_steps]
    for path in gone:
        # Renamed first: a folder half deleted must not stand under a final name.
        leftover = path.rename(root / f"{path.name}.old-{secrets.token_hex(4)}")
        shutil.rmtree(leftover)
    return gone


def remove_leftovers(root: Path) -> list[Path]:
    """Delete what saves that were cut off left behind. The caller holds the lock of the run's folder.

    A whole checkpoint that was moved aside for one that never came is put back instead: it may be the only one.
    """
    if not root.is_dir():
        return []
    removed = []
    for path in sorted(root.iterdir()):
        if not _LEFTOVER_NAME.fullmatch(path.name):
            continue
        if ".replaced-" in path.name and _put_back(path):
            logger.info("put back %s, for which a save was cut off", path.name.split(".")[0])
            continue
        shutil.rmtree(path)
        removed.append(path)
    return removed


def _put_back(path: Path) -> bool:
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
    match = _FINAL_NAME.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path}: not a checkpoint folder, their names are like {checkpoint_name(120)}")
    return int(match[1])


def _write_folder(folder: Path, facts: Mapping[str, Any], writers: Mapping[str, Callable[[Path], None]]) -> None:
    """All files, each flushed to disk, and after them the manifest."""
    files: dict[str, dict[str, Any]] = {}
    for name, write in writers.items():
        path = folder / name
        write(path)
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
    """Flush a file to the disk, so that a power cut cannot reorder it behind the rename."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
