"""Writes records with their instructions as conversations for other trainers, one file for each split."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_emovit.boxes import BoxCounts, BoxSettings, box_identity, is_cropped, shown_bytes, shows_both
from lavis_emovit.errors import ConfigError, DataError, bullet_list
from lavis_emovit.exchange.files import ImageNames, row_writer
from lavis_emovit.exchange.formats import FORMATS, Conversation, Format
from lavis_emovit.exchange.images import png_as_shown, shown_otherwise
from lavis_emovit.exchange.samples import open_samples
from lavis_emovit.files import atomic_folder, write_json
from lavis_emovit.records import INSTRUCTION_KINDS, RECORD_KEY, EmotionRecord, Instruction
from lavis_emovit.settings import nearest_name
from lavis_emovit.sources.readers.conversations import EXPORT_SUMMARY

IMAGES_FOLDER = "images"
DATASET_INFO = "dataset_info.json"  # LLaMA-Factory's list of datasets
_MAX_FAULTS = 20
_MAX_EXAMPLES = 5


def export_data(
    place: str,
    out: Path,
    format_name: str,
    *,
    images: Path | None = None,
    kinds: Collection[str] = (),
    join: bool = False,
    as_shown: bool = False,
    show: BoxSettings | None = None,
    skip_bad: bool = False,
    strict: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write a folder in the format of another trainer, and return its summary, which is also in the folder.

    Args:
        place: a records file, shards or the folder of a prepared dataset; see `open_samples`.
        out: the folder, new or empty. It appears when it is complete.
        format_name: a key of `FORMATS`.
        images: the folder of the image paths, if `place` has records and their summary names another one.
        kinds: kinds of instructions to write; none: all.
        join: one conversation for each image, instead of one for each question.
        as_shown: write images that the trainer would decode to other pixels as PNG, as they are decoded here.
        show: what to write of images whose record has a box; None: the whole image.
        skip_bad: skip records whose image cannot be used, with a count.
        strict: refuse people and images in several splits.

    Raises:
        ConfigError: an unknown format or kind, `join` for a format without turns, or two images for a record (`both`).
        DataError: the folder has content; images or records cannot be used; nothing can be written.
    """
    layout = _checked(format_name, kinds, join, show)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: already has content, and an export writes a folder of its own; use another --out")
    samples = open_samples(place, images)
    with atomic_folder(out) as folder:
        export = _Export(
            folder, layout, kinds or INSTRUCTION_KINDS, join=join, as_shown=as_shown, show=show, skip_bad=skip_bad
        )
        with ExitStack() as export.open_files:
            for number, (record, read_image) in enumerate(samples, start=1):
                export.add(record, read_image)
                progress(number, samples.count)
        export.refuse_faults(place, strict)
        summary = {
            "written_by": "emovit export data",
            "format": format_name,
            "join": join,
            "as_shown": as_shown,
            **box_identity(show),
            "kinds": sorted(kinds or INSTRUCTION_KINDS),
            "input": samples.origin,
            **export.account(),
        }
        if format_name == "llamafactory":
            write_json(folder / DATASET_INFO, _dataset_info(dataset_name(out), export.files))
        write_json(folder / EXPORT_SUMMARY, summary)
    return summary


def dataset_name(out: Path) -> str:
    """The beginning of the datasets' names in LLaMA-Factory's list."""
    return re.sub(r"\W+", "_", out.resolve().name)


def _checked(format_name: str, kinds: Collection[str], join: bool, show: BoxSettings | None) -> Format:
    problems = [
        f"--kinds: unknown kind '{kind}'{nearest_name(kind, list(INSTRUCTION_KINDS))}; "
        f"the kinds are {', '.join(INSTRUCTION_KINDS)}"
        for kind in kinds
        if kind not in INSTRUCTION_KINDS
    ]
    layout = FORMATS.get(format_name)
    if layout is None:
        names = list(FORMATS)
        problems.append(
            f"--format: unknown format '{format_name}'{nearest_name(format_name, names)}; "
            f"the formats are {', '.join(names)}"
        )
    elif join and not layout.has_turns:
        problems.append(f"--join: a row of {format_name} has one question; omit --join")
    if shows_both(show):
        problems.append("--box both: a conversation in these formats has one image; use --box crop or whole")
    if problems or layout is None:
        raise ConfigError(problems, "the command line")
    return layout


class _Export:
    """One folder while it is written: its open files, and the account."""

    def __init__(
        self,
        folder: Path,
        layout: Format,
        kinds: Collection[str],
        *,
        join: bool,
        as_shown: bool,
        show: BoxSettings | None,
        skip_bad: bool,
    ):
        self.folder, self.layout, self.kinds = folder, layout, kinds
        self.join, self.as_shown, self.show, self.skip_bad = join, as_shown, show, skip_bad
        self.open_files = ExitStack()
        self.files: dict[str, str] = {}  # split -> name of its file
        self._writers: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._names = ImageNames()
        self._counts: dict[str, Counter[str]] = {}
        self._kinds: dict[str, Counter[str]] = {}
        self._skipped: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._faults: list[str] = []
        self._ids: set[str] = set()
        self._splits_of_group: dict[str, set[str]] = {}
        self._split_of_image: dict[bytes, str] = {}  # sha256 of the bytes -> first split
        self._shared_images: set[bytes] = set()
        self._shown_otherwise: Counter[str] = Counter()
        self._shared_whole = BoxCounts()

    def add(self, record: EmotionRecord | DataError, read_image: Callable[[], bytes]) -> None:
        """Write the conversations of a record, and its image."""
        if isinstance(record, DataError):
            self._fault("records that cannot be read", str(record))
            return
        if record.id in self._ids:
            raise DataError(f"two records have the id '{record.id}'; export one dataset at a time")
        self._ids.add(record.id)
        if record.clip is not None:
            self._skip("clips, which these formats do not have", record.id)
            return
        chosen = self._chosen(record)
        if not chosen:
            return
        try:
            data = read_image()
            written = self._shown(record, data)
            otherwise = shown_otherwise(written, turns=self.layout.embeds)
        except DataError as error:
            self._fault("records whose image cannot be used", str(error), record.id)
            return
        if is_cropped(record.box, self.show):
            record = _of_the_crop(record)
        else:
            self._shared_whole.add(record.image, record.clip, record.box)
        self._write(record, chosen, data, written, otherwise)

    def _shown(self, record: EmotionRecord, data: bytes) -> bytes:
        try:
            return shown_bytes(data, record.box, self.show)
        except DataError as error:
            raise DataError(f"the image of '{record.id}' cannot be used ({error})") from None

    def _chosen(self, record: EmotionRecord) -> list[tuple[int, Instruction]]:
        """The instructions to write, with their numbers; counts what is skipped."""
        if not record.instructions:
            self._skip("records without instructions", record.id)
            return []
        of_kinds = [(n, one) for n, one in enumerate(record.instructions) if one.kind in self.kinds]
        if not of_kinds:
            self._skip("records without instructions of the chosen kinds", record.id)
            return []
        chosen = []
        for number, one in of_kinds:
            reserved = next((mark for mark in self.layout.reserved if mark in f"{one.question} {one.answer}"), None)
            if reserved is None:
                chosen.append((number, one))
            else:
                self._skip(f"questions with '{reserved}' in their text", f"{record.id}#{number}")
        if not chosen:
            self._skip("records all of whose questions are skipped", record.id)
        return chosen

    def _write(
        self,
        record: EmotionRecord,
        chosen: list[tuple[int, Instruction]],
        source: bytes,
        data: bytes,
        otherwise: tuple[str, ...],
    ) -> None:
        """Write the conversations, and the image `data`, which is `source` or the part of it that is shown."""
        split, path = record.split, record.image
        counts = self._counts.setdefault(split, Counter())
        # The whole image decides what several splits share.
        source_digest = hashlib.sha256(source).digest()
        first_split = self._split_of_image.get(source_digest)
        if first_split is None:
            self._split_of_image[source_digest] = split
            self._shown_otherwise.update(otherwise)
        elif first_split != split:
            self._shared_images.add(source_digest)
        if otherwise and self.as_shown:
            data, path = png_as_shown(data), str(PurePosixPath(path).with_suffix(".png"))
        digest = source_digest if data is source else hashlib.sha256(data).digest()
        num_names = len(self._names)
        # The split may have characters, too, that a plain name cannot have.
        image = f"{IMAGES_FOLDER}/{self._names.name(f'{split}/{path}', digest)}"
        counts["images"] += len(self._names) - num_names
        if record.group_key is not None:
            self._splits_of_group.setdefault(record.group_key, set()).add(split)
        target = self.folder / image
        if not self.layout.embeds and not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        write = self._writer(record.split)
        for row in _conversations(record, chosen, image, data, self.join):
            write(self.layout.row(row))
            counts["conversations"] += 1
        counts["records"] += 1
        counts["questions"] += len(chosen)
        self._kinds.setdefault(record.split, Counter()).update(one.kind for _, one in chosen)

    def _writer(self, split: str) -> Callable[[dict[str, Any]], None]:
        if split not in self._writers:
            name = f"{split}{self.layout.suffix}"
            taken = {EXPORT_SUMMARY, DATASET_INFO, *(file.lower() for file in self.files.values())}
            if name.lower() in taken:
                raise DataError(f"split '{split}': its file {name} would replace another one; rename the split")
            columns = self.layout.joined_columns if self.join else self.layout.columns
            self._writers[split] = self.open_files.enter_context(row_writer(self.folder / name, columns))
            self.files[split] = name
        return self._writers[split]

    def _skip(self, reason: str, example: str) -> None:
        self._skipped[reason] += 1
        found = self._examples.setdefault(reason, [])
        if len(found) < _MAX_EXAMPLES:
            found.append(example)

    def _fault(self, reason: str, message: str, example: str | None = None) -> None:
        self._skip(reason, example or message)
        self._faults.append(message)

    def refuse_faults(self, place: str, strict: bool) -> None:
        """DataError for unusable records and images, splits that share something, or nothing to write."""
        if self._faults and not self.skip_bad:
            raise DataError(
                f"{place}: {len(self._faults)} records cannot be exported:\n{bullet_list(self._faults, _MAX_FAULTS)}\n"
                "Restore them, or pass --skip-bad to leave these records out. Nothing was written."
            )
        if not self.files:
            reasons = [f"{count} {reason}" for reason, count in self._skipped.items()] or ["there are no records"]
            raise DataError(
                f"{place}: there is nothing to export:\n{bullet_list(reasons)}\n"
                "`emovit generate` writes instructions; --kinds chooses among those that are there."
            )
        if strict and (shared := self._shared()):
            raise DataError(
                f"{place}: refused by --strict:\n{bullet_list(shared)}\n`emovit data split` draws new splits by group, "
                "`emovit data dedupe` removes images that several splits have. Nothing was written."
            )

    def _shared(self) -> list[str]:
        groups = sorted(name for name, splits in self._splits_of_group.items() if len(splits) > 1)
        named = f"{', '.join(groups[:3])}{', ...' if len(groups) > 3 else ''}"
        lines = [f"{len(groups)} people or sessions are in several splits ({named})"] if groups else []
        return lines + ([f"{len(self._shared_images)} images are in several splits"] if self._shared_images else [])

    def account(self) -> dict[str, Any]:
        splits = {
            split: {"file": self.files[split], **self._counts[split], "kinds": dict(sorted(self._kinds[split].items()))}
            for split in sorted(self.files)
        }
        return {
            "files": [self.files[split] for split in sorted(self.files)],
            "splits": splits,
            "skipped": dict(self._skipped),
            "skipped_examples": self._examples,
            "in_several_splits": self._shared(),
            "shown_otherwise": dict(self._shown_otherwise),
            "shared_whole": self._shared_whole.problem(self.show),
        }


def _of_the_crop(record: EmotionRecord) -> EmotionRecord:
    """The record of the image in its box, a PNG; `extra` has what it was a part of."""
    corners = ", ".join(f"{corner:g}" for corner in record.box or ())
    extra = {**record.extra, "context_image": record.image, "context_box": corners}
    image = str(PurePosixPath(record.image).with_suffix(".png"))
    return record.model_copy(update={"image": image, "box": None, "extra": extra})


def _conversations(
    record: EmotionRecord, chosen: list[tuple[int, Instruction]], image: str, data: bytes, join: bool
) -> Iterator[Conversation]:
    # Fields with their default values, such as no instructions, are not written.
    fields = record.model_copy(update={"instructions": []}).to_json()
    common = {"split": record.split, "emotion": record.emotion or "", RECORD_KEY: fields}
    if not join:
        for number, one in chosen:
            carried = {"kind": one.kind, "provenance": one.provenance, **common}
            turns = ((one.question, one.answer),)
            yield Conversation(f"{record.id}/{one.kind}/{number}", record.source, turns, image, data, carried)
        return
    kinds, authors = [one.kind for _, one in chosen], [one.provenance for _, one in chosen]
    turns_of_all = tuple((one.question, one.answer) for _, one in chosen)
    of_all: dict[str, str | Sequence[str]] = {"kind": kinds, "provenance": authors, **common}
    yield Conversation(record.id, record.source, turns_of_all, image, data, of_all, joined=True)


def _dataset_info(name: str, files: dict[str, str]) -> dict[str, Any]:
    """LLaMA-Factory's list of datasets: how to read the file of each split (llamafactory/data/parser.py of 0.9.5)."""
    info: dict[str, Any] = {}
    for split, file in sorted(files.items()):
        # A comma separates datasets in its settings.
        entry = f"{name}_{split.replace(',', '_')}"
        while entry in info:
            entry += "_"
        info[entry] = {
            "file_name": file,
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
        }
    return info
