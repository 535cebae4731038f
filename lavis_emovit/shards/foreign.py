"""Webdataset tars that were made elsewhere: indexed where they lie, not rewritten, and read like our own.

What a sample's members say (`json`, `cls`, `txt` beside the picture) becomes a record; the records go into one file
beside the tars, and the index points into both.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from lavis_emovit.emotion.labels import LabelSet, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_writer, file_sha256
from lavis_emovit.records import INSTRUCTION_KINDS, EmotionRecord, from_conversations, parse_record
from lavis_emovit.shards.columns import COLUMNS_NAME, NO_LABEL, PAIR_COLUMNS, SAMPLE_COLUMNS
from lavis_emovit.shards.images import BadImageError, check_image
from lavis_emovit.shards.index import INDEX_NAME, ShardIndex, ShardInfo
from lavis_emovit.shards.tar import Member, scan_tar

logger = logging.getLogger(__name__)

RECORDS_NAME = "index.records.jsonl"
IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})
TEXT_SUFFIXES = frozenset({"txt", "text", "caption"})
CLASS_SUFFIXES = frozenset({"cls", "cls2", "label"})
LABEL_KEYS = ("emotion", "label", "cls", "class")
CAPTION_KEYS = ("caption", "text")
_MAX_NAMED = 5

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Reading:
    """How samples of foreign tars become records.

    Attributes:
        source: name of the dataset, the first part of every id.
        split: split of the records.
        label_set: label set that labels must belong to; None takes them as they are.
        classes: names behind class numbers; None takes the label set's order.
        label_key: key of the JSON that holds the label; None takes the first of `LABEL_KEYS` that is there.
    """

    source: str
    split: str = "train"
    label_set: str | None = None
    classes: tuple[str, ...] | None = None
    label_key: str | None = None


@dataclass
class _Sample:
    key: str
    members: list[Member] = field(default_factory=list)

    def with_suffix(self, suffixes: frozenset[str]) -> list[Member]:
        return [member for member in self.members if member.suffix.rpartition(".")[2] in suffixes]


def index_tars(
    folder: str | os.PathLike[str],
    reading: Reading,
    *,
    pattern: str = "*.tar",
    instruct: Callable[[EmotionRecord], EmotionRecord] | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    max_reported: int = 20,
    progress: Progress | None = None,
) -> ShardIndex:
    """Index the webdataset tars of a folder, in the order of their names.

    Args:
        folder: where the tars lie; the index is written beside them.
        reading: how samples become records.
        pattern: which files are the tars.
        instruct: adds instructions to a record.
        skip_bad: leave samples out whose picture or record cannot be used, and list them in the index.
        overwrite: replace an index that is there.
        max_reported: how many bad samples the error message names.
        progress: called with (tars done, tars in all).

    Raises:
        DataError: no tars, an index there already, a tar that is cut or compressed, keys that repeat or hold several
            pictures, or (without `skip_bad`) samples that cannot be used.
    """
    folder = Path(folder)
    if (folder / INDEX_NAME).exists() and not overwrite:
        raise DataError(f"{folder / INDEX_NAME}: there already. Say `--overwrite` to index the tars anew.")
    paths = sorted(path for path in folder.glob(pattern) if path.is_file() and path.parent == folder)
    if not paths:
        raise DataError(f"{folder}: no file in it is called {pattern}. Name the folder of the tars, or their pattern.")
    label_set = get_label_set(reading.label_set) if reading.label_set is not None else None
    (folder / INDEX_NAME).unlink(missing_ok=True)
    draft = _Draft()
    with atomic_writer(folder / RECORDS_NAME, "wb") as records_file:
        for number, path in enumerate(paths, start=1):
            draft.add_tar(path, records_file, reading, label_set, instruct)
            if progress is not None:
                progress(number, len(paths))
        if draft.bad and not skip_bad:
            raise DataError(_bad_text(folder, draft.bad, max_reported))
        if not draft.ids:
            raise DataError(f"{folder}: none of the samples in {len(paths)} tars can be used")
        records_bytes = records_file.tell()
    index = ShardIndex(
        folder,
        draft.shards,
        {name: np.asarray(values, dtype=np.int64) for name, values in draft.columns.items()},
        labels=list(draft.labels),
        kinds=INSTRUCTION_KINDS,
        label_sets=sorted(draft.label_sets),
        build={
            "indexed": {**reading.__dict__, "classes": list(reading.classes) if reading.classes else None},
            "records": RECORDS_NAME,
            "records_bytes": records_bytes,
            "records_sha256": file_sha256(folder / RECORDS_NAME),
            "skipped": [{"id": name, "reason": reason} for name, reason in draft.bad],
        },
    )
    (folder / COLUMNS_NAME).unlink(missing_ok=True)
    index.save()
    return index


@dataclass
class _Draft:
    """The index of the tars seen so far."""

    shards: list[ShardInfo] = field(default_factory=list)
    columns: dict[str, list[int]] = field(default_factory=lambda: {n: [] for n in (*SAMPLE_COLUMNS, *PAIR_COLUMNS)})
    labels: dict[str, int] = field(default_factory=dict)
    label_sets: set[str] = field(default_factory=set)
    ids: dict[str, str] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)

    def add_tar(
        self,
        path: Path,
        records_file: IO[bytes],
        reading: Reading,
        label_set: LabelSet | None,
        instruct: Callable[[EmotionRecord], EmotionRecord] | None,
    ) -> None:
        """Append the samples of one tar."""
        histogram: Counter[str] = Counter()
        num_samples = num_pairs = 0
        with path.open("rb") as tar:
            for sample in _samples(path):
                place = f"{path.name}, key '{sample.key}'"
                try:
                    image, image_bytes = _picture(tar, sample)
                    record = _record(tar, path, sample, image, reading, label_set)
                    record = instruct(record) if instruct is not None else record
                except (BadImageError, DataError) as error:
                    self.bad.append((place, str(error)))
                    continue
                first = self.ids.setdefault(record.id, place)
                if first != place:
                    raise DataError(f"{path.parent}: id '{record.id}' stands in {first} and in {place}; rename one")
                record_bytes = record.to_json().encode("utf-8")
                self._add_sample(image, records_file.tell(), record_bytes, image_bytes, record)
                records_file.write(record_bytes + b"\n")
                num_samples += 1
                num_pairs += len(record.instructions)
                if record.emotion is not None:
                    histogram[record.emotion] += 1
        self.shards.append(
            ShardInfo(
                path.name,
                num_samples,
                num_pairs,
                path.stat().st_size,
                file_sha256(path),
                dict(sorted(histogram.items())),
            )
        )

    def _add_sample(
        self, image: Member, record_offset: int, record_bytes: bytes, image_bytes: bytes, record: EmotionRecord
    ) -> None:
        label = NO_LABEL
        if record.emotion is not None:
            label = self.labels.setdefault(record.emotion, len(self.labels))
        if record.label_set is not None:
            self.label_sets.add(record.label_set)
        values = {
            "image_offset": image.offset,
            "image_bytes": image.size_bytes,
            "record_offset": record_offset,
            "record_bytes": len(record_bytes),
            "crc32": zlib.crc32(record_bytes, zlib.crc32(image_bytes)),
            "label": label,
            "num_pairs": len(record.instructions),
        }
        for name, value in values.items():
            self.columns[name].append(value)
        for instruction in record.instructions:
            self.columns["pair_kind"].append(INSTRUCTION_KINDS.index(instruction.kind))
            self.columns["pair_chars"].append(len(instruction.question) + len(instruction.answer))


def _samples(path: Path) -> Iterator[_Sample]:
    """Members grouped as webdataset groups them: neighbours whose names agree up to the first dot."""
    seen: set[str] = set()
    current: _Sample | None = None
    for member in scan_tar(path):
        if not member.suffix or member.name.rpartition("/")[2].startswith("."):
            logger.warning("%s: '%s' belongs to no sample, webdataset passes over such names", path, member.name)
            continue
        if current is None or member.key != current.key:
            if current is not None:
                yield current
            if member.key in seen:
                raise DataError(
                    f"{path}: key '{member.key}' stands in two places; the members of a sample must lie side by side. "
                    "Write the tar again, sorted by name."
                )
            seen.add(member.key)
            current = _Sample(member.key)
        if any(other.suffix == member.suffix for other in current.members):
            raise DataError(f"{path}: '{member.name}' stands in it twice. Write the tar again.")
        current.members.append(member)
        images = current.with_suffix(IMAGE_SUFFIXES)
        if len(images) > 1:
            names = ", ".join(item.name for item in images[:_MAX_NAMED])
            raise DataError(
                f"{path}: key '{current.key}' has several pictures ({names}). webdataset cuts names at the first dot: "
                "write the tar again with no dot in names but the one before the suffix."
            )
    if current is not None:
        yield current


def _picture(tar: IO[bytes], sample: _Sample) -> tuple[Member, bytes]:
    images = sample.with_suffix(IMAGE_SUFFIXES)
    if not images:
        names = ", ".join(member.name for member in sample.members[:_MAX_NAMED])
        raise BadImageError(f"no picture among its members ({names})")
    data = _read(tar, images[0])
    check_image(data)
    return images[0], data


def _record(
    tar: IO[bytes], path: Path, sample: _Sample, image: Member, reading: Reading, label_set: LabelSet | None
) -> EmotionRecord:
    place = f"{path.name}, key '{sample.key}'"
    content: dict[str, Any] = {}
    for member in sample.with_suffix(frozenset({"json"})):
        data = _read(tar, member)
        try:
            value = json.loads(data)
        except ValueError as error:
            raise DataError(f"{member.name} is not JSON ({error})") from None
        if not isinstance(value, dict):
            raise DataError(f"{member.name} holds {type(value).__name__}, not an object")
        if {"id", "image", "split", "source"} <= value.keys():
            return parse_record(data, place)
        content |= value
    key = sample.key.removeprefix("./").lstrip("/")
    base: dict[str, Any] = {
        "id": f"{reading.source}/{path.stem}/{key}",
        "image": f"{path.name}/{image.name.removeprefix('./').lstrip('/')}",
        "split": reading.split,
        "source": reading.source,
    }
    if "conversations" in content:
        item = {**content, "image": base["image"]}
        base["instructions"] = from_conversations([item], source=reading.source, place=place)[0].model_dump()[
            "instructions"
        ]
    label = _label(tar, sample, content, reading, label_set)
    if label is not None:
        base["emotion"] = label
        base["label_set"] = reading.label_set
    texts = [_read(tar, member).decode("utf-8").strip() for member in sample.with_suffix(TEXT_SUFFIXES)]
    texts += [str(content[name]).strip() for name in CAPTION_KEYS if content.get(name)]
    if texts and texts[0]:
        base["caption"] = texts[0]
    taken = {*LABEL_KEYS, *CAPTION_KEYS, "conversations", "image", "id", reading.label_key}
    extra = {name: v for name, v in content.items() if name not in taken and isinstance(v, str | int | float | bool)}
    if extra:
        base["extra"] = extra
    return parse_record(json.dumps(base), place)


def _label(
    tar: IO[bytes], sample: _Sample, content: dict[str, Any], reading: Reading, label_set: LabelSet | None
) -> str | None:
    """The label of a sample as its label set writes it."""
    value: Any = None
    if reading.label_key is not None:
        if reading.label_key not in content:
            raise DataError(f"its JSON has no key '{reading.label_key}' (it has {', '.join(content) or 'none'})")
        value = content[reading.label_key]
    else:
        value = next((content[name] for name in LABEL_KEYS if content.get(name) is not None), None)
        members = sample.with_suffix(CLASS_SUFFIXES)
        if value is None and members:
            value = _read(tar, members[0]).decode("utf-8").strip()
    if value is None or value == "":
        return None
    if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
        names = reading.classes or (label_set.labels if label_set is not None else ())
        if not names:
            raise DataError(f"its label is the number {value}; say which names stand behind the numbers (`--classes`)")
        if int(value) >= len(names):
            raise DataError(f"its label is number {value}, there are {len(names)} names, counted from 0")
        value = names[int(value)]
    if not isinstance(value, str):
        raise DataError(f"its label is {value!r}, neither a name nor a number")
    return label_set.canonical(value) if label_set is not None else value


def _read(tar: IO[bytes], member: Member) -> bytes:
    tar.seek(member.offset)
    return tar.read(member.size_bytes)


def _bad_text(folder: Path, bad: Sequence[tuple[str, str]], max_reported: int) -> str:
    lines = "\n".join(f"  - {place}: {reason}" for place, reason in bad[:max_reported])
    more = f"\n  ... and {len(bad) - max_reported} more" if len(bad) > max_reported else ""
    return (
        f"{folder}: {len(bad)} samples cannot be used:\n{lines}{more}\n"
        "Write their tars again, or leave the samples out with `--skip-bad`."
    )
