"""Remote shards: fetched through fsspec when first needed, verified by hash, kept in a cache folder of limited size.

All processes of a machine may share the cache. A shard is fetched under its own lock and appears under its name only
if its hash matches. When the folder would exceed its limit, the least recently opened shards are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
from filelock import FileLock

from lavis_emovit.errors import DataError
from lavis_emovit.files import TEMPORARY_SUFFIX, atomic_writer, file_sha256
from lavis_emovit.outside import scrub
from lavis_emovit.own_files import parse_own
from lavis_emovit.paths import expand_home
from lavis_emovit.shards.columns import COLUMNS_NAME, INDEX_NAME, IndexFormat

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "EMOVIT_CACHE"
CACHE_BYTES_VARIABLE = "EMOVIT_CACHE_GB"
DEFAULT_MAX_BYTES = 50 * 10**9
_LOCK_SUFFIX = ".lock"
_RESERVED_SUFFIX = ".reserved"
_POLL_S = 0.05
MAX_INDEX_BYTES = 2**30  # of each file of an index; the columns of ten million samples have about 430 MB
_PASSING_STATUS = (408, 425, 429)  # timeout, too early, too many requests
_TIMEOUT_S = 60.0  # without receiving a byte

ResultT = TypeVar("ResultT")


def default_max_bytes() -> int:
    """`EMOVIT_CACHE_GB` (decimal gigabytes), or 50. DataError if the variable is not a positive number."""
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
    """A cache folder of limited size for the files of one URL; all URLs share the folder and its limit.

    The pause `wait_s` before the second attempt of a transfer doubles with each further one. `options` (credentials,
    endpoint) go to the fsspec file system.
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
        default = os.environ.get(CACHE_VARIABLE, "~/.cache/emovit/shards")
        self.root = (Path(folder) if folder is not None else expand_home(default)).absolute()
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
        """Fetch both files of the index, again if they changed; returns the path of `index.json` (else DataError)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".index{_LOCK_SUFFIX}"):
            head = self._retry(INDEX_NAME, lambda: self._read(INDEX_NAME))
            place = f"{self.url}/{INDEX_NAME}"
            content = parse_own(head, IndexFormat, place, "Check the URL and that the set is complete.")
            path = self.folder / INDEX_NAME
            if not (path.is_file() and path.read_bytes() == head and (self.folder / COLUMNS_NAME).is_file()):
                # The URL has another set now: delete all files of the earlier one.
                for stale in [path, *self.folder.glob("[!.]*")]:
                    stale.unlink(missing_ok=True)
                if content.version != 1:
                    self._retry(COLUMNS_NAME, lambda: self._download(COLUMNS_NAME))
                with atomic_writer(path, "wb") as file:
                    file.write(head)
        return path

    def forget_index(self) -> None:
        """Remove both files of a damaged index, so that the next call fetches them again."""
        for name in (INDEX_NAME, COLUMNS_NAME):
            (self.folder / name).unlink(missing_ok=True)

    def fetch(self, name: str, size_bytes: int, sha256: str) -> Path:
        """The local copy of a file; fetches it if it is missing.

        Another process may evict the file at any time: open it at once, and fetch again if it is gone. DataError if it
        cannot be fetched, is not the indexed one, or is larger than the whole cache.
        """
        path = self.folder / name
        if self._is_cached(path, size_bytes):
            return path
        if size_bytes > self.max_bytes:
            raise DataError(
                f"{self.url}/{name}: {size_bytes} bytes, more than the whole shard cache of {self.max_bytes}. "
                f"Set {CACHE_BYTES_VARIABLE} (gigabytes) to the size of several shards."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{name}{_LOCK_SUFFIX}"):
            if not self._is_cached(path, size_bytes):
                with self._room(name, size_bytes):
                    self._retry(name, lambda: self._download(name, size_bytes, sha256))
        return path

    def _is_cached(self, path: Path, size_bytes: int) -> bool:
        try:
            if path.stat().st_size != size_bytes:
                return False
            os.utime(path)  # the least recently opened shards are evicted first
        except FileNotFoundError:
            return False
        return True

    @contextlib.contextmanager
    def _room(self, name: str, size_bytes: int) -> Iterator[None]:
        """Reserve space for a file while it is fetched: evict old shards, or wait for other processes."""
        reserved = self._temporary(name).with_suffix(_RESERVED_SUFFIX)
        while not self._reserve(reserved, size_bytes):
            time.sleep(_POLL_S)  # transfers of other processes hold the rest
        try:
            yield
        finally:
            reserved.unlink(missing_ok=True)

    def _reserve(self, reserved: Path, size_bytes: int) -> bool:
        with FileLock(self.root / f".room{_LOCK_SUFFIX}"):
            total = size_bytes
            files = []
            for path in self.root.glob("*/*.tar"):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    files.append((status.st_mtime_ns, status.st_size, path))
                    total += status.st_size
            for path in self.root.glob(f"*/.*{_RESERVED_SUFFIX}"):
                with contextlib.suppress(FileNotFoundError):
                    if _writer_lives(path):
                        total += int(path.read_text() or 0)
                    else:
                        path.with_suffix(TEMPORARY_SUFFIX).unlink(missing_ok=True)
                        path.unlink()
            for _, size, path in sorted(files):
                if total <= self.max_bytes:
                    break
                path.unlink(missing_ok=True)
                total -= size
            if total > self.max_bytes:
                return False
            reserved.write_text(str(size_bytes))
            return True

    def _temporary(self, name: str) -> Path:
        return self.folder / f".{name}.{os.getpid()}{TEMPORARY_SUFFIX}"

    def _download(self, name: str, size_bytes: int | None = None, sha256: str | None = None) -> None:
        with self._received(name, size_bytes if size_bytes is not None else MAX_INDEX_BYTES) as temporary:
            received = temporary.stat().st_size
            if size_bytes is not None and received != size_bytes:
                raise OSError(f"received {received} bytes, expected {size_bytes}")
            if sha256 is not None and file_sha256(temporary) != sha256:
                raise OSError("received other content than the indexed one, its sha256 does not match")
            temporary.replace(self.folder / name)

    def _read(self, name: str) -> bytes:
        with self._received(name, MAX_INDEX_BYTES) as temporary:
            return temporary.read_bytes()

    @contextlib.contextmanager
    def _received(self, name: str, limit: int) -> Iterator[Path]:
        """A fetched file, under a temporary name while the block runs.

        DataError as soon as it has more than `limit` bytes, since a server may send without end.
        """
        from fsspec.callbacks import Callback

        def check(size: int | None, value: int, **_: Any) -> None:
            if max(size or 0, value) > limit:
                raise DataError(
                    f"{self.url}/{name}: more than {limit} bytes, the most that it may have. "
                    "Check the URL and that the set is complete."
                )

        system, path = self._open(name)
        temporary = self._temporary(name)
        try:
            system.get_file(path, str(temporary), callback=Callback(hooks={"limit": check}))
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _open(self, name: str) -> tuple[Any, str]:
        """The file system of the URL, and a file's path in it."""
        from fsspec.core import url_to_fs

        protocol = self.url.partition("://")[0]
        options = dict(self.options)
        if protocol in ("http", "https"):
            from aiohttp import ClientTimeout

            # The default limit of five minutes per transfer is too short for a large shard on a slow connection.
            timeout = ClientTimeout(total=None, sock_connect=_TIMEOUT_S, sock_read=_TIMEOUT_S)
            options.setdefault("client_kwargs", {"timeout": timeout})
        try:
            return url_to_fs(f"{self.url}/{name}", **options)
        except (ImportError, ValueError) as error:
            package = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}.get(protocol)
            advice = f"Install {package}." if package else "Use a URL that starts with https://, s3:// or gs://."
            raise DataError(f"{self.url}: cannot be opened ({error}). {advice}") from None

    def _retry(self, name: str, action: Callable[[], ResultT]) -> ResultT:
        last: Exception = OSError("no attempt")
        for attempt in range(self.attempts):
            if attempt:
                # Jitter keeps the workers of a run from retrying all at once.
                time.sleep(self.wait_s * 2 ** (attempt - 1) * (0.5 + random.Random(os.getpid() + attempt).random()))
            try:
                return action()
            except DataError:
                raise
            except FileNotFoundError:
                raise DataError(f"{self.url}/{name}: not found. Check the URL and that the set is complete.") from None
            except Exception as error:
                if (fault := _lasting_fault(error)) is not None:
                    raise DataError(
                        f"{self.url}/{name}: the server {fault} ({_text(error)}). Check the URL and whether it needs "
                        "credentials."
                    ) from None
                # Each fsspec file system has its own exceptions for failed transfers.
                last = error
                place, reason = scrub(f"{self.url}/{name}"), scrub(_text(error))
                logger.warning("%s: attempt %d of %d failed: %s", place, attempt + 1, self.attempts, reason)
        raise DataError(
            f"{self.url}/{name}: {self.attempts} attempts failed, the last with: {_text(last)}. "
            "Run the same command again when the connection works, or copy the shards to this machine."
        ) from None


def _writer_lives(path: Path) -> bool:
    """Whether the process whose id is in the file's name still runs."""
    number = path.stem.rpartition(".")[2]
    return number.isdigit() and psutil.pid_exists(int(number))


def _lasting_fault(error: Exception) -> str | None:
    """What a server does at every attempt; None for faults that may pass."""
    status = getattr(error, "status", None)
    # A PermissionError of this machine names a file.
    if status in (401, 403) or (isinstance(error, PermissionError) and error.filename is None):
        return "refuses access"
    # aiohttp gives this error the status 0.
    if type(error).__name__ == "TooManyRedirects":
        return "redirects without end"
    lasting = isinstance(status, int) and 400 <= status < 500 and status not in _PASSING_STATUS
    return "refuses the request" if lasting else None


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
