"""Base of the readers of published datasets, one for each layout on disk."""

from __future__ import annotations

import logging
import math
import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict, Field, field_validator

from lavis_emovit.emotion.labels import LabelSet, LabelSetName, coarser_label
from lavis_emovit.emotion.typos import find_typos
from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.files import parse_json, read_file
from lavis_emovit.records import EmotionRecord, build_record
from lavis_emovit.settings import Settings, parse_settings

logger = logging.getLogger(__name__)

# Layout -> its reader; see `Reader`.
LAYOUTS: dict[str, type[Reader]] = {}

# Names of splits in the wild, without case -> ours.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "publictest"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "privatetest"), "test"),
}

FOLD = "fold"
"""Key of `extra`: number of the fold in which a record is tested, for datasets with several pairs of splits."""
FRAMES = "folder of frames"
"""What the path of a clip names, if not an image or a video; see `Reader.find_image`."""
_MAX_FAULTS = 20

ContentT = TypeVar("ContentT")


class Notes:
    """The account of a reading: rows, skipped rows, unused columns, oddities.

    Skipped rows are not faults: an import reports them, and only a strict one refuses them. What a row is depends on
    the layout: a line of a table, an entry of a list, a frame, an image in a folder.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.num_rows = 0
        self.num_joined = 0  # rows that became part of another row's record
        self.skipped: Counter[str] = Counter()  # reason -> number of rows without a record
        self.examples: dict[str, list[str]] = {}  # reason -> names of skipped rows, where they help
        self.unused: dict[str, None] = {}  # columns that no field takes, in the order of the table
        self.refuses_unused = True  # whether a strict import refuses unused columns
        self._expected: set[str] = set()

    def add(self, line: str, *, expected: bool = False) -> None:
        """Note an oddity, once; a strict import accepts `expected` ones."""
        if line not in self.lines:
            self.lines.append(line)
        if expected:
            self._expected.add(line)

    def skip(self, reason: str, *, expected: bool = False, count: int = 1, example: str | None = None) -> None:
        """Count a row without a record; a strict import accepts `expected` ones."""
        self.skipped[reason] += count
        if example is not None:
            self.examples.setdefault(reason, []).append(example)
        if expected:
            self._expected.add(reason)

    def report(self) -> list[str]:
        return [*self.lines, *self._unused_line(), *map(self._skipped_line, self.skipped)]

    def account(self, num_records: int) -> str:
        """All rows in one sentence."""
        parts = [f"{num_records} records", f"{self.skipped.total()} skipped"]
        parts += [f"{self.num_joined} joined to the record of another row"] if self.num_joined else []
        return f"{self.num_rows} rows: {', '.join(parts)}"

    def to_dict(self, num_records: int) -> dict[str, Any]:
        return {
            "rows": self.num_rows,
            "records": num_records,
            "joined": self.num_joined,
            "skipped": dict(self.skipped),
            "skipped_rows": self.examples,
            "unused_columns": list(self.unused),
            "notes": self.lines,
        }

    def _skipped_line(self, reason: str) -> str:
        found = self.examples.get(reason, [])
        named = f" ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})" if found else ""
        return f"{self.skipped[reason]} skipped: {reason}{named}"

    def _unused_line(self) -> list[str]:
        if not self.unused:
            return []
        return [f"{len(self.unused)} columns are not imported: {', '.join(self.unused)}"]

    def serious(self) -> list[str]:
        """The notes that a strict import refuses: all except the expected ones."""
        unexpected = [self._skipped_line(reason) for reason in self.skipped if reason not in self._expected]
        lines = [line for line in self.lines if line not in self._expected]
        return [*lines, *(self._unused_line() if self.refuses_unused else ()), *unexpected]

    def log(self, name: str) -> None:
        for line in self.report():
            logger.warning("%s: %s", name, line)


class LabelSettings(Settings):
    """Labels and splits as a dataset names them."""

    label_set: LabelSetName | None = None
    # Name in the dataset -> label; `null` skips such images.
    label_names: dict[str, str | None] = Field(default_factory=dict)
    split_names: dict[str, str] = Field(default_factory=dict)  # name in the dataset -> split
    default_split: str = "train"  # split of images without one
    coarsen_to: LabelSetName | None = None  # a coarser label set to map the labels to

    @field_validator("label_names", "split_names", mode="before")
    @classmethod
    def _codes_are_text(cls, value: Any) -> Any:
        # A code is a number in YAML and text in a table.
        return {str(key): item for key, item in value.items()} if isinstance(value, dict) else value

    def renamed(self, name: str) -> str | None:
        """The label of a name in the dataset; None: skip it. The name of a code is also that of its fraction, 2.0."""
        return self.label_names.get(name, self.label_names.get(name.removesuffix(".0"), name))

    def canonical(self, label: str, labels: LabelSet) -> str:
        """The member of the label set; DataError for another label, which for a code says how to name it."""
        try:
            return labels.canonical(label)
        except DataError as error:
            if not (code := re.fullmatch(r"(-?[0-9]+)(\.0)?", label)):
                raise
            raise DataError(
                f"{error}. Name the classes behind the codes in `label_names` "
                f"(`--set label_names.{code[1]}={labels.labels[0]}` and so on; null skips a code)"
            ) from None


class Reader(ABC):
    """Reads the records of a published dataset in one layout.

    To add a layout, add a module to `lavis_emovit/sources/readers/` with a sub-class:

        class MyReader(Reader, layout="my_layout"): ...

    Its name is then a valid `source` in a dataset's YAML, and its settings are read from the key of the same name.

    `source` is the name of the dataset, also the first part of each record's id. `notes` collects what is skipped or
    odd. Images that the dataset stores inside its tables go to the folder `extract_to`. `splits` are the splits to
    read, if the dataset has a list for each; None: all.
    """

    layout: ClassVar[str]
    settings_class: ClassVar[type[Settings] | None] = None  # settings of the layout, if it has any
    remedy: ClassVar[str] = "Correct or remove these entries."  # what a user should do about faulty entries
    remedy_for_all: ClassVar[str] = ""  # the same if every entry is faulty; default: `remedy`
    # What `emovit data import LAYOUT` takes, if the layout does not belong to a particular dataset.
    imported_from: ClassVar[Literal["file", "folder"] | None] = None
    # The setting `file` if such an import gets a folder instead of a file; None: folders are not taken.
    file_of_folder: ClassVar[str | None] = None
    settings: Any

    def __init_subclass__(cls, layout: str | None, **options: Any):
        super().__init_subclass__(**options)
        if layout is None:  # a base of several layouts
            return
        other = LAYOUTS.setdefault(layout, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"layout '{layout}' is defined in {other.__module__} and in {cls.__module__}")
        cls.layout = layout

    def __init__(
        self,
        root: str | os.PathLike[str],
        settings: Any = None,
        *,
        source: str = "",
        notes: Notes | None = None,
        extract_to: str | os.PathLike[str] | None = None,
        splits: Sequence[str] | None = None,
    ):
        self.root = Path(root)
        self.settings = self.settings_class() if settings is None and self.settings_class is not None else settings
        self.source = source
        self.notes = notes if notes is not None else Notes()
        self.extract_to = Path(extract_to) if extract_to is not None else None
        self.splits = splits
        self.labels_found: set[str] = set()
        self._spelt: dict[str, Counter[str]] = {}  # label -> names that the dataset has for it -> images
        self._faults: list[tuple[str, str]] = []  # place, message
        self._num_read = 0
        self._odd_truths: dict[str, list[str]] = defaultdict(list)  # what is odd -> where
        self._spellings: dict[Path, dict[str, str]] = {}  # folder -> name in composed Unicode -> name on disk

    # A layout defines the following.

    def files(self) -> list[Path]:
        """The files that describe the dataset; its fingerprint has their content."""
        return []

    def listed(self) -> Iterable[Path]:
        """More files for its fingerprint, which has only their paths and sizes: images in folders of classes."""
        return ()

    def annotations(self) -> Iterable[Path]:
        """Files of a few bytes with the annotation of one image each; one hash has the content of all of them."""
        return ()

    def is_present(self) -> bool:
        """Whether the folder has this layout."""
        return all(path.is_file() for path in self.files())

    def check(self) -> None:  # noqa: B027, not every layout needs it
        """Raise a DataError if something is missing without which no record can be read."""

    @abstractmethod
    def records(self) -> Iterator[EmotionRecord]:
        """All records; collects the faults of single entries with `collect_faults`."""

    @property
    def place(self) -> Path:
        """The file or folder that messages about faults name."""
        return self.root

    @property
    def image_root(self) -> Path:
        """The folder that the records' image paths are relative to."""
        return self.root

    # Callers use the following.

    def read(self) -> Iterator[EmotionRecord]:
        """All records, read lazily. DataError at once if `check` fails, or after the sound records for faults."""
        self.check()
        return self._read()

    def _read(self) -> Iterator[EmotionRecord]:
        for record in self.records():
            self._num_read += 1
            self._look_at_truths(record)
            yield record
        self._note_names()
        for what, ids in self._odd_truths.items():
            self.notes.add(f"{len(ids)} {what} (first: {ids[0]})", expected=True)
        if self._faults:
            count = len(self._faults)
            self._refuse(f"{count} fault{'s' if count > 1 else ''}")

    # Layouts use the following.

    @contextmanager
    def collect_faults(self, place: str = "") -> Iterator[None]:
        """Collect a DataError of the block, so that faults are reported together; too many end the reading."""
        try:
            yield
        except DataError as error:
            self._faults.append((place, str(error)))
        if len(self._faults) >= _MAX_FAULTS:
            self._refuse(f"at least {len(self._faults)} faults, reading stopped")

    def record(self, place: str, **values: Any) -> EmotionRecord:
        """A record with the source, also in front of its id. DataError for wrong values names `place`."""
        return build_record({**values, "id": f"{self.source}/{values['id']}", "source": self.source}, place)

    def label_fields(self, name: str, labels: LabelSet) -> dict[str, Any] | None:
        """`emotion` and `label_set` of an image; None for an image to skip. DataError for an unknown label."""
        settings: LabelSettings = self.settings
        label = settings.renamed(name)
        if label is None:
            self.notes.skip(f"labelled '{name}'", expected=True)
            return None
        emotion = settings.canonical(label, labels)
        self.labels_found.add(emotion)
        if label == name:
            self._spelt.setdefault(emotion, Counter())[name] += 1
        coarse = self.coarser(emotion, labels)
        if coarse is None:
            self.notes.skip(f"'{emotion}' has no equivalent in {settings.coarsen_to}", expected=True)
            return None
        return {"emotion": coarse, "label_set": self.label_set_name(labels)}

    def coarser(self, label: str, labels: LabelSet) -> str | None:
        """The label in the set that records have; None if it has no counterpart there."""
        coarse = self.settings.coarsen_to
        return label if coarse is None else coarser_label(label, labels.name, coarse)

    def label_set_name(self, labels: LabelSet) -> str:
        """The label set of records, for a dataset with these labels."""
        return self.settings.coarsen_to or labels.name

    def _look_at_truths(self, record: EmotionRecord) -> None:
        """Collect questions and statements whose truth is in doubt; they are kept."""
        for number, one in enumerate(record.questions):
            if one.options and len({option.strip().casefold() for option in one.options}) < len(one.options):
                place = f"question {one.id or number} of {record.id}"
                self._odd_truths["questions have the same option twice, either of which counts"].append(place)
        truths: dict[str, bool] = {}
        for statement in record.statements:
            if truths.setdefault(statement.text.strip().casefold(), statement.is_correct) != statement.is_correct:
                place = f"'{statement.text}' of {record.id}"
                self._odd_truths["statements are both correct and incorrect"].append(place)

    def _note_names(self) -> None:
        """Note names that are read as one label although they differ, and names that are probably misspelt."""
        for label, names in sorted(self._spelt.items()):
            if len(names) > 1:
                listed = ", ".join(f"'{name}' ({count} images)" for name, count in sorted(names.items()))
                self.notes.add(f"{listed} are all read as the label '{label}'", expected=True)
        for typo in find_typos({name: count for names in self._spelt.values() for name, count in names.items()}):
            self.notes.add(f"the label {typo}; if so, map it with `label_names` (--set {typo.as_setting()})")

    def require_image(self, image: str, what: str = "image") -> str:
        """As `find_image`; DataError if there is no such file."""
        found = self.find_image(image, what)
        if found is None:
            raise DataError(f"the {what} {image} is missing below {self.image_root}")
        return found

    def find_image(self, image: str, what: str = "image") -> str | None:
        """The path as the file system spells it, or None if there is no such file, or folder if `what` is `FRAMES`.

        Unicode has two forms of letters with accents, and a table may use another one than the file system.
        """
        image = str(PurePosixPath(image))  # `./a.jpg` and `a.jpg` are one image
        # They do not raise for names that no file can have.
        is_there = os.path.isdir if what == FRAMES else os.path.isfile
        if is_there(self.image_root / image):
            return image
        if image.isascii() or Path(image).is_absolute():
            return None
        folder = self.image_root
        for part in PurePosixPath(image).parts:
            if folder not in self._spellings:
                names = os.listdir(folder) if os.path.isdir(folder) else ()  # noqa: PTH112, PTH208
                self._spellings[folder] = {unicodedata.normalize("NFC", name): name for name in names}
            folder /= self._spellings[folder].get(unicodedata.normalize("NFC", part), part)
        found = folder.relative_to(self.image_root).as_posix()
        return found if found != image and is_there(folder) else None

    def chosen_frames(self, frames: Collection[int], every: int) -> list[int]:
        """Every n-th of the annotated frames, in order; the account counts the others as skipped."""
        chosen = sorted(frames)[::every]
        self.notes.num_rows += len(frames)
        if every > 1:
            self.notes.skip(f"only one of {every} frames is used", expected=True, count=len(frames) - len(chosen))
        return chosen

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _refuse(self, head: str) -> None:
        remedy = self.remedy if self._num_read else self.remedy_for_all or self.remedy
        raise DataError(f"{self.place}: {head}:\n{bullet_list(_joined_faults(self._faults))}\n{remedy}")


def _joined_faults(faults: list[tuple[str, str]]) -> list[str]:
    """A line for each message, with the places where it occurred."""
    places: dict[str, list[str]] = {}
    for place, message in faults:
        places.setdefault(message, []).append(place)
    lines = []
    for message, found in places.items():
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        lines.append(f"{', '.join(found[:3])}{more}: {message}" if found[0] else message)
    return lines


def read_json(path: Path, kind: type[ContentT], place: str | None = None) -> ContentT:
    """The content of a JSON file of this type, else DataError; `place` replaces the path in the message."""
    place = place or str(path)
    try:
        content = parse_json(read_file(path), place, unique_keys=True)
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror})") from None
    if not isinstance(content, kind):
        expected = "a list" if kind is list else "an object"
        raise DataError(f"{place}: expected {expected}, got {type(content).__name__}")
    return content


class Entry(Settings):
    """Base of an entry of a JSON file; keys that it does not declare are ignored here, and counted by the reader."""

    model_config = ConfigDict(extra="ignore")


EntryT = TypeVar("EntryT", bound=Entry)


def checked_entry(cls: type[EntryT], entry: Any, prefix: str = "") -> EntryT:
    """An entry of a JSON file. DataError with all its problems; `prefix` is the key in front of the entry's own."""
    if not isinstance(entry, dict):
        raise DataError(f"expected an object with {', '.join(cls.model_fields)}, got {type(entry).__name__}")
    found, problems = parse_settings(cls, entry, prefix)
    if found is None:
        raise DataError("; ".join(problem.removeprefix(".") for problem in problems))
    return found


def group_name(value: Any, names: dict[str, str]) -> str:
    """The name of a group; 1 and 1.0 are one group, and so are the two forms of accented letters in Unicode.

    `names` collects the groups of a dataset, from "" on.
    """
    text = value.strip() if isinstance(value, str) else str(value)
    whole = str(int(value)) if isinstance(value, float) and value.is_integer() else text
    return names.setdefault(unicodedata.normalize("NFC", whole), text)


def parse_number(text: str) -> float:
    """A finite number. ValueError for any other text, also for 1_000, which Python's `float` accepts."""
    number = float(text)
    if "_" in text or not math.isfinite(number):
        raise ValueError(f"'{text}' is not a number")
    return number
