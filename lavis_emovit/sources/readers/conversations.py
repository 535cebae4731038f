"""Reader of conversations: LLaVA-style JSON, the format of EmoVIT's own instruction files, and those of other trainers.

It reads JSON, JSON lines and Parquet with `conversations` (LLaVA), `messages` (ms-swift, LLaMA-Factory, TRL), `prompt`
and `completion` (TRL), `problem` and `answer` (EasyR1), or `prompt` and `reward_model` (verl), and folders of `emovit
export data`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from lavis_emovit.emotion.answer_units import read_action_units
from lavis_emovit.emotion.labels import LabelSetName, get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.files import parse_json, read_file
from lavis_emovit.own_files import Written, read_own
from lavis_emovit.records import RECORD_KEY, EmotionRecord, build_record, from_conversations
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Reader, read_json
from lavis_emovit.sources.embedded import extract_image
from lavis_emovit.sources.table_files import open_parquet, parquet_rows

EXPORT_SUMMARY = "summary.json"
"""In a folder of `emovit export data`: what was written; key `files` has the names of the files."""
_QUESTIONS = {"prompt": "completion", "problem": "answer"}  # key of the question -> key of the answer
_KEYS = frozenset({
    "id", "image", "images", "conversations", "messages", "kind", "provenance", "split", "emotion", RECORD_KEY,
    *_QUESTIONS, *_QUESTIONS.values(), "reward_model", "data_source", "extra_info",
})  # fmt: skip
_KEYS_OF_FABA = frozenset({"source", "landmark"})  # in files of `emovit export data`, which follow from the others
_ROWS_AT_ONCE = 32


class _Export(Written):
    """The file `summary.json` of an export, as far as it is read."""

    files: list[Annotated[str, StringConstraints(pattern=r"^[^/\\\x00]*[^/\\\x00.][^/\\\x00]*$")]]


class ConversationSettings(Settings):
    """Files of conversations."""

    # JSON list, JSON lines or Parquet below the root of the dataset, or a folder that `emovit export data` wrote.
    file: str = "train.json"
    files: dict[str, str] = Field(default_factory=dict)  # split -> its file, in place of `file`
    ignore: list[str] = Field(default_factory=list)  # keys of the items that are left out on purpose
    images: str = ""  # folder that the items' image paths are relative to, below the root
    label_set: LabelSetName | None = None  # label set of the emotions in the items or in their categorical answers
    split: str = "train"  # split of items without one
    # Action units to read from the answers, such as those that FABA-Instruct describes; empty: none.
    units: tuple[int, ...] = ()
    units_by: str = "answers"  # who wrote these answers, for `units_by` in `extra`
    check_images: bool = True  # whether every image must exist; if not, only the texts are read


class ConversationReader(Reader, layout="conversations"):
    """One record per image in the items, with all their questions; ids are derived from the images.

    Items of `emovit export data` become the records that were exported, with their ids. Images inside Parquet files
    are written to files.
    """

    settings_class = ConversationSettings
    remedy = "Correct or remove these items."
    imported_from = "file"
    file_of_folder = "."  # one that `emovit export data` wrote
    settings: ConversationSettings

    @property
    def place(self) -> Path:
        return self.root if self.settings.files else self.root / self.settings.file

    @property
    def image_root(self) -> Path:
        return self.extract_to if self._extracts and self.extract_to is not None else self.root

    def files(self) -> list[Path]:
        if self.settings.files:
            return [self.root / name for name in self.settings.files.values()]
        if not self.place.is_dir():
            return [self.place]
        names = read_own(self.place / EXPORT_SUMMARY, _Export, "Pass one file, or export the data again.").files
        return [self.place / name for name in names]

    @cached_property
    def _extracts(self) -> bool:
        """Whether the files contain the images."""
        found = [path for path in self.files() if _is_parquet(path) and path.is_file()]
        schemas = [open_parquet(path).read_schema(path) for path in found]
        return any(
            "binary" in str(schema.field(name).type)
            for schema in schemas
            for name in ("image", "images")
            if name in schema.names
        )

    def check(self) -> None:
        if self._extracts and self.extract_to is None:
            raise DataError(f"{self.place}: contains the images; pass a folder for them (`extract_to`)")
        self._records: list[EmotionRecord] = []
        self._num_without_units = 0
        self._contents: dict[str, str] = {}  # name of an image inside a file -> hash of its bytes
        self._names: dict[str, str] = {}
        splits = list(self.settings.files) or [self.settings.split] * len(self.files())
        for path, split in zip(self.files(), splits):
            self._records += from_conversations(
                map(_with_messages, self._counted(self._items(path))),
                source=self.source,
                split=split,
                label_set=self.settings.label_set,
                place=str(path),
                skip=self.notes.skip,
            )
        self.notes.num_joined = self.notes.num_rows - self.notes.skipped.total() - len(self._records)

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.notes.num_rows += 1
            if isinstance(item, dict):
                known = _KEYS | _KEYS_OF_FABA if RECORD_KEY in item else _KEYS
                self.notes.unused |= dict.fromkeys(
                    name for name in item if name not in known and name not in self.settings.ignore
                )
            yield item

    def _items(self, path: Path) -> Iterable[Any]:
        if _is_parquet(path):
            return self._rows(path)
        if path.suffix.lower() not in (".jsonl", ".ndjson"):
            return read_json(path, list)
        try:
            lines = read_file(path).splitlines()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        return (
            parse_json(line, f"{path}:{n}", unique_keys=True) for n, line in enumerate(lines, start=1) if line.strip()
        )

    def _rows(self, path: Path) -> Iterator[dict[str, Any]]:
        """The rows of a Parquet file; images in it become files."""
        if not path.is_file():
            raise DataError(f"{path}: cannot be read (No such file or directory)")
        for number, cells in enumerate(parquet_rows(path, rows_at_once=_ROWS_AT_ONCE)):
            # A table gives every row all columns.
            row = {name: value for name, value in cells.items() if value is not None}
            for name in ("image", "images"):
                found = row.get(name)
                if isinstance(found, list):
                    row[name] = [self._extracted(image, f"{path}: row {number}") for image in found]
                elif found is not None:
                    row[name] = self._extracted(found, f"{path}: row {number}")
            yield row

    def _extracted(self, image: Any, place: str) -> Any:
        """The path of an image inside a file, once it is a file; a path stays as it is."""
        if not isinstance(image, (bytes, dict)) or self.extract_to is None:
            return image
        content, path = (image, None) if isinstance(image, bytes) else (image.get("bytes"), image.get("path"))
        digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else ""
        name = str(PurePosixPath(path).with_suffix("")) if path else digest[:16]
        # Many files have one path for all images.
        if self._contents.setdefault(name, digest) != digest:
            name = f"{name}-{digest[:16]}"
        try:
            return extract_image(self.extract_to, name, image, [self.root], self._names)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None

    def records(self) -> Iterator[EmotionRecord]:
        labels = get_label_set(self.settings.label_set) if self.settings.label_set is not None else None
        for record in self._records:
            changes: dict[str, Any] = self._units(record) if self.settings.units else {}
            if self.settings.images and not self._extracts:
                changes["image"] = f"{self.settings.images.strip('/')}/{record.image}"
            with self.collect_faults(f"image '{record.image}'"):
                if labels is not None and record.emotion is not None:
                    if record.label_set != self.settings.label_set:
                        raise DataError(f"labelled with {record.label_set}, not with {self.settings.label_set}")
                    changes["emotion"] = labels.canonical(record.emotion)
                image = changes.get("image", record.image)
                if self.settings.check_images:
                    changes["image"] = self.require_image(image)
                # Validated again: the folder may lead out of the image root.
                yield build_record({**record.model_dump(exclude_defaults=True), **changes}, "record")
        if self._num_without_units:
            self.notes.add(f"the answers about {self._num_without_units} images name no action unit", expected=True)

    def _units(self, record: EmotionRecord) -> dict[str, Any]:
        """The action units that the answers of a record name or deny, as fields; nothing if they contradict."""
        read = [read_action_units(item.answer, self.settings.units) for item in record.instructions]
        found: dict[int, set[float]] = {}
        for answer in read:
            for unit in self.settings.units if answer.status == "ok" else ():
                value = answer.values[f"AU{unit}"]
                found.setdefault(unit, set()).update([float(value > 0)] if value is not None else [0.0, 1.0])
        clear = {unit: values.pop() for unit, values in sorted(found.items()) if len(values) == 1}
        if not clear:
            self._num_without_units += 1
            return {}
        marks = {"units_by": self.settings.units_by, "units_scale": "presence"}
        only = ",".join(map(str, clear))
        return {"action_units": clear, "extra": {**record.extra, **marks, "occurrence_only": only}}


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _with_messages(item: Any) -> Any:
    """An item with a question and its answer under keys of their own, as an item with messages."""
    if isinstance(item, dict) and not item.get("conversations") and not item.get("messages"):
        reward = item.get("reward_model")
        if isinstance(reward, dict) and "ground_truth" in reward:
            item = {"completion": reward["ground_truth"], **item}
        for question, answer in _QUESTIONS.items():
            if question in item and answer in item:
                turns = [*_turns_of(item[question], "user"), *_turns_of(item[answer], "assistant")]
                return {**item, "messages": turns}
    return item


def _turns_of(value: Any, role: str) -> list[Any]:
    return value if isinstance(value, list) else [{"role": role, "content": value}]
