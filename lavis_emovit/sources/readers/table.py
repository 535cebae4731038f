"""Reader of images with tables: one or several rows per image, and a mapping from record fields to columns."""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from lavis_emovit.emotion.labels import CUSTOM_PREFIX, LabelSet, get_label_set, joined_labels
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.sources.base import FOLD, Reader, group_name
from lavis_emovit.sources.clip_files import name_of, part_of_video
from lavis_emovit.sources.table_cells import cell_box, cell_number, cell_text
from lavis_emovit.sources.table_files import Row, has_embedded_images, read_rows
from lavis_emovit.sources.table_settings import TableFile, TableSettings, fill

_NUMBERS = ("valence", "arousal", "dominance", "score")
_TEXTS = ("id", "emotion", "split", "caption", "group", "utterance")

_CONTRADICTION = "rows of one id with different values"


class TableReader(Reader, layout="table"):
    """One record per row, or per image if the rows are gathered; ids come from the images or a column."""

    settings_class = TableSettings
    remedy = "Correct or remove these rows of the table."
    remedy_for_all = (
        "No row could be read, so check the settings first: the label set (`--label-set`), the columns (`--column "
        "emotion=mood`) and the image's path (`--set image=photos/{file}.jpg`)."
    )
    imported_from: ClassVar[Literal["file", "folder"] | None] = "file"
    settings: TableSettings

    def files(self) -> list[Path]:
        return [self.root / table.path for table in self.settings.tables()]

    @property
    def place(self) -> Path:
        files = self.files()
        return files[0] if len(files) == 1 else self.root

    @property
    def image_root(self) -> Path:
        return self.extract_to if self._extracts and self.extract_to is not None else self.root

    @cached_property
    def _extracts(self) -> bool:
        """Whether the tables contain the images themselves, so that reading writes them to files."""
        return self.settings.pixels is not None or any(has_embedded_images(f, self.settings) for f in self.files())

    @cached_property
    def _labels(self) -> LabelSet | None:
        return get_label_set(self.settings.label_set) if self.settings.label_set is not None else None

    def check(self) -> None:
        for path in self.files():
            if not path.is_file():
                names = ", ".join(self.settings.named())
                raise DataError(
                    f"{path}: no such table. It must be a CSV, JSON or Parquet file with the columns {names}."
                )
        if self.settings.columns.emotion is not None and self.settings.label_set is None:
            raise DataError(
                f"{self.files()[0]}: column '{self.settings.columns.emotion}' has emotions; pass their label set as "
                "label_set (`--label-set mikels8`, or your own: 'labels:calm, tense')"
            )
        if self._extracts and self.extract_to is None:
            raise DataError(f"{self.root}: its tables contain the images; pass a folder for them (`extract_to`)")

    def rows(self) -> Iterator[tuple[str, Row | str, TableFile]]:
        """(place, row or what is wrong with it, table) of all tables."""
        tables = self.settings.tables()
        for table in tables:
            named = [*self.settings.named(), *table.where]
            settings = self.settings
            if table.header is not None:
                settings = settings.model_copy(update={"header": table.header})
            for line, row in read_rows(self.root / table.path, settings, named, self.notes):
                # The head of the message names a single table.
                yield line if len(tables) == 1 else f"{table.path}, {line}", row, table

    def records(self) -> Iterator[EmotionRecord]:
        if self.settings.repeated == "refuse" and self.settings.compound is None:
            yield from self._records()
            return
        found = list(self._records())
        changes = {}
        if self.settings.compound is not None:
            classes = {record.emotion for record in found if record.emotion is not None}
            changes["label_set"] = get_label_set(f"{CUSTOM_PREFIX} {joined_labels(sorted(classes))}").name
        for record in found:
            if record.id in self._contradicted:
                self.notes.skip(_CONTRADICTION, expected=True, example=record.image)
            else:
                yield record.model_copy(update=changes)

    def _records(self) -> Iterator[EmotionRecord]:
        self._first: dict[str, tuple[str, int]] = {}  # id -> place of its row, hash of its record
        self._contradicted: set[str] = set()
        self._num_embedded = self._num_unlabelled = 0
        self._image_names: dict[str, str] = {}
        self._groups: dict[str, str] = {}
        # Table -> its rows, once for each of its `where`, and the rows that fit one.
        passes: Counter[str] = Counter()
        taken: Counter[str] = Counter()
        # Image -> (place of its first row, fields so far), for rows that are gathered.
        drafts: dict[str, tuple[str, dict[str, Any]]] = {}
        for place, row, table in self.rows():
            with self.collect_faults(place):
                if not isinstance(row, dict):
                    raise DataError(row)
                passes[table.path] += 1
                cells = {name: cell_text(value) for name, value in row.items()}
                if any(cells.get(column) != value for column, value in table.where.items()):
                    continue
                taken[table.path] += 1
                if cells.get(""):
                    self.notes.unused.setdefault("(no name)")
                unlike = next((name for name, value in self.settings.where.items() if cells[name] != value), None)
                if unlike is not None:
                    self.notes.skip(f"rows whose '{unlike}' is not {self.settings.where[unlike]}", expected=True)
                    continue
                values = self._values(row, cells, table)
                if values is None:
                    continue
                if self.settings.gather:
                    self.notes.num_joined += values["image"] in drafts
                    _gather(drafts, place, values)
                elif (record := self._unique(place, values)) is not None:
                    yield record
        for path, count in passes.items():
            num_rows = count // max(1, sum(table.path == path for table in self.settings.tables()))
            self.notes.num_rows += num_rows
            if num_rows > taken[path]:
                self.notes.skip(f"rows of {path} that fit no `where`", count=num_rows - taken[path])
        if self._num_unlabelled:
            column = self.settings.columns.emotion
            self.notes.add(f"{self._num_unlabelled} rows have no label in the column '{column}'", expected=True)
        for place, draft in drafts.values():
            with self.collect_faults(place):
                counts = draft.pop("counts")
                votes = self._decided(dict(counts)) if counts else {}
                if votes is not None and (record := self._unique(place, draft | votes)) is not None:
                    yield record

    def _unique(self, place: str, values: dict[str, Any]) -> EmotionRecord | None:
        """The record of a row; None if the row repeats an earlier one, or contradicts it and may be left out."""
        # The id has the image's folders only if names repeat.
        name = values.pop("id", None) or self._name_of(values["image"])
        record = self.record("record", **{"split": self.settings.default_split, **values, "id": name})
        # An image inside a table has no name to compare it by.
        content = hash(place if self._extracts else record.to_json())
        first, first_content = self._first.setdefault(record.id, (place, content))
        if first == place:
            return record
        if content == first_content:
            self.notes.skip("rows that repeat an earlier row", expected=True, example=record.image)
        elif self.settings.repeated == "leave_out":
            self._contradicted.add(record.id)
            self.notes.skip(_CONTRADICTION, expected=True, example=record.image)
        else:
            raise DataError(
                f"id '{record.id}' is already used in {first}, with other values; name an id column, take ids from "
                "paths (`--set id_from=path`), or leave out all such rows (`--set repeated=leave_out`)"
            )
        return None

    def _name_of(self, path: str) -> str:
        return name_of(path, self.settings.clips, by_name=self.settings.id_from == "name")

    def _values(self, row: Row, cells: dict[str, str], table: TableFile) -> dict[str, Any] | None:
        """The non-empty cells of a row as fields of a record; None for a row to skip."""
        settings, columns = self.settings, self.settings.columns
        values: dict[str, Any] = {}
        for field in _TEXTS:
            column = getattr(columns, field)
            if column is not None and cells[column]:
                if isinstance(row[column], (dict, list)):
                    kind = type(row[column]).__name__
                    raise DataError(f"column '{column}': expected a text, got a {kind} ({reprlib.repr(row[column])})")
                values[field] = cells[column]
        if "group" in values and columns.group is not None:
            values["group"] = group_name(row[columns.group], self._groups)
        for field in _NUMBERS:
            column = getattr(columns, field)
            if column is not None and cells[column]:
                values[field] = self._scaled(field, cell_number(cells[column], column), column)
        image = self._image(row, cells, table, values)
        if image is None:
            return None
        values |= self._clip(image, cells, values) if settings.clips is not None else {"image": image}
        if table.split is not None:
            values["split"] = table.split
        elif settings.split_pattern is not None:
            values["split"] = _found(settings.split_pattern, image, "split")
        if settings.group_pattern is not None:
            values["group"] = _found(settings.group_pattern, image, "group")
        if "split" in values:
            values["split"] = settings.split_names.get(values["split"], values["split"])
        if not self._label(values, cells, image):
            return None
        if columns.labels is not None and self._labels is not None:
            labels = self._several(row[columns.labels])
            values["labels"] = self._coarser_labels(labels)
            values["label_set"] = self.label_set_name(self._labels)
            if labels and not values["labels"]:
                self.notes.skip(f"no label has an equivalent in {settings.coarsen_to}", expected=True)
                return None
            if settings.compound is not None and (several := values.pop("labels")):
                values["emotion"] = settings.compound.join(sorted(several))
        if columns.box:
            box = cell_box(row, columns.box)
            if box is not None and settings.box_format == "size":
                box[2:] = [box[0] + box[2], box[1] + box[3]]
            values["box"] = box
        if columns.action_units:
            units = {n: cell_number(cells[c], c) for n, c in columns.action_units.items() if cells[c]}
            values["action_units"] = units or None
        values["extra"] = {name: cells[name] for name in columns.extra if cells[name]}
        if table.fold is not None:
            values["extra"][FOLD] = table.fold
        if "score" in values and not settings.gather:
            values["extra"]["score"] = values.pop("score")
        if "utterance" in values and not settings.gather:
            values["utterances"] = [{"text": values.pop("utterance")}]
        return values

    def _image(self, row: Row, cells: dict[str, str], table: TableFile, values: dict[str, Any]) -> str | None:
        settings, column = self.settings, self.settings.columns.image
        if settings.pixels is not None or (self._extracts and not isinstance(row.get(column), str)):
            # Loads Pillow, which other tables don't need.
            from lavis_emovit.sources.embedded import extract_image, image_of_pixels

            assert self.extract_to is not None
            # Names repeat inside a table; the row's number does not.
            name = values.get("id") or f"{PurePosixPath(table.path).stem}_{self._num_embedded:07d}"
            self._num_embedded += 1
            content = image_of_pixels(cells[settings.pixels]) if settings.pixels is not None else row[column]
            return extract_image(self.extract_to, name, content, self._image_folders(table), self._image_names)
        image = fill(settings.image, cells) if settings.image is not None else cells[column]
        if not image:
            if settings.missing == "leave_out":
                self.notes.skip("rows without an image", expected=True)
                return None
            raise DataError(f"column '{column}' is empty")
        image = str(PurePosixPath(table.images or "", image.replace("\\", "/")))
        what = settings.clips.what if settings.clips is not None else "image"
        if settings.missing == "refuse":
            return self.require_image(image, what)
        found = self.find_image(image, what)
        if found is None:
            self.notes.skip(f"the {what} is missing", example=image)
        return found

    def _image_folders(self, table: TableFile) -> tuple[Path, ...]:
        """Where files are that the table names in place of an image."""
        folder = self.settings.image_folder
        folders = ((self.root / table.path).parent, self.root / (table.images or ""))
        return folders if folder is None else (*folders, self.root / folder)

    def _clip(self, path: str, cells: dict[str, str], values: dict[str, Any]) -> dict[str, Any]:
        """`image`, `clip` and `id` of a clip."""
        clips, columns = self.settings.clips, self.settings.columns
        assert clips is not None
        found = clips.fields(self.image_root, path)
        found["clip"] |= (part := part_of_video(cells, columns.start, columns.end))
        # Several parts of a video have one path.
        times = "".join(f"_{time_s:g}" for time_s in part.values())
        return {**found, "id": values.get("id") or f"{self._name_of(path)}{times}"}

    def _label(self, values: dict[str, Any], cells: dict[str, str], image: str) -> bool:
        """Add the label from a column, a path or votes; False for a row to skip."""
        fields: dict[str, Any] | None
        if self.settings.votes is not None:
            fields = self._votes(cells)
            if fields is None:
                return False
            values |= fields
        if self.settings.label_pattern is not None:
            values["emotion"] = _found(self.settings.label_pattern, image, "label")
        if self._labels is None or "emotion" not in values:
            self._num_unlabelled += self.settings.columns.emotion is not None
            return True
        fields = self.label_fields(values["emotion"], self._labels)
        values |= fields or {}
        return fields is not None

    def _votes(self, cells: dict[str, str]) -> dict[str, Any] | None:
        votes = self.settings.votes
        assert votes is not None and self._labels is not None
        counts = {self._labels.canonical(label): cell_number(cells[c], c) for label, c in votes.columns.items()}
        beside = {name: cell_number(cells[c], c) for name, c in votes.beside.items()}
        if any(count < 0 for count in (*counts.values(), *beside.values())):
            raise DataError("a count of votes is negative")
        void = max((cell_number(cells[c], c) for c in votes.void), default=0.0)
        if void > 0 and void >= max((*counts.values(), *beside.values())):
            self.notes.skip(f"most votes are for {' or '.join(votes.void)}", expected=True)
            return None
        fields = self._decided(counts, beside)
        if fields is not None:
            shares: Counter[str] = Counter()
            for name, share in fields["votes"].items():
                # A label without an equivalent counts as an answer beside the set.
                shares[(self.coarser(name, self._labels) if name in counts else None) or name] += share
            fields["votes"] = dict(shares)
        return fields

    def _decided(self, counts: dict[str, float], beside: dict[str, float] | None = None) -> dict[str, Any] | None:
        """Label and shares of counted votes; None for an image to skip."""
        assert self._labels is not None
        shares = {name: count for name, count in {**counts, **(beside or {})}.items() if count > 0}
        total = sum(shares.values())
        if not total:
            self.notes.skip("nobody voted")
            return None
        fields: dict[str, Any] = {
            "votes": {name: count / total for name, count in shares.items()},
            "label_set": self.label_set_name(self._labels),
        }
        most = max(counts.values())
        winners = [label for label, count in counts.items() if count == most and most > 0]
        if len(winners) == 1 or (winners and self.settings.ties == "first"):
            fields["emotion"] = min(winners)
        elif self.settings.label_pattern is None and self.settings.ties == "drop":
            self.notes.skip("the most votes are tied", expected=True)
            return None
        return fields

    def _several(self, value: Any) -> list[str]:
        assert self._labels is not None
        if isinstance(value, str):
            text = value.strip()
            # Python's list notation, as converters of MATLAB files write it.
            parts = re.findall(r"'([^']*)'|\"([^\"]*)\"", text) if text.startswith("[") else []
            value = (
                [one or other for one, other in parts] if text.startswith("[") else text.split(self.settings.separator)
            )
        names = [self.settings.renamed(name) for name in map(cell_text, value or ()) if name]
        return list(dict.fromkeys(self.settings.canonical(name, self._labels) for name in names if name is not None))

    def _coarser_labels(self, labels: list[str]) -> list[str]:
        """The labels in the set that records have, each once; those without a counterpart are left out."""
        assert self._labels is not None
        found = (self.coarser(label, self._labels) for label in labels)
        return list(dict.fromkeys(label for label in found if label is not None))

    def _scaled(self, field: str, value: float, column: str) -> float:
        scale = self.settings.scales.get(field)  # type: ignore[call-overload]
        if scale is None:
            return value
        low, high = scale
        if not low <= value <= high:
            raise DataError(f"column '{column}': {value:g} is outside the scale {low:g} to {high:g}")
        return 2 * (value - low) / (high - low) - 1


def _gather(drafts: dict[str, tuple[str, dict[str, Any]]], place: str, values: dict[str, Any]) -> None:
    """Add a row to the draft of its image: a vote and an utterance."""
    utterance = {key: values.pop(field, None) for key, field in
                 (("text", "utterance"), ("emotion", "emotion"), ("score", "score"))}  # fmt: skip
    _, draft = drafts.setdefault(values["image"], (place, {**values, "utterances": [], "counts": Counter()}))
    if utterance["emotion"] is not None:
        draft["counts"][utterance["emotion"]] += 1
    if utterance["text"]:
        draft["utterances"].append({key: value for key, value in utterance.items() if value is not None})


def _found(pattern: str, image: str, what: str) -> str:
    match = re.search(pattern, image)
    if match is None:
        raise DataError(f"no {what} in the path {image} (looked for {pattern})")
    return match.group(1)
