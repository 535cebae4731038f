"""Remote shards: fetched through fsspec when first needed, verified by hash, kept in a folder bounded in bytes.

Any process of a machine may use the cache at once. A shard is fetched under a lock of its own and appears under its
name only when its hash fits; when the folder would grow over its bound, the shards opened longest ago go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from lavis_emovit.errors import DataError
from lavis_emovit.files import TEMPORARY_SUFFIX

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "EMOVIT_CACHE"
CACHE_BYTES_VARIABLE = "EMOVIT_CACHE_GB"
DEFAULT_MAX_BYTES = 50 * 10**9
_LOCK_SUFFIX = ".lock"
_PIECE_BYTES = 1 << 20

ResultT = TypeVar("ResultT")


def default_cache_folder() -> Path:
    """`EMOVIT_CACHE`, or `~/.cache/emovit/shards`."""
    return Path(os.environ.get(CACHE_VARIABLE, "~/.cache/emovit/shards")).expanduser().absolute()


def default_max_bytes() -> int:
    """`EMOVIT_CACHE_GB` (decimal gigabytes), or 50.

    Raises:
        DataError: the variable is not a positive number.
    """
    text = os.environ.get(CACHE_BYTES_VARIABLE)
    if text is None:
        return DEFAULT_MAX_BYTES
    try:
        size_gb = float(text)
    except ValueError:
        size_gb = 0.0
    if not size_gb > 0:
        raise DataError(f"{CACHE_BYTES_VARIABLE}={text}: must be the size of the shard cache in gigabytes, above 0")
    return int(size_gb * 10**9)


class ShardCache:
    """A bounded folder of files from one remote place.

    Args:
        folder: the cache's folder, shared by all places; None takes `default_cache_folder()`.
        max_bytes: most bytes that all shards in the folder take together; None takes `default_max_bytes()`.
        attempts: how often a transfer is tried.
        wait_s: pause before the second try; it doubles with each.
        options: passed on to the fsspec file system (credentials, endpoint).
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        max_bytes: int | None = None,
        *,
        attempts: int = 5,
        wait_s: float = 0.5,
        options: dict[str, Any] | None = None,
    ):
        self.root = Path(folder).absolute() if folder is not None else default_cache_folder()
        self.max_bytes = max_bytes if max_bytes is not None else default_max_bytes()
        self.attempts, self.wait_s = attempts, wait_s
        self.options = dict(options or {})
        self.url = ""
        self.folder = self.root

    def at(self, url: str) -> ShardCache:
        """The same cache for the files below a URL."""
        found = ShardCache(self.root, self.max_bytes, attempts=self.attempts, wait_s=self.wait_s, options=self.options)
        found.url = url.rstrip("/")
        found.folder = self.root / hashlib.sha256(found.url.encode()).hexdigest()[:24]
        return found

    def fetch_index(self) -> Path:
        """Fetch the two files of the index, anew where they changed, and give the path of `index.json`.

        Raises:
            DataError: there is no index, or it cannot be fetched.
        """
        from lavis_emovit.shards.columns import COLUMNS_NAME
        from lavis_emovit.shards.index import INDEX_NAME

        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".index{_LOCK_SUFFIX}"):
            head = self._retry(INDEX_NAME, lambda: self._read(INDEX_NAME))
            path = self.folder / INDEX_NAME
            if not (path.is_file() and path.read_bytes() == head and (self.folder / COLUMNS_NAME).is_file()):
                # Another set lies there now: nothing of the earlier one may be taken for its own.
                for stale in [path, *self.folder.glob("[!.]*")]:
                    stale.unlink(missing_ok=True)
                if b'"version": 1,' not in head[:200]:
                    self._retry(COLUMNS_NAME, lambda: self._download(COLUMNS_NAME, None, None))
                temporary = self._temporary(INDEX_NAME)
                temporary.write_bytes(head)
                temporary.replace(path)
        return path

    def fetch(self, name: str, size_bytes: int | None, sha256: str | None) -> Path:
        """The local copy of a file, fetched if it is not there.

        The file may be removed for another one at any time: open it at once, and ask again where it is gone.

        Raises:
            DataError: it cannot be fetched, is not the one that was indexed, or is larger than the whole cache.
        """
        path = self.folder / name
        if self._is_there(path, size_bytes):
            return path
        if size_bytes is not None and size_bytes > self.max_bytes:
            raise DataError(
                f"{self.url}/{name}: {size_bytes} bytes, more than the whole shard cache of {self.max_bytes}. "
                f"Set {CACHE_BYTES_VARIABLE} (gigabytes) to several shards' size."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{name}{_LOCK_SUFFIX}"):
            if not self._is_there(path, size_bytes):
                self._make_room(size_bytes or 0)
                self._retry(name, lambda: self._download(name, size_bytes, sha256))
        return path

    def _is_there(self, path: Path, size_bytes: int | None) -> bool:
        try:
            found = path.stat().st_size
            if size_bytes is not None and found != size_bytes:
                return False
            os.utime(path)  # what was opened last is kept longest
        except FileNotFoundError:
            return False
        return True

    def _make_room(self, size_bytes: int) -> None:
        """Remove the shards that were opened longest ago until so many bytes fit."""
        with FileLock(self.root / f".room{_LOCK_SUFFIX}"):
            files = []
            for path in self.root.glob("*/*.tar"):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    files.append((status.st_mtime_ns, status.st_size, path))
            # Transfers that are under way take room as well.
            total = sum(size for _, size, _ in files) + sum(
                path.stat().st_size for path in self.root.glob(f"*/.*{TEMPORARY_SUFFIX}") if self._lives(path)
            )
            for _, size, path in sorted(files):
                if total + size_bytes <= self.max_bytes:
                    break
                path.unlink(missing_ok=True)
                total -= size

    @staticmethod
    def _lives(path: Path) -> bool:
        """Whether the process that writes a temporary file still runs; what a dead one left is removed."""
        try:
            os.kill(int(path.name.removesuffix(TEMPORARY_SUFFIX).rpartition(".")[2]), 0)
        except (ProcessLookupError, ValueError):
            path.unlink(missing_ok=True)
            return False
        except PermissionError:
            pass
        return path.exists()

    def _temporary(self, name: str) -> Path:
        return self.folder / f".{name}.{os.getpid()}{TEMPORARY_SUFFIX}"

    def _download(self, name: str, size_bytes: int | None, sha256: str | None) -> None:
        temporary = self._temporary(name)
        digest, received = hashlib.sha256(), 0
        try:
            with (
                self._file_system().open(f"{self.url}/{name}", "rb", block_size=0) as remote,
                temporary.open("wb") as file,
            ):
                while piece := remote.read(_PIECE_BYTES):
                    digest.update(piece)
                    received += len(piece)
                    file.write(piece)
            if size_bytes is not None and received != size_bytes:
                raise OSError(f"{received} bytes arrived, {size_bytes} are indexed")
            if sha256 is not None and digest.hexdigest() != sha256:
                raise OSError("its sha256 is not the one in the index")
            temporary.replace(self.folder / name)
        finally:
            temporary.unlink(missing_ok=True)

    def _read(self, name: str) -> bytes:
        with self._file_system().open(f"{self.url}/{name}", "rb", block_size=0) as remote:
            return remote.read()

    def _file_system(self) -> Any:
        import fsspec

        protocol = self.url.partition("://")[0]
        try:
            return fsspec.filesystem(protocol, **self.options)
        except (ImportError, ValueError) as error:
            package = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}.get(protocol, "the package that it names")
            raise DataError(
                f"{self.url}: fsspec cannot open {protocol}:// here ({error}). Install {package}."
            ) from None

    def _retry(self, name: str, action: Callable[[], ResultT]) -> ResultT:
        last: Exception = OSError("nothing was tried")
        for attempt in range(self.attempts):
            if attempt:
                # Jitter keeps the workers of a run from asking all at once again.
                time.sleep(self.wait_s * 2 ** (attempt - 1) * (0.5 + random.Random(os.getpid() + attempt).random()))
            try:
                return action()
            except DataError:
                raise
            except FileNotFoundError:
                raise DataError(
                    f"{self.url}/{name}: not there. Is the address right, and is the set complete?"
                ) from None
            except Exception as error:
                # Every file system of fsspec has its own exceptions for a broken transfer.
                last = error
                logger.warning(
                    "%s/%s: try %d of %d failed: %s", self.url, name, attempt + 1, self.attempts, _text(error)
                )
        raise DataError(
            f"{self.url}/{name}: {self.attempts} tries failed, the last with: {_text(last)}. "
            "Run the same command again when the connection is back, or copy the shards to this machine."
        ) from None


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
