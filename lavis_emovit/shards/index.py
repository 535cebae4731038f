"""The index of a set of shards: two files beside the shards, written after them.

`index.json` is the head: the shards with their sizes and hashes, and the names behind numbers. `index.safetensors`
holds the per-sample columns. This way ten million samples open in about a second.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer, file_sha256, find_files
from lavis_emovit.own_files import Written, read_own
from lavis_emovit.shards.columns import (
    COLUMN_TYPES,
    COLUMNS_NAME,
    INDEX_NAME,
    NO_LABEL,
    PAIR_COLUMNS,
    IndexFormat,
    checksum,
    decode_version_1,
    join_columns,
    map_columns,
    typed_column,
    write_columns,
)

if TYPE_CHECKING:
    from lavis_emovit.shards.remote import ShardCache

INDEX_FORMAT = "emovit-shards"
INDEX_VERSION = 2
READABLE_VERSIONS = (1, 2)

_REBUILD = "Build the shards again (`emovit shards build`), or restore the folder from a backup."


@dataclass(frozen=True)
class ShardInfo:
    """One tar file of the set."""

    name: str
    num_samples: int
    num_pairs: int
    size_bytes: int
    sha256: str
    label_histogram: dict[str, int]

    def is_at(self, path: Path) -> bool:
        """Whether a file is this shard, byte for byte; OSError if there is none."""
        return path.stat().st_size == self.size_bytes and file_sha256(path) == self.sha256


class _StoredShard(Written):
    name: str
    num_samples: int = Field(ge=0)
    num_pairs: int = Field(ge=0)
    size_bytes: int = Field(ge=0)
    sha256: str
    label_histogram: dict[str, int]
    columns: dict[str, str]


class _Build(Written):
    """The settings of the build; `records` is the file of the records of foreign shards."""

    records: str | None = None


class _StoredIndex(IndexFormat):
    """The file `index.json`."""

    hash: str
    label_sets: list[str]
    labels: list[str]
    kinds: list[str]
    build: _Build
    shards: list[_StoredShard]


class ShardIndex:
    """The contents of a folder of shards; see `lavis_emovit.shards.columns` for the columns.

    `labels` and `kinds` are the names behind the numbers in the columns `label` and `pair_kind`, and `label_sets` the
    label sets of the labels. `build` has the settings of the build and the skipped samples. `hash` is a sha256 over
    everything but `folder`. Remote shards are fetched from `cache` (None for local shards), and `folder` is their
    folder in the cache.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        shards: Sequence[ShardInfo],
        columns: Mapping[str, Any],
        *,
        labels: Sequence[str],
        kinds: Sequence[str],
        label_sets: Sequence[str],
        build: Mapping[str, Any],
        content_hash: str | None = None,
    ):
        self.folder = Path(folder)
        self.shards = tuple(shards)
        self.labels, self.kinds, self.label_sets = tuple(labels), tuple(kinds), tuple(label_sets)
        self.build = dict(build)
        self.cache: ShardCache | None = None
        self.num_samples = sum(shard.num_samples for shard in self.shards)
        self.num_pairs = sum(shard.num_pairs for shard in self.shards)
        self.columns = {name: typed_column(name, columns[name]) for name in COLUMN_TYPES}
        for name, column in self.columns.items():
            expected = self.num_pairs if name in PAIR_COLUMNS else self.num_samples
            if len(column) != expected:
                raise ValueError(f"column '{name}' has {len(column)} values for {expected} entries")
        if int(self.columns["num_pairs"].sum(dtype=np.int64)) != self.num_pairs:
            raise ValueError("the pairs of the samples don't add up to the pairs of the shards")
        self.sample_starts = _starts([shard.num_samples for shard in self.shards])
        self._columns_path: Path | None = None
        self.hash = content_hash or _content_hash(self._content())

    @property
    def label_histogram(self) -> dict[str, int]:
        """Label -> number of samples, in the order of `labels`, without unlabelled samples."""
        numbers = self.columns["label"]
        counts = np.bincount(numbers[numbers >= 0], minlength=len(self.labels))
        return {label: int(count) for label, count in zip(self.labels, counts)}

    @property
    def place(self) -> str:
        """Where it is: its folder, or its URL."""
        return str(self.folder) if self.cache is None else self.cache.url

    @property
    def records_name(self) -> str | None:
        """The file with the records of tars made by other tools; None if the shards contain their records."""
        return self.build.get("records")

    @cached_property
    def pair_starts(self) -> np.ndarray:
        """int64 [num_samples + 1]: where the pairs of each sample start in the pair columns."""
        return _starts(self.columns["num_pairs"])

    def shard_of(self, sample: int) -> int:
        """Number of the shard that holds a sample."""
        if not 0 <= sample < self.num_samples:
            raise IndexError(f"sample {sample} of {self.num_samples}")
        return int(np.searchsorted(self.sample_starts, sample, side="right")) - 1

    def key_of(self, sample: int) -> str:
        """A name for messages: shard file and the sample's number in it."""
        shard = self.shard_of(sample)
        return f"{self.shards[shard].name}, sample {sample - int(self.sample_starts[shard])}"

    def label_of(self, sample: int) -> str | None:
        number = int(self.columns["label"][sample])
        return None if number == NO_LABEL else self.labels[number]

    def samples_with(self, *, kinds: Sequence[str] | None = None, labelled: bool = False) -> np.ndarray:
        """Numbers (int64, ascending) of the samples with a pair of these kinds (None: any), or of the labelled ones."""
        if labelled:
            chosen = self.columns["label"] != NO_LABEL
        elif kinds is None:
            chosen = self.columns["num_pairs"] > 0
        else:
            starts, totals = self.pair_starts, _starts(self.pairs_of_kinds(kinds))
            chosen = totals[starts[1:]] > totals[starts[:-1]]
        return np.flatnonzero(chosen).astype(np.int64, copy=False)

    def pairs_of_kinds(self, kinds: Sequence[str] | None) -> np.ndarray:
        """bool [num_pairs]: which pairs are of one of the kinds."""
        if kinds is None:
            return np.ones(self.num_pairs, dtype=bool)
        return np.isin(self.columns["pair_kind"], [self.kinds.index(kind) for kind in kinds if kind in self.kinds])

    def parts(self) -> list[tuple[ShardInfo, dict[str, np.ndarray]]]:
        """Every shard with its part of the columns."""
        starts = self.sample_starts.tolist()
        pair_starts = _starts([shard.num_pairs for shard in self.shards]).tolist()
        parts = []
        for number, shard in enumerate(self.shards):
            samples, pairs = slice(*starts[number : number + 2]), slice(*pair_starts[number : number + 2])
            columns = {name: self.columns[name][pairs if name in PAIR_COLUMNS else samples] for name in COLUMN_TYPES}
            parts.append((shard, columns))
        return parts

    def local_path(self, number: int) -> Path:
        """Path of a shard on this machine; fetches a remote shard first (DataError if that fails)."""
        shard = self.shards[number]
        if self.cache is not None:
            return self.cache.fetch(shard.name, shard.size_bytes, shard.sha256)
        return self.folder / shard.name

    def check_files(self) -> None:
        """Compare names and sizes of local shards with the folder; DataError names all that differ."""
        if self.cache is not None:
            return
        problems = []
        for shard in self.shards:
            path = self.folder / shard.name
            try:
                size_bytes = path.stat().st_size
            except OSError:
                problems.append(f"{shard.name} is missing")
                continue
            if size_bytes != shard.size_bytes:
                problems.append(f"{shard.name} has {size_bytes} bytes, expected {shard.size_bytes}")
        if problems:
            raise DataError(f"{self.folder}: {'; '.join(problems)}. {_REBUILD}")

    def save(self) -> Path:
        """Write the index beside the shards: first the columns, then `index.json`, each atomically."""
        path = self.folder / INDEX_NAME
        self.folder.mkdir(parents=True, exist_ok=True)
        write_columns(self.folder / COLUMNS_NAME, self.columns)
        with atomic_writer(path) as file:
            json.dump({**self._content(), "hash": self.hash}, file, indent=1, ensure_ascii=False)
            file.write("\n")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str], cache: ShardCache | None = None) -> ShardIndex:
        """Open an index: `index.json` or its folder, on this machine or as a URL (`https://`, `s3://`, `gs://`).

        Remote shards are kept in `cache`, or the default cache. DataError if the index is missing, has another format,
        or was changed after it was written.
        """
        if "://" in os.fspath(path):
            from lavis_emovit.shards.remote import ShardCache

            cache = (cache or ShardCache()).at(os.fspath(path).removesuffix(f"/{INDEX_NAME}"))
            path = cache.fetch_index()
        path = Path(path)
        if path.is_dir():
            path = path / INDEX_NAME
        if not path.is_file():
            raise DataError(
                f"{path}: no shard index. Shards are complete only with an index; build them with "
                f"`emovit shards build RECORDS --images FOLDER --out {path.parent}`."
            )
        try:
            index = _load(path)
        except ValueError as error:
            reason = str(error) if isinstance(error, DataError) else f"{path}: damaged: {error}. {_REBUILD}"
            if cache is not None:
                cache.forget_index()
                reason = f"{cache.url}: the index cannot be used; the next call fetches it again. {reason}"
            raise DataError(reason) from None
        index.cache = cache
        return index

    def _content(self) -> dict[str, Any]:
        return {
            "format": INDEX_FORMAT,
            "version": INDEX_VERSION,
            "num_samples": self.num_samples,
            "num_pairs": self.num_pairs,
            "label_sets": list(self.label_sets),
            "labels": list(self.labels),
            "kinds": list(self.kinds),
            "label_histogram": self.label_histogram,
            "build": self.build,
            "shards": [
                {**asdict(shard), "columns": {name: checksum(column) for name, column in columns.items()}}
                for shard, columns in self.parts()
            ],
        }

    def __getstate__(self) -> dict[str, Any]:
        # Mapped columns are not pickled: the other process maps the file itself.
        left_out = {"pair_starts"} if self._columns_path is None else {"pair_starts", "columns"}
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._columns_path is not None:
            self.columns = map_columns(self._columns_path)


def find_indexes(place: str) -> list[str]:
    """The place itself if it is a URL or has an index, else the folders below it with one (DataError if none has)."""
    folder = Path(place)
    if "://" in place or (folder / INDEX_NAME).is_file():
        return [place]
    if not folder.is_dir():
        raise DataError(f"{place}: no such folder")
    found = [str(path.parent) for path in find_files(folder, f"*/{INDEX_NAME}")]
    if not found:
        raise DataError(
            f"{place}: no {INDEX_NAME} in it or in its folders. Shards are complete only with an index; build them "
            f"with `emovit shards build records.jsonl --out {place}`."
        )
    return found


def _load(path: Path) -> ShardIndex:
    stated = read_own(path, IndexFormat, _REBUILD)
    if stated.format != INDEX_FORMAT or stated.version not in READABLE_VERSIONS:
        versions = " and ".join(str(version) for version in READABLE_VERSIONS)
        raise DataError(
            f"{path}: format {stated.format} {stated.version}, but this version of the package reads "
            f"{INDEX_FORMAT} {versions}. Build the shards again, or install a newer version of the package."
        )
    content = read_own(path, _StoredIndex, _REBUILD).model_dump(exclude_unset=True)
    stored_hash = content.pop("hash")
    if _content_hash(content) != stored_hash:
        raise DataError(f"{path}: changed after it was written, its hash does not match. {_REBUILD}")
    shards, sums = [], []
    for item in content["shards"]:
        info = dict(item)
        sums.append(info.pop("columns"))
        shards.append(ShardInfo(**info))
    for name in [*(shard.name for shard in shards), content["build"].get("records") or "-"]:
        if Path(name).name != name or "\\" in name:
            raise ValueError(f"'{name}' is not a plain file name")
    columns_path = path.with_name(COLUMNS_NAME) if content["version"] > 1 else None
    if columns_path is None:
        # Version 1 has the columns themselves where version 2 has their checksums.
        columns = join_columns([{name: decode_version_1(part.get(name, "")) for name in COLUMN_TYPES} for part in sums])
    else:
        if not columns_path.is_file():
            raise DataError(f"{columns_path}: missing, but {path.name} needs it. {_REBUILD}")
        columns = map_columns(columns_path)
    index = ShardIndex(
        path.parent,
        shards,
        columns,
        labels=content["labels"],
        kinds=content["kinds"],
        label_sets=content["label_sets"],
        build=content["build"],
        content_hash=stored_hash,
    )
    if columns_path is not None:
        for (shard, part), expected in zip(index.parts(), sums):
            wrong = [name for name, column in part.items() if checksum(column) != expected.get(name)]
            if wrong:
                fault = f"changed after it was written, its column '{wrong[0]}' does not match shard {shard.name}"
                raise DataError(f"{columns_path}: {fault}. {_REBUILD}")
        index._columns_path = columns_path
    return index


def _starts(counts: Any) -> np.ndarray:
    """Running totals, starting with zero."""
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def _content_hash(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
