"""Files that are either whole or not there: written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lavis_emovit.errors import UserError

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def atomic_writer(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing that appears under its name only when the block ends without an error.

    Args:
        path: final name; its folder is made where missing.
        mode: `w` (text, UTF-8, `\\n` line ends) or `wb`.

    Yields:
        the open temporary file, in the same folder as the final one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers of one file apart; the last to finish wins, and neither file is a mixture.
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with temporary.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write a JSON file, indented by 2."""
    with atomic_writer(path) as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
        file.write("\n")


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Flush a folder's own entries, so that a rename survives a power cut. Does nothing where the system cannot."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:
        # Some network file systems refuse to flush a folder; the rename itself is still atomic there.
        pass
    finally:
        os.close(handle)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


# What the system says where a disk, a quota or the largest allowed file is full.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def explain_full_disk(folder: Path, goes_on: str = "from the newest checkpoint") -> Iterator[None]:
    """Turn the system's word that nothing more can be written into one that says what to do.

    Args:
        folder: that is written to.
        goes_on: where the same command goes on.

    Raises:
        UserError: in the place of such an OSError; others pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise UserError(
            f"{error.filename or folder} cannot be written: {error.strerror}. Make room and start the same command "
            f"again: it goes on {goes_on}, and earlier files are whole."
        ) from error
