"""Indexes webdataset tars made by other tools, without rewriting them; they are then read like our own shards.

The members of a sample (`json`, `cls`, `txt` beside the image) become a record. The records go into one file beside the
tars, and the index points into both.
"""

from __future__ import annotations

import json
import logging
import os
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

from lavis_emovit.emotion.labels import LabelSet, get_label_set
from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.files import IMAGE_SUFFIXES, RARE_IMAGE_SUFFIXES, atomic_writer, file_sha256, find_files
from lavis_emovit.records import INSTRUCTION_KINDS, EmotionRecord, build_record, from_conversations, parse_record
from lavis_emovit.shards.columns import COLUMNS_NAME, INDEX_NAME, NO_LABEL, append_sample, empty_columns, sample_crc32
from lavis_emovit.shards.images import BadImageError, check_image
from lavis_emovit.shards.index import ShardIndex, ShardInfo
from lavis_emovit.shards.tar import Member, scan_tar

logger = logging.getLogger(__name__)

RECORDS_NAME = "index.records.jsonl"
TEXT_SUFFIXES = frozenset({".txt", ".text", ".caption"})
CLASS_SUFFIXES = frozenset({".cls", ".cls2", ".label"})
LABEL_KEYS = ("emotion", "label", "cls", "class")
CAPTION_KEYS = ("caption", "text")
_MAX_NAMED = 5
_MAX_REPORTED = 20

Instruct = Callable[[EmotionRecord], EmotionRecord]


@dataclass(frozen=True)
class Reading:
    """How the samples of other tools' tars become records."""

    source: str  # name of the dataset, the first part of every id
    split: str = "train"  # split of the records
    label_set: str | None = None  # label set of the labels; None: keep them as they are
    classes: tuple[str, ...] | None = None  # names behind class numbers; None: the order of the label set
    # Key of the JSON that holds the label; None: the first of `LABEL_KEYS` that is present.
    label_key: str | None = None


@dataclass
class _Sample:
    key: str
    members: list[Member] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)  # members and keys of its JSON that no field takes

    def with_suffix(self, suffixes: frozenset[str]) -> list[Member]:
        """The members whose last suffix is one of these."""
        return [member for member in self.members if f".{member.suffix.rpartition('.')[2]}" in suffixes]

    def images(self) -> list[Member]:
        return self.with_suffix(IMAGE_SUFFIXES) or self.with_suffix(RARE_IMAGE_SUFFIXES)


def index_tars(
    folder: str | os.PathLike[str],
    reading: Reading,
    *,
    pattern: str = "*.tar",
    instruct: Instruct | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ShardIndex:
    """Index the webdataset tars of a folder, in the order of their names, and write the index beside them.

    Args:
        instruct: adds instructions to a record.
        skip_bad: skip samples whose image or record cannot be used, and list them in the index.
        progress: called with (tars done, number of tars).

    Raises:
        DataError: no tars, an existing index, a truncated or compressed tar, duplicate keys, keys with several images,
            or (without `skip_bad`) samples that cannot be used.
    """
    folder = Path(folder)
    if (folder / INDEX_NAME).exists() and not overwrite:
        raise DataError(f"{folder / INDEX_NAME}: already exists. Pass `--overwrite` to index the tars again.")
    paths = [path for path in find_files(folder, pattern) if path.is_file() and path.parent == folder]
    if not paths:
        raise DataError(f"{folder}: no file matches {pattern}. Pass the folder of the tars, or another `--pattern`.")
    label_set = get_label_set(reading.label_set) if reading.label_set is not None else None
    (folder / INDEX_NAME).unlink(missing_ok=True)
    with atomic_writer(folder / RECORDS_NAME, "wb") as records_file:
        draft = _Draft(records_file, reading, label_set, instruct)
        for number, path in enumerate(paths, start=1):
            draft.add_tar(path)
            if progress is not None:
                progress(number, len(paths))
        if draft.bad and not skip_bad:
            lines = [f"{place}: {reason}" for place, reason in draft.bad]
            raise DataError(
                f"{folder}: {len(lines)} samples cannot be used:\n{bullet_list(lines, _MAX_REPORTED)}\n"
                "Write their tars again, or skip the samples with `--skip-bad`."
            )
        if not draft.ids:
            raise DataError(f"{folder}: no sample in {len(paths)} tars can be used")
        records_bytes = records_file.tell()
    if draft.unused:
        counts = ", ".join(f"{name} ({count})" for name, count in draft.unused.most_common())
        logger.warning("%s: no field of a record takes %s", folder, counts)
    index = ShardIndex(
        folder,
        draft.shards,
        draft.columns,
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
    """The index of the tars read so far."""

    records_file: IO[bytes]
    reading: Reading
    label_set: LabelSet | None
    instruct: Instruct | None
    shards: list[ShardInfo] = field(default_factory=list)
    columns: dict[str, list[int]] = field(default_factory=empty_columns)
    labels: dict[str, int] = field(default_factory=dict)
    label_sets: set[str] = field(default_factory=set)
    ids: dict[str, str] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)

    def add_tar(self, path: Path) -> None:
        histogram: Counter[str] = Counter()
        num_samples = num_pairs = 0
        with path.open("rb") as tar:
            for sample in _samples(path, self.unused):
                place = f"{path.name}, key '{sample.key}'"
                try:
                    image, image_bytes = _image(tar, sample)
                    record = _record(tar, path, sample, image, self.reading, self.label_set)
                    record = self.instruct(record) if self.instruct is not None else record
                except (BadImageError, DataError) as error:
                    self.bad.append((place, str(error)))
                    continue
                first = self.ids.setdefault(record.id, place)
                if first != place:
                    raise DataError(f"{path.parent}: id '{record.id}' is in {first} and in {place}; rename one")
                self._add_sample(image, image_bytes, record)
                self.unused.update(sample.unused)
                num_samples += 1
                num_pairs += len(record.instructions)
                if record.emotion is not None:
                    histogram[record.emotion] += 1
        size_bytes, sha256 = path.stat().st_size, file_sha256(path)
        counts = dict(sorted(histogram.items()))
        self.shards.append(ShardInfo(path.name, num_samples, num_pairs, size_bytes, sha256, counts))

    def _add_sample(self, image: Member, image_bytes: bytes, record: EmotionRecord) -> None:
        label = NO_LABEL
        if record.emotion is not None:
            label = self.labels.setdefault(record.emotion, len(self.labels))
        if record.label_set is not None:
            self.label_sets.add(record.label_set)
        record_bytes = record.to_json().encode("utf-8")
        line = self.records_file.tell(), len(record_bytes)
        append_sample(self.columns, record, image.span, line, sample_crc32(image_bytes, record_bytes), label)
        self.records_file.write(record_bytes + b"\n")


def _samples(path: Path, unused: Counter[str]) -> Iterator[_Sample]:
    """Members grouped as webdataset groups them: neighbours whose names agree up to the first dot.

    webdataset skips names without a suffix and hidden ones; `unused` counts them.
    """
    members = scan_tar(path)
    named = [item for item in members if item.suffix and not item.name.rpartition("/")[2].startswith(".")]
    if len(named) < len(members):
        unused["members that are hidden or have no suffix"] += len(members) - len(named)
    seen: set[str] = set()
    for key, group in groupby(named, key=attrgetter("key")):
        sample = _Sample(key, list(group))
        if key in seen:
            raise DataError(
                f"{path}: key '{key}' is in two places; the members of a sample must be side by side. "
                "Write the tar again, sorted by name."
            )
        seen.add(key)
        by_suffix = {member.suffix: member for member in reversed(sample.members)}
        for member in sample.members:
            if by_suffix[member.suffix] is not member:
                raise DataError(f"{path}: it contains '{member.name}' twice. Write the tar again.")
        images = sample.images()
        if len(images) > 1:
            names = ", ".join(item.name for item in images[:_MAX_NAMED])
            dotted = any("." in item.suffix for item in images)
            advice = (
                "webdataset splits names at the first dot: write the tar again, with no other dot than the one before "
                "the suffix."
                if dotted
                else "Write the tar again, with one image for each key."
            )
            raise DataError(f"{path}: key '{key}' has several images ({names}). {advice}")
        yield sample


# The texts of errors below are stored in the index of a build that skips the sample: see `BadImageError`.


def _image(tar: IO[bytes], sample: _Sample) -> tuple[Member, bytes]:
    images = sample.images()
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
    for member in sample.with_suffix(frozenset({".json"})):
        data = _read(tar, member)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            raise DataError(f"{member.name} is not JSON ({reason})") from None
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
        (record,) = from_conversations([{**content, "image": base["image"]}], source=reading.source, place=place)
        base["instructions"] = record.model_dump()["instructions"]
    label = _label(tar, sample, content, reading, label_set)
    if label is not None:
        base["emotion"] = label
        base["label_set"] = reading.label_set
    texts = [_text(tar, member) for member in sample.with_suffix(TEXT_SUFFIXES)]
    captions = [name for name in CAPTION_KEYS if not isinstance(content.get(name), list | dict)]
    texts += [str(content[name]).strip() for name in captions if content.get(name)]
    if texts and texts[0]:
        base["caption"] = texts[0]
    taken = {*LABEL_KEYS, *captions, "conversations", "image", "id", reading.label_key}
    extra = {name: v for name, v in content.items() if name not in taken and isinstance(v, str | int | float | bool)}
    sample.unused += [f"key '{name}'" for name, v in content.items() if name not in (*taken, *extra) and v is not None]
    used = IMAGE_SUFFIXES | RARE_IMAGE_SUFFIXES | TEXT_SUFFIXES | CLASS_SUFFIXES | {".json"}
    sample.unused += [f"member '.{m.suffix}'" for m in sample.members if m not in sample.with_suffix(used)]
    if extra:
        base["extra"] = extra
    return build_record(base, place)


def _label(
    tar: IO[bytes], sample: _Sample, content: dict[str, Any], reading: Reading, label_set: LabelSet | None
) -> str | None:
    """The label of a sample in its canonical form."""
    value: Any = None
    if reading.label_key is not None:
        if reading.label_key not in content:
            raise DataError(f"its JSON has no key '{reading.label_key}' (it has {', '.join(content) or 'none'})")
        value = content[reading.label_key]
    else:
        value = next((content[name] for name in LABEL_KEYS if content.get(name) is not None), None)
        members = sample.with_suffix(CLASS_SUFFIXES)
        if value is None and members:
            value = _text(tar, members[0])
    if value is None or value == "":
        return None
    names = reading.classes or (label_set.labels if label_set is not None else ())
    # A column of numbers with gaps is one of fractions in pandas: 1.0.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(value, str) and (number := re.fullmatch(r"([+-]?[0-9]{1,18})(\.0)?", value)):
        value = int(number[1]) if names or not number[2] else value
    if isinstance(value, int) and not isinstance(value, bool):
        if not names:
            raise DataError(f"its label is the number {value}; pass the names of the classes (`--classes`)")
        if not 0 <= value < len(names):
            raise DataError(f"its label is number {value}, there are {len(names)} names, counted from 0")
        value = names[value]
    if not isinstance(value, str):
        raise DataError(f"its label is {reprlib.repr(value)}, neither a name nor a number")
    return label_set.canonical(value) if label_set is not None else value


def _text(tar: IO[bytes], member: Member) -> str:
    try:
        return _read(tar, member).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{member.name} is not UTF-8 text ({error.reason})") from None


def _read(tar: IO[bytes], member: Member) -> bytes:
    tar.seek(member.offset)
    return tar.read(member.size_bytes)
