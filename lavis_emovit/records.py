"""The record: one image or clip and everything known about it, one JSON object per line.

Readers of published datasets create records, generation adds instructions, and shards store them for training.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from lavis_emovit.boxes import Box
from lavis_emovit.clips.clip import Clip, RelativePath
from lavis_emovit.clips.trace import Trace
from lavis_emovit.errors import DataError, bullet_list
from lavis_emovit.files import atomic_writer, is_plain_name, load_json, parse_json, write_json
from lavis_emovit.own_files import PathText, Written, read_own_if_any
from lavis_emovit.paths import RECORDS_NAME
from lavis_emovit.settings import FrozenModel, Number, Text, nearest_name
from lavis_emovit.turns import read_turns

InstructionKind = Literal[
    "categorical", "conversation", "reasoning", "description", "explanation", "attribute", "expression"
]
INSTRUCTION_KINDS: tuple[str, ...] = get_args(InstructionKind)

# A categorical answer in EmoVIT's instruction data; the label follows the colon.
_CATEGORICAL_ANSWER = re.compile(r"^\s*predict(?:ed)? emotion:\s*([^.\n]+?)\s*\.?\s*$", re.IGNORECASE)
# A quote of a text has one backslash in front of it.
_KEY_END = re.compile(rb'"\s*:(?<![^\\]\\":)')
_VOTE_SUM_TOLERANCE = 0.01
RECORD_KEY = "emovit_record"
"""Key of exported conversations with the record's other fields, as JSON text."""
OCCURRENCE_THRESHOLD = 0.5
"""Value from which an action unit without intensities, 1 or 0, is active."""
_MAX_BAD_LINES = 20
_MAX_UNIT, _MAX_INTENSITY = 99, 5.0


class Attributes(FrozenModel):
    """The six visual attributes of EmoSet, each optional.

    `brightness` ranges from 0 (darkest) to 1, `colorfulness` from 0 (black and white) to 1.
    """

    brightness: Number | None = Field(default=None, ge=0.0, le=1.0)
    colorfulness: Number | None = Field(default=None, ge=0.0, le=1.0)
    scene: str | None = None
    object: list[str] | None = None
    facial_expression: str | None = None
    human_action: str | None = None


class Instruction(FrozenModel):
    """A question about the image and its answer; `provenance` is its author (`template:categorical/1`, `human`)."""

    kind: InstructionKind
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    provenance: str = Field(min_length=1)


_KEYS_OF_INSTRUCTION = len(Instruction.model_fields)


class Utterance(FrozenModel):
    """Text that a person wrote about the image: the reason for an emotion (ArtEmis), or a funny caption."""

    text: str = Field(min_length=1)
    emotion: str | None = None  # the emotion that it explains, a member of the record's label set
    score: Number | None = None  # rating of the text, with the meaning and range that the dataset defines


class AnsweredQuestion(FrozenModel):
    """A question about the image with its right answers, for evaluation; with `options`, a multiple choice.

    Attributes:
        answers: with options, the texts of those that are right; else what people answered, repeated as often as given.
        options: their texts in the order of the question, without marks.
        categories: what results are divided by, such as `{"question_type": "Yes-or-No"}`.
        id: of the question in its benchmark, unique within the record; null: its number in the record, from 0.
    """

    question: Text
    answers: list[str] = Field(min_length=1)
    options: list[str] | None = Field(default=None, min_length=2)
    categories: dict[str, str] | None = None
    id: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _answers_are_options(self) -> AnsweredQuestion:
        if blank := [text for text in (*self.answers, *(self.options or ())) if not text.strip()]:
            raise ValueError(f"has an empty text among its options or answers ({blank!r})")
        if self.options is not None and (strays := [text for text in self.answers if text not in self.options]):
            raise ValueError(f"the answer {strays[0]!r} is none of the options {self.options}")
        return self


class Statement(FrozenModel):
    """A sentence about the emotion of the image, true or false, for evaluation.

    `categories` and `id` are as in `AnsweredQuestion`.
    """

    text: Text
    is_correct: bool
    categories: dict[str, str] | None = None
    id: str | None = Field(default=None, min_length=1)


class EmotionRecord(FrozenModel):
    """One image or clip and everything known about it."""

    # Unique among all records that are trained or evaluated together, for example `emoset/awe_06628`.
    id: str = Field(min_length=1)
    image: RelativePath  # of the image, or of the video of a clip
    split: str = Field(min_length=1)  # `train`, `val`, `test`, or a name that the dataset defines
    source: str = Field(min_length=1)
    emotion: str | None = None  # label, a member of the label set `label_set`
    label_set: str | None = None
    labels: list[str] | None = None  # members of `label_set` that all apply, in datasets with several labels per image
    votes: dict[str, Number] | None = None  # label -> share of the annotators; the shares sum to 1
    attributes: Attributes = Attributes()
    caption: str | None = None
    # valence, arousal, dominance: in [-1, 1].
    valence: Number | None = Field(default=None, ge=-1.0, le=1.0)
    arousal: Number | None = Field(default=None, ge=-1.0, le=1.0)
    dominance: Number | None = Field(default=None, ge=-1.0, le=1.0)
    # Number of the facial action unit -> intensity from 0 (absent) to 5, as in FACS.
    action_units: dict[int, Number] | None = None
    box: Box | None = None  # the person that the record describes
    pair: list[Box] | None = None  # where in `image` the two images are that it is made of, the first one first
    utterances: list[Utterance] = Field(default_factory=list)
    instructions: list[Instruction] = Field(default_factory=list)  # the questions about the image for training
    questions: list[AnsweredQuestion] = Field(default_factory=list)  # with known answers, for evaluation
    statements: list[Statement] = Field(default_factory=list)  # true or false, for evaluation
    words: list[str] | None = None  # words of emotion that people chose freely, members of no label set
    ranking: list[str] | None = None  # the strongest emotions, strongest first, members of `label_set`
    group: str | None = None  # the person, session or film; splits never divide a group
    clip: Clip | None = None  # what `image` is a part of, or the frames that it is one of; null: `image` is an image
    extra: dict[str, str | int | float | bool] = Field(default_factory=dict)  # any other plain values of the dataset

    @field_validator("split")
    @classmethod
    def _split_is_a_name(cls, value: str) -> str:
        if not is_plain_name(value):
            raise ValueError("must be a plain name, because it becomes the name of a folder")
        return value

    @field_validator("votes")
    @classmethod
    def _votes_are_shares(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is None:
            return value
        if any(share < 0.0 for share in value.values()) or abs(sum(value.values()) - 1.0) > _VOTE_SUM_TOLERANCE:
            raise ValueError("must be shares of the annotators: none negative, together 1")
        return value

    @field_validator("action_units")
    @classmethod
    def _units_are_of_facs(cls, value: dict[int, float] | None) -> dict[int, float] | None:
        for unit, intensity in (value or {}).items():
            if not 1 <= unit <= _MAX_UNIT:
                raise ValueError(f"{unit} is no action unit; they have numbers from 1 to {_MAX_UNIT}")
            if not 0 <= intensity <= _MAX_INTENSITY:
                raise ValueError(
                    f"unit {unit} has the intensity {intensity:g}; intensities are 0 (absent) to {_MAX_INTENSITY:g}. "
                    "Leave out units that are not coded"
                )
        return value

    @field_validator("questions", "statements")
    @classmethod
    def _ids_are_unique(cls, value: list[Any]) -> list[Any]:
        counts = Counter(one.id if one.id is not None else str(number) for number, one in enumerate(value))
        if repeated := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"two of them have the id '{repeated[0]}'; ids must be unique within a record")
        return value

    @field_validator("words", "ranking")
    @classmethod
    def _words_are_different(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and (not value or len(set(value)) < len(value) or not all(map(str.strip, value))):
            raise ValueError("must be one or more different words")
        return value

    @field_validator("pair")
    @classmethod
    def _pair_is_of_two(cls, value: list[Box] | None) -> list[Box] | None:
        if value is not None and len(value) != 2:
            raise ValueError(f"must be the boxes of two images, not of {len(value)}")
        return value

    @model_validator(mode="after")
    def _pair_is_of_whole_images(self) -> EmotionRecord:
        if self.pair is not None and (self.box is not None or self.clip is not None):
            raise ValueError("pair belongs to an image of two whole ones; remove its box or clip")
        return self

    @model_validator(mode="after")
    def _image_is_of_the_clip(self) -> EmotionRecord:
        if self.clip is not None and self.clip.frames is not None and self.image not in self.clip.frames:
            raise ValueError("image must be one of clip.frames, the frame that stands for the clip")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """All files of the image or clip."""
        return (self.image,) if self.clip is None or self.clip.frames is None else self.clip.frames

    @property
    def group_key(self) -> str | None:
        """The group in composed Unicode, for comparisons: an accented letter may be one character or two."""
        return unicodedata.normalize("NFC", self.group) if self.group is not None else None

    @property
    def occurrence_only(self) -> frozenset[int]:
        """Action units that are present or absent without an intensity: coded so, ungraded, or completed by SEKE."""
        listed = [str(self.extra.get(key, "")).split(",") for key in ("occurrence_only", "ungraded_action_units")]
        completed = [word.removeprefix("unit:") for word in str(self.extra.get("seke_given", "")).split()]
        return frozenset(int(unit) for units in (*listed, completed) for unit in units if unit.strip().isdecimal())

    def active_units(self, active_from: float = 1.0) -> dict[int, bool]:
        """Coded action unit -> whether it is active: from this intensity, or present if it has none."""
        only = self.occurrence_only
        return {
            unit: intensity >= (OCCURRENCE_THRESHOLD if unit in only else active_from)
            for unit, intensity in (self.action_units or {}).items()
        }

    def to_json(self) -> str:
        """One line of JSON, without the fields that have their default value."""
        return self.model_dump_json(exclude_defaults=True)


class RecordStore(Sequence[EmotionRecord]):
    """Records in memory as lines of JSON, a tenth of the size of the objects; every access parses its line."""

    def __init__(self, records: Iterable[EmotionRecord]):
        self._lines = [record.to_json() for record in records]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        return EmotionRecord.model_validate_json(self._lines[number])


def parse_record(line: str | bytes, place: str) -> EmotionRecord:
    """Parse one line of JSON; DataError names `place` (`records.jsonl:12`) and all wrong keys and values."""
    # Windows writes a byte order mark.
    line = line.removeprefix("\ufeff") if isinstance(line, str) else line.removeprefix(codecs.BOM_UTF8)
    try:
        return EmotionRecord.model_validate_json(line)
    except ValidationError as error:
        # A value of `extra` has one problem for each type that it might have.
        problems = "; ".join(dict.fromkeys(_describe(item) for item in error.errors()))
        raise DataError(f"{place}: {problems}") from None


def _id_in(line: str | bytes) -> str:
    """The id of a faulty record for messages, if it has one."""
    try:
        return f" (record '{load_json(line)['id']}')"
    except (ValueError, KeyError, TypeError):
        return ""


def build_record(values: Mapping[str, Any], place: str) -> EmotionRecord:
    """A record from plain values; raises as `parse_record`."""
    return parse_record(json.dumps(values), place)


def read_records(path: str | os.PathLike[str]) -> Iterator[EmotionRecord]:
    """Records of a JSON-lines file.

    DataError for a missing file, or for lines that are not records, repeat an id, or repeat a key. No record is yielded
    after the first bad line, and the error names file, line and key of all bad lines, up to a limit.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path}: no such records file. Create one with `emovit data import`, or pass the path of an existing one."
        )
    seen: dict[str, int] = {}
    problems: list[str] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            try:
                record = parse_record(line, f"{path}:{number}")
                if len(_KEY_END.findall(line)) != _num_keys(record):
                    # A key is repeated, or a text has the end of a key in it.
                    parse_json(line, f"{path}:{number}", unique_keys=True)
            except DataError as error:
                problems.append(f"{error}{_id_in(line)}")
                continue
            first = seen.setdefault(record.id, number)
            if first != number:
                problems.append(
                    f"{path}:{number}: id '{record.id}' is already used in line {first}; ids must be unique"
                )
            elif not problems:
                yield record
    if len(problems) == 1:
        raise DataError(problems[0])
    if problems:
        raise DataError(f"{path}: {len(problems)} lines cannot be used:\n{bullet_list(problems, _MAX_BAD_LINES)}")


def _num_keys(record: EmotionRecord) -> int:
    """Different keys in the line of a record, with those of the objects in it."""
    # All keys of an instruction are required. Written out, because it runs for every line.
    count = len(record.model_fields_set) + len(record.attributes.model_fields_set) + len(record.extra)
    count += _KEYS_OF_INSTRUCTION * len(record.instructions)
    if record.votes:
        count += len(record.votes)
    if record.action_units:
        count += len(record.action_units)
    for utterance in record.utterances:
        count += len(utterance.model_fields_set)
    if record.clip is not None:
        count += record.clip.num_keys
    asked: tuple[AnsweredQuestion | Statement, ...] = (*record.questions, *record.statements)
    for one in asked:
        count += len(one.model_fields_set) + len(one.categories or ())
    return count


def write_records(path: str | os.PathLike[str], records: Iterable[EmotionRecord]) -> int:
    """Write records as JSON lines, atomically, and return their number. DataError if two records share an id."""
    seen: set[str] = set()
    with atomic_writer(path) as file:
        for record in records:
            if record.id in seen:
                raise DataError(f"{path}: two records have the id '{record.id}'; ids must be unique")
            seen.add(record.id)
            file.write(record.to_json() + "\n")
    return len(seen)


class RecordsSummary(Written):
    """The account beside a records file, as far as it is read: the folder of the image paths."""

    image_root: PathText | None = None


_SUMMARY_ADVICE = "Delete it, and store the folder of the images again with `emovit data images RECORDS FOLDER`."


def write_summary(records: Path, image_root: Path, /, **account: Any) -> None:
    """Write `<records>.summary.json`: the folder of the image paths, and the account of how the records were read."""
    root, folder = image_root.resolve(), records.parent.resolve()
    stored = root.relative_to(folder).as_posix() if root.is_relative_to(folder) else str(root)
    write_json(records.with_suffix(".summary.json"), {"image_root": stored, **account})


def remember_image_root(records: Path, image_root: Path) -> None:
    """Change the folder of the image paths in the summary of a records file, and keep the rest of the summary."""
    account = next(_summaries(records), RecordsSummary())
    write_summary(records, image_root, **(account.model_extra or {}))


def image_root_of(records: Path) -> Path:
    """The folder of the image paths of a records file, as its summary states, else the file's own folder."""
    return next((root for root in _stated_roots(records) if root.is_dir()), records.parent)


def lost_image_root(records: Path) -> Path | None:
    """The folder that the summary of a records file states, if it no longer exists and no other one is stated."""
    stated = _stated_roots(records)
    return stated[0] if stated and not any(root.is_dir() for root in stated) else None


def find_image_root(records: Path, images: Path | None = None, *, option: str = "--images") -> Path:
    """The folder of the image paths: `images`, which the command got by `option`, else `image_root_of` the records.

    DataError if `images` is no folder, or if the stated folder no longer exists and the images are not beside the file.
    """
    if images is not None:
        if not images.is_dir():
            raise DataError(
                f"{option} {images}: no such folder; pass the folder that the records' image paths start in"
            )
        return images
    lost = lost_image_root(records)
    if lost is not None:
        first = next(read_records(records), None)
        if first is not None and not (records.parent / first.image).is_file():
            raise DataError(
                f"{records}: its images were in {lost}, which no longer exists. Pass their new folder with {option}, "
                f"or store it once with `emovit data images {records} FOLDER`."
            )
    return image_root_of(records)


def _stated_roots(records: Path) -> list[Path]:
    return [records.parent / str(content.image_root) for content in _summaries(records)]


def _summaries(records: Path) -> Iterator[RecordsSummary]:
    """The summaries that may belong to a records file, that of its own name first, if they state a folder."""
    for path in (records.with_suffix(".summary.json"), records.with_name("summary.json")):
        is_ours = path.name != "summary.json" or records.name == RECORDS_NAME
        content = read_own_if_any(path, RecordsSummary, _SUMMARY_ADVICE) if is_ours else None
        if content is not None and content.image_root is not None:
            yield content


def to_conversations(records: Iterable[EmotionRecord]) -> list[dict[str, Any]]:
    """LLaVA-style items, one per question, with unique ids and more keys (`kind`, `provenance`, `split`, `emotion`).

    A question starts with `<image>`, which LLaMA-Factory and the processors of transformers expect.
    """
    items: list[dict[str, Any]] = []
    for record in records:
        for number, instruction in enumerate(record.instructions):
            item: dict[str, Any] = {
                "id": f"{record.id}/{instruction.kind}/{number}",
                "image": record.image,
                "conversations": [
                    {"from": "human", "value": f"<image>\n{instruction.question}"},
                    {"from": "gpt", "value": instruction.answer},
                ],
                "kind": instruction.kind,
                "provenance": instruction.provenance,
                "split": record.split,
            }
            items.append(item if record.emotion is None else {**item, "emotion": record.emotion})
    return items


def from_conversations(
    items: Iterable[Mapping[str, Any]],
    *,
    source: str = "conversations",
    split: str = "train",
    label_set: str | None = None,
    place: str = "conversations",
    skip: Callable[[str], None] = lambda reason: None,
) -> list[EmotionRecord]:
    """Records from LLaVA-style items, one per image, in the order of first appearance.

    `split` is that of items without one. The items' own ids are not used, because they repeat in published instruction
    files. Items have `image` and `conversations`, or `images` and `messages` (with `role` and `content`). Each turn of
    an item becomes one instruction; its question contains the earlier turns. In items without a kind, an answer of the
    form `Predict emotion: <label>` is categorical and gives the emotion; all others are conversation. `skip` is called
    with the reason for each item without exactly one image. DataError, with `place` (the file), for an item without
    turns, turns that don't alternate, or an image with two emotions or two splits.

    Items of `emovit export data` become the records that they were: `RECORD_KEY` has all fields but the instructions,
    and a list of kinds marks turns that are independent questions.
    """
    drafts: dict[tuple[str | None, str], dict[str, Any]] = {}
    exported: dict[tuple[str | None, str], dict[str, Any]] = {}
    for number, item in enumerate(items):
        where = f"{place}: item {number} (id {item.get('id', 'none') if isinstance(item, Mapping) else 'none'})"
        if not isinstance(item, Mapping):
            raise DataError(f"{where}: expected an object with 'image' and 'conversations', got {type(item).__name__}")
        image = item.get("image") or item.get("images") or ()
        images = [image] if isinstance(image, str) else image
        if not isinstance(images, Sequence) or not all(isinstance(name, str) for name in images):
            raise DataError(f"{where}: 'image' must be the path of an image, got {reprlib.repr(image)}")
        if len(images) != 1 or not PurePosixPath(images[0]).name:
            skip("items with several images" if len(images) > 1 else "items without an image")
            continue
        image = images[0]
        fields = _exported_fields(item, where)
        key = (fields.get("id"), image)
        if exported.setdefault(key, fields) != fields:
            raise DataError(f"{where}: '{RECORD_KEY}' differs from that of an earlier item of the same record")
        start = {"split": item.get("split", split), "source": source} | fields
        draft = drafts.setdefault(key, {**start, "image": image, "instructions": []})
        if item.get("split", draft["split"]) != draft["split"]:
            raise DataError(f"{where}: image '{image}' is in '{item['split']}' here and in '{draft['split']}' before")
        emotion = item.get("emotion")
        kinds, authors = item.get("kind"), item.get("provenance")
        texts = item.get("conversations") or item.get("messages")
        turns = read_turns(texts, where, independent=isinstance(kinds, list), is_exported=bool(fields))
        for given in (kinds, authors):
            if isinstance(given, list) and len(given) != len(turns):
                raise DataError(
                    f"{where}: 'kind' and 'provenance' must have {len(turns)} entries, one for each question"
                )
        for number, (question, answer) in enumerate(turns):
            label = _CATEGORICAL_ANSWER.match(answer)
            kind = kinds[number] if isinstance(kinds, list) else kinds
            author = authors[number] if isinstance(authors, list) else authors
            if label and emotion is None:
                emotion = label.group(1).lower()
            draft["instructions"].append(
                {
                    "kind": kind or ("categorical" if label else "conversation"),
                    "question": question,
                    "answer": answer,
                    "provenance": author or f"import:{source}",
                }
            )
        if emotion is not None and not fields:
            if _plain_label(draft.setdefault("emotion", emotion)) != _plain_label(emotion):
                raise DataError(f"{where}: image '{image}' is '{emotion}' here and '{draft['emotion']}' before")
            draft["label_set"] = label_set
    # `a.jpg` and `a.png` are two images; their suffixes keep them apart.
    images_found = dict.fromkeys(image for _, image in drafts)
    stems = Counter(_without_suffix(image) for image in images_found)
    names = {image: stem if stems[stem := _without_suffix(image)] == 1 else image for image in images_found}
    return [
        build_record({"id": f"{source}/{names[image]}", **draft}, f"{place}: image '{image}'")
        for (_, image), draft in drafts.items()
    ]


def _exported_fields(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All fields but the instructions of the record that an item was exported from; none for other items."""
    text = item.get(RECORD_KEY)
    if text is None:
        return {}
    fields = parse_json(text, f"{where}: '{RECORD_KEY}'", unique_keys=True) if isinstance(text, str) else None
    if not isinstance(fields, dict) or not isinstance(fields.get("id"), str):
        raise DataError(f"{where}: '{RECORD_KEY}' must be the JSON text of a record with an id")
    return fields


def _plain_label(label: Any) -> str:
    """A label for comparisons: no label set distinguishes case, spaces, underscores or forms of Unicode."""
    return " ".join(unicodedata.normalize("NFC", str(label)).casefold().replace("_", " ").split())


def _without_suffix(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _describe(item: Any) -> str:
    """One pydantic problem as a phrase; suggests the nearest valid name for an unknown key."""
    location = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        parts: dict[str, Any] = {
            "attributes": Attributes,
            "instructions": Instruction,
            "utterances": Utterance,
            "questions": AnsweredQuestion,
            "statements": Statement,
            "clip": Clip,
        }
        owner: type[FrozenModel] = parts.get(location[0], EmotionRecord) if len(location) > 1 else EmotionRecord
        owner = Trace if location[:-1] == ["clip", "trace"] else owner
        return f"unknown key '{'.'.join(location)}'{nearest_name(location[-1], list(owner.model_fields))}"
    if item["type"] == "string_pattern_mismatch":
        return f"key '{'.'.join(location)}' is blank"
    if item["type"] == "missing":
        return f"key '{'.'.join(location)}' is missing"
    if item["type"] == "json_invalid":
        return f"not one JSON object ({item['msg']})"
    message = item["msg"].removeprefix("Value error, ")
    if location[:1] == ["extra"]:
        location, message = location[:2], "must be text, a finite number, true or false"
    name = f"key '{'.'.join(location)}': " if location else ""
    shown = repr(item["input"])
    return f"{name}{message} (got {shown if len(shown) < 200 else reprlib.repr(item['input'])})"
