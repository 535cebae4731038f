"""The index of a set of shards: what lies where, kept beside the shards as `index.json` and written after them.

The head of each shard (name, size, hash, label histogram) is plain JSON. What there is one of for every sample (byte
offsets, sizes, checksum, label, text lengths) is a column: a little-endian integer array as base64, with its type in
front (`<u4:...`). Ten million samples stay loadable that way.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer

INDEX_NAME = "index.json"
INDEX_FORMAT = "emovit-shards"
INDEX_VERSION = 1

# One value for each sample, and one for each question-answer pair of the samples in turn.
SAMPLE_COLUMNS = ("image_offset", "image_bytes", "record_offset", "record_bytes", "crc32", "label", "num_pairs")
PAIR_COLUMNS = ("pair_kind", "pair_chars")
NO_LABEL = -1
_REBUILD = "Build the shards again (`emovit shards build`), or restore the folder from its copy."


@dataclass(frozen=True)
class ShardInfo:
    """One tar file of the set."""

    name: str
    num_samples: int
    num_pairs: int
    size_bytes: int
    sha256: str
    label_histogram: dict[str, int]


class ShardIndex:
    """What lies where in a folder of shards.

    Attributes:
        folder: where the shards lie.
        shards: the tar files in their order.
        labels, kinds: names behind the numbers in the columns `label` and `pair_kind`.
        label_sets: names of the label sets that the labels come from.
        build: how the shards were made (seed, samples per shard, what was left out).
        hash: sha256 over everything above and the columns; equal for equal content wherever it lies.
        num_samples, num_pairs: totals.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        shards: Sequence[ShardInfo],
        columns: Mapping[str, np.ndarray],
        *,
        labels: Sequence[str],
        kinds: Sequence[str],
        label_sets: Sequence[str],
        build: Mapping[str, Any],
        content_hash: str | None = None,
    ):
        """See the class; `content_hash` is for `load`, which has computed it already."""
        self.folder = Path(folder)
        self.shards = tuple(shards)
        self.labels, self.kinds, self.label_sets = tuple(labels), tuple(kinds), tuple(label_sets)
        self.build = dict(build)
        self.num_samples = sum(shard.num_samples for shard in self.shards)
        self.num_pairs = sum(shard.num_pairs for shard in self.shards)
        self.columns = {name: np.asarray(columns[name]) for name in (*SAMPLE_COLUMNS, *PAIR_COLUMNS)}
        for name, column in self.columns.items():
            expected = self.num_pairs if name in PAIR_COLUMNS else self.num_samples
            if len(column) != expected:
                raise ValueError(f"column '{name}' has {len(column)} values for {expected} entries")
        if int(self.columns["num_pairs"].sum()) != self.num_pairs:
            raise ValueError("the pairs of the samples don't add up to the pairs of the shards")
        self._sample_starts = np.cumsum([0, *(shard.num_samples for shard in self.shards)])
        self._pair_starts = np.concatenate([[0], np.cumsum(self.columns["num_pairs"], dtype=np.int64)])
        self.hash = content_hash or _content_hash(self._content())

    @property
    def label_histogram(self) -> dict[str, int]:
        """Label -> number of samples, in the order of `labels`; samples without a label are not counted."""
        numbers = self.columns["label"]
        counts = np.bincount(numbers[numbers >= 0], minlength=len(self.labels))
        return {label: int(count) for label, count in zip(self.labels, counts)}

    def shard_of(self, sample: int) -> int:
        """Number of the shard that holds a sample."""
        if not 0 <= sample < self.num_samples:
            raise IndexError(f"sample {sample} of {self.num_samples}")
        return int(np.searchsorted(self._sample_starts, sample, side="right")) - 1

    def key_of(self, sample: int) -> str:
        """A name for messages: shard file and the sample's number in it."""
        shard = self.shard_of(sample)
        return f"{self.shards[shard].name}, sample {sample - int(self._sample_starts[shard])}"

    def pair_slice(self, sample: int) -> slice:
        """Where the pairs of a sample stand in the pair columns."""
        return slice(int(self._pair_starts[sample]), int(self._pair_starts[sample + 1]))

    def samples_with(self, *, kinds: Sequence[str] | None = None, labelled: bool = False) -> np.ndarray:
        """Numbers of the samples that have a pair of one of the kinds (any pair, if None), or a label.

        Returns:
            int64, ascending.
        """
        if labelled:
            chosen = self.columns["label"] != NO_LABEL
        else:
            wanted = (
                range(len(self.kinds)) if kinds is None else [self.kinds.index(k) for k in kinds if k in self.kinds]
            )
            matches = np.isin(self.columns["pair_kind"], list(wanted)).astype(np.int64)
            totals = np.concatenate([[0], np.cumsum(matches)])
            chosen = totals[self._pair_starts[1:]] > totals[self._pair_starts[:-1]]
        return np.flatnonzero(chosen).astype(np.int64, copy=False)

    def check_files(self) -> None:
        """Compare the shards' names and sizes with the folder.

        Raises:
            DataError: shards that are missing or have another size; all of them are named.
        """
        problems = []
        for shard in self.shards:
            path = self.folder / shard.name
            try:
                size_bytes = path.stat().st_size
            except OSError:
                problems.append(f"{shard.name} is missing")
                continue
            if size_bytes != shard.size_bytes:
                problems.append(f"{shard.name} has {size_bytes} bytes, its index says {shard.size_bytes}")
        if problems:
            raise DataError(f"{self.folder}: {'; '.join(problems)}. {_REBUILD}")

    def save(self) -> Path:
        """Write `index.json` beside the shards, whole or not at all."""
        path = self.folder / INDEX_NAME
        with atomic_writer(path) as file:
            json.dump({**self._content(), "hash": self.hash}, file, indent=1, ensure_ascii=False)
            file.write("\n")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ShardIndex:
        """Read an index.

        Args:
            path: `index.json`, or the folder that holds it.

        Raises:
            DataError: no index there, or it is not one, or it was changed after it was written.
        """
        path = Path(path)
        if path.is_dir():
            path = path / INDEX_NAME
        if not path.is_file():
            raise DataError(
                f"{path}: no shard index there. Shards are complete only with it; build them with "
                f"`emovit shards build RECORDS --images FOLDER --out {path.parent}`."
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            stored_hash = content.pop("hash")
            if content["format"] != INDEX_FORMAT or content["version"] != INDEX_VERSION:
                raise DataError(
                    f"{path}: format {content['format']} {content['version']}, this version of the package reads "
                    f"{INDEX_FORMAT} {INDEX_VERSION}. Build the shards again."
                )
            content_hash = _content_hash(content)
            index = _from_content(path.parent, content, content_hash)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: not a shard index ({type(error).__name__}: {error}). {_REBUILD}") from None
        if content_hash != stored_hash:
            raise DataError(f"{path}: changed after it was written, its hash does not fit. {_REBUILD}")
        return index

    def _content(self) -> dict[str, Any]:
        shards = []
        for number, shard in enumerate(self.shards):
            samples = slice(int(self._sample_starts[number]), int(self._sample_starts[number + 1]))
            pairs = slice(int(self._pair_starts[samples.start]), int(self._pair_starts[samples.stop]))
            columns = {name: _encode(self.columns[name][samples]) for name in SAMPLE_COLUMNS}
            columns.update({name: _encode(self.columns[name][pairs]) for name in PAIR_COLUMNS})
            shards.append({**asdict(shard), "columns": columns})
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
            "shards": shards,
        }


def _from_content(folder: Path, content: Mapping[str, Any], content_hash: str) -> ShardIndex:
    shards: list[ShardInfo] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (*SAMPLE_COLUMNS, *PAIR_COLUMNS)}
    for item in content["shards"]:
        info = dict(item)
        encoded = info.pop("columns")
        shards.append(ShardInfo(**info))
        for name, parts in columns.items():
            parts.append(_decode(encoded[name]))
    joined = {name: np.concatenate(parts) if parts else np.zeros(0, np.int64) for name, parts in columns.items()}
    return ShardIndex(
        folder,
        shards,
        joined,
        labels=content["labels"],
        kinds=content["kinds"],
        label_sets=content["label_sets"],
        build=content["build"],
        content_hash=content_hash,
    )


def _encode(column: np.ndarray) -> str:
    """The smallest integer type that holds the values, so that equal values always give equal text."""
    low, high = (int(column.min()), int(column.max())) if len(column) else (0, 0)
    types = ("<i1", "<i2", "<i4", "<i8") if low < 0 else ("<u1", "<u2", "<u4", "<u8")
    chosen = next(kind for kind in types if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return f"{chosen}:{base64.b64encode(column.astype(chosen).tobytes()).decode('ascii')}"


def _decode(text: str) -> np.ndarray:
    kind, _, data = text.partition(":")
    return np.frombuffer(base64.b64decode(data, validate=True), dtype=np.dtype(kind))


def _content_hash(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
