"""Atomic writes: a file appears under its final name only when it is complete and flushed to disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import reprlib
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, Any

from lavis_emovit.errors import DataError, UserError

TEMPORARY_SUFFIX = ".tmp"
# Of a part of a path that comes from data; file systems allow 255 with what we add, such as `.<name>.12345.tmp`.
MAX_NAME_BYTES = 200
_MAY_LEAVE_ROOT = re.compile(r"^/|\\|:|\.\.|\x00")
_UNSAFE_IN_NAMES = re.compile(r"[/\\:\x00-\x1f\x7f]")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
# Suffixes of images that only some installations of Pillow can decode, or none.
RARE_IMAGE_SUFFIXES = frozenset({".avif", ".heic", ".heif", ".jfif", ".jpe", ".jp2", ".jxl"})


def is_plain_name(text: str) -> bool:
    """Whether a name from data may become the name of a file or folder: one part of a path, not hidden."""
    plain = text == text.strip() and not text.startswith(".") and not _UNSAFE_IN_NAMES.search(text)
    return plain and 0 < len(text) <= 100 and len(text.encode(errors="replace")) <= MAX_NAME_BYTES


def cut_name(text: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """The beginning of a name that is no longer than this as UTF-8; file systems count bytes, not characters."""
    return text.encode(errors="replace")[:max_bytes].decode(errors="ignore")


def below_root(path: str) -> str:
    """A path from data, which must be below its root (else ValueError)."""
    # Paths without these are below the root, which is most of them.
    if _MAY_LEAVE_ROOT.search(path) is None:
        return path
    if "\0" in path:
        raise ValueError("has a null byte, which no path can have")
    parts = PurePosixPath(path)
    if parts.is_absolute() or "\\" in path or re.match(r"^[A-Za-z]:", path) or ".." in parts.parts:
        raise ValueError("must be a path below the image root, relative and with forward slashes")
    return path


def find_files(folder: Path, pattern: str) -> list[Path]:
    """The visible files and folders of a glob pattern, in order (macOS leaves `._name` beside `name`).

    DataError for a folder on the way that cannot be read, which `Path.glob` skips.
    """

    def visible(pattern: str) -> list[Path]:
        found = folder.glob(pattern) if pattern else (folder,)
        return [path for path in found if not any(map(is_system_name, path.relative_to(folder).parts))]

    parts = PurePosixPath(pattern).parts
    for place in chain.from_iterable(visible("/".join(parts[:end])) for end in range(len(parts))):
        try:
            with os.scandir(place):
                pass
        except NotADirectoryError:
            pass
        except OSError as error:
            refuse_unreadable(error)
    return sorted(visible(pattern))


def images_below(folder: Path) -> Iterator[Path]:
    """The image files below a folder, see `files_below`."""
    return files_below(folder, IMAGE_SUFFIXES | RARE_IMAGE_SUFFIXES)


def files_below(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """The files with these suffixes below a folder, in the same order on every machine, without hidden ones.

    DataError for a folder that cannot be read, and for a link to nothing, which may have been a folder of files.
    """
    seen: set[str] = set()
    for directory, folders, files in os.walk(folder, followlinks=True, onerror=refuse_unreadable):
        # A link may point to a folder above it; visit each folder once.
        if (real := os.path.realpath(directory)) in seen:
            folders.clear()
            continue
        seen.add(real)
        # Sorted, so that every machine gives the same order; hidden folders have thumbnails and the like.
        folders[:] = sorted(name for name in folders if not is_system_name(name))
        for name in sorted(files):
            path = Path(directory, name)
            if path.suffix.lower() in suffixes and not name.startswith("."):
                yield path
            elif not (path.suffix or name.startswith(".") or path.exists()):
                raise DataError(f"{path}: a link to a file or folder that does not exist. Restore or remove it.")


def refuse_unreadable(error: OSError) -> None:
    """DataError for a folder that cannot be read, also as the `onerror` of `os.walk`; a missing one is empty."""
    if not isinstance(error, FileNotFoundError):
        raise DataError(
            f"{error.filename}: the folder cannot be read ({error.strerror}). Give yourself permission to read it, or "
            "move it out of the data."
        ) from None


def is_system_name(name: str) -> bool:
    """Whether a folder is none of the user's: hidden, or one that archives and file systems add."""
    return name.startswith((".", "__MACOSX")) or name == "lost+found"


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file; OSError for anything else, since a pipe or a device may never end."""
    return regular_file(path).read_bytes()


def regular_file(path: str | os.PathLike[str]) -> Path:
    """The path of a regular file; OSError for anything else, IsADirectoryError for a folder."""
    path = Path(path)
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def load_json(content: str | bytes, *, unique_keys: bool = False) -> Any:
    """JSON from outside; ValueError for any text that is not JSON, or not UTF-8, or too deeply nested.

    With `unique_keys`, also for an object with a repeated key, of which Python keeps only the last value.
    """
    try:
        return json.loads(content, object_pairs_hook=with_unique_keys if unique_keys else None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_json(content: str | bytes, place: str, *, unique_keys: bool = False) -> Any:
    """As `load_json`; DataError, with `place`, instead of ValueError."""
    try:
        return load_json(content, unique_keys=unique_keys)
    except ValueError as error:
        raise DataError(f"{place}: not JSON ({error})") from None


def load_yaml(text: str) -> Any:
    """YAML from outside; ValueError for any text that is not YAML, or too deeply nested."""
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(reason) from None


def with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values; ValueError if a key is repeated."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{repeated}' is repeated in {reprlib.repr(found)}; keep one of them")
    return found


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`. When the block succeeds, the file there is flushed and renamed to `path`.

    DataError for a path that is a folder, a device or a pipe: renaming would replace even /dev/null.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a device or a pipe, which a file would replace"
        raise DataError(f"{path}: is {what}. Name a file.")
    # The process id keeps two writers of one file apart: the last to finish wins, and neither file is a mixture.
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    with name_full_disk(path):
        try:
            yield temporary
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`. When the block succeeds, it is flushed and renamed to `path`.

    DataError if there is a folder with content at that time; the block may remove it last.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with name_full_disk(path):
            temporary.mkdir(parents=True)
            yield temporary
        sync_folder(temporary)
        try:
            temporary.replace(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise DataError(f"{path}: has content that came after the start; use another folder") from None
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def obey_umask(path: Path) -> None:
    """Give a file the permissions of any new file here; safetensors makes files that only their owner can read."""
    probe = path.with_name(f".{path.name}.{os.getpid()}.mode")
    # The umask itself cannot be read without changing it for all threads.
    with probe.open("wb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    probe.unlink()
    path.chmod(mode)


def write_json(path: str | os.PathLike[str], content: Any, indent: int = 2) -> None:
    with atomic_writer(path) as file:
        json.dump(content, file, ensure_ascii=False, indent=indent)
        file.write("\n")


@contextmanager
def atomic_writer(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file, as text (UTF-8, `\\n` line ends) or `wb`, that appears only if the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with atomic_path(path) as temporary, temporary.open(mode, **text) as file:
        yield file


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Flush a folder's entries, so that a rename survives a power cut. No-op where the system does not support it."""
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
    """Hex sha256 of a regular file, read in pieces; OSError as `read_file`."""
    digest = hashlib.sha256()
    with regular_file(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


# A full disk, a full quota, and a file that has reached the largest size allowed.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FILE_IN_PLACE = "a file is in the place of a folder. Move the file, or use another path."
_ADVICE = {
    errno.EEXIST: _FILE_IN_PLACE,  # of making a folder; nothing here refuses to replace a file by this error
    errno.ENOTDIR: _FILE_IN_PLACE,
    errno.EISDIR: "a folder is in the place of a file. Name a file.",
    errno.ENAMETOOLONG: "the name is too long for the file system. Use a shorter one.",
}


def os_error_text(error: OSError) -> str:
    """What a user reads about an error of the system, with advice where there is some."""
    if error.filename is not None and error.errno in FORBIDDEN:
        return f"{error.filename}: {error.strerror}. Change the permissions there, or use another path."
    if error.filename is not None and error.errno in FULL:
        return f"{error.filename}: {error.strerror}. Free some space and run the same command again."
    if error.filename is not None and error.errno in _ADVICE:
        return f"{error.filename}: {_ADVICE[error.errno]}"
    return str(error)


@contextmanager
def name_full_disk(path: Path) -> Iterator[None]:
    """Raise an OSError that names `path` if the disk is full or the place is write-protected.

    torch and safetensors report these by other errors, and an OSError may name a temporary file beside `path`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        quoted = re.search(r"\(os error (\d+)\)", str(error))  # of a library in Rust
        number = cause.errno if isinstance(cause, OSError) else int(quoted[1]) if quoted else None
        named = error.filename if cause is error else None
        is_temporary = named is not None and str(named).startswith(str(path.with_name(f".{path.name}.")))
        is_ours = number in FULL or (quoted is not None and number in FORBIDDEN)
        if number is None or not (is_temporary or (is_ours and named is None)):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def explain_full_disk(folder: Path, resumes_from: str = "the newest checkpoint") -> Iterator[None]:
    """Replace the system's error about a full disk with a UserError that says what to do; other errors pass through."""
    try:
        with name_full_disk(folder):
            yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"{error.filename} cannot be written: {error.strerror}. Free some space and run the same command "
            f"again: it resumes from {resumes_from}, and earlier files are complete."
        ) from error
