"""Reviews: what people decide about the labels of records or predictions, how far they agree, and the records after it.

A decision is one line of a JSON-lines file. Of several by one person about one image, the last counts.
"""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from lavis_emovit.clips.clip import Clip
from lavis_emovit.clips.reading import film_strip
from lavis_emovit.clips.video import VIDEO_FILE_SUFFIXES
from lavis_emovit.emotion.label_set import LabelSet
from lavis_emovit.emotion.labels import CUSTOM_PREFIX, get_label_set, joined_labels
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.sheets import nominal_alpha
from lavis_emovit.files import parse_json, read_file
from lavis_emovit.generation.categorical import with_label
from lavis_emovit.images import jpeg_of
from lavis_emovit.own_files import parse_as, reason_of
from lavis_emovit.pages.decisions import add_line
from lavis_emovit.records import EmotionRecord, find_image_root, read_records
from lavis_emovit.settings import FrozenModel
from lavis_emovit.tuned.predictions import ImagePrediction

Action = Literal["accept", "correct", "skip"]
ModelT = TypeVar("ModelT", bound=FrozenModel)
_STRIP_PX = 240
DROPPED = "instructions about an earlier label, dropped"


class Decision(FrozenModel):
    """A line of a file of decisions.

    Attributes:
        name: id of the record, or path of the image as the prediction has it.
        shown: the label that was shown; null if there was none.
        label: what the person decided; null for a skipped image.
    """

    name: str = Field(min_length=1)
    reviewer: str = Field(min_length=1)
    action: Action
    shown: str | None
    label: str | None
    decided_at: str

    @model_validator(mode="after")
    def _label_fits_the_action(self) -> Decision:
        if (self.label is None) != (self.action == "skip"):
            raise ValueError("a skipped image has no label, and any other decision has one")
        return self


@dataclass(frozen=True)
class ReviewItem:
    """An image to review, with the label that it has so far."""

    name: str
    read: Callable[[], bytes]
    label: str | None
    record: EmotionRecord


@dataclass(frozen=True)
class Review:
    """What is reviewed.

    Attributes:
        root: folder of the image paths of the records.
    """

    items: tuple[ReviewItem, ...]
    label_set: LabelSet
    root: Path


@dataclass(frozen=True)
class Agreement:
    """How far people agree.

    Attributes:
        alpha: Krippendorff's alpha of the labels, see `nominal_alpha`.
        reviewers: name -> images with a label, skipped ones left out.
        num_shared: images with labels of at least two people.
        disputed: names of those with different labels.
        num_unknown: images with a decision that are not in the review.
    """

    alpha: float | None
    reviewers: dict[str, int]
    num_shared: int
    disputed: tuple[str, ...]
    num_unknown: int


def open_review(path: Path, images: Path | None = None, labels: str | None = None) -> Review:
    """The images of a records file, or of predictions that `emovit predict --out *.jsonl` wrote.

    Args:
        images: folder of the image paths; None: that of the records, or the working directory for predictions.
        labels: label set to choose from; None: that of the records, or the labels of the predictions.

    Raises:
        UserError: the file is neither, is empty, or its labels are unknown or of several sets.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; name a records file, or predictions in JSON lines")
    with path.open("rb") as file:
        first = parse_json(next((line for line in file if not line.isspace()), b"{}"), f"{path}:1")
    if isinstance(first, dict) and "id" in first:
        root, records = find_image_root(path, images), list(read_records(path))
        sets = {record.label_set for record in records if record.label_set is not None}
        if labels is None and len(sets) != 1:
            raise UserError(f"{path}: its records have {len(sets)} label sets; choose one by --labels")
        label_set = get_label_set(labels or sets.pop())
    else:
        root = (images or Path.cwd()).resolve()
        found = _lines(path, ImagePrediction, "neither a record nor a prediction")
        rows = [row for row in found if row.error is None]
        names = sorted({label for row in rows for label in row.probabilities or ()})
        if labels is None and len(names) < 2:
            raise UserError(f"{path}: its predictions have no probabilities of labels; choose labels by --labels")
        label_set = get_label_set(labels or f"{CUSTOM_PREFIX} {joined_labels(names)}")
        records = [_record(row, root, label_set) for row in rows]
    items = tuple(
        ReviewItem(
            one.id,
            partial(read_file, root / one.image) if one.clip is None else partial(_strip, root, one.clip, one.image),
            label_set.canonical(one.emotion) if one.emotion is not None else None,
            one,
        )
        for one in records
    )
    if not items:
        raise UserError(f"{path}: has nothing to review")
    return Review(items, label_set, root)


def _strip(root: Path, clip: Clip, image: str) -> bytes:
    """A film strip of a clip, as an image."""
    return jpeg_of(film_strip(root / image, clip, _STRIP_PX, root=root, num_rows=2))


def _lines(path: Path, kind: type[ModelT], problem: str) -> Iterator[ModelT]:
    """The lines of a file as models, without blank ones; DataError names a line that is none, with the problem."""
    content = read_file(path).removeprefix(codecs.BOM_UTF8)
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield parse_as(line, kind)
        except ValueError as error:
            raise DataError(f"{path}:{number}: {problem} ({reason_of(error)})") from None


def _record(row: ImagePrediction, root: Path, label_set: LabelSet) -> EmotionRecord:
    if "\0" in row.image:
        raise UserError(f"{row.image!r}: has a null byte, which no path can have")
    path = (root / row.image).resolve()
    if not path.is_relative_to(root):
        raise UserError(f"{row.image}: is not below {root}; pass the folder of all images by --images")
    return EmotionRecord(
        id=row.image,
        image=path.relative_to(root).as_posix(),
        split="train",
        source="predictions",
        emotion=row.emotion,
        label_set=label_set.name,
        clip=Clip() if path.suffix.lower() in VIDEO_FILE_SUFFIXES else None,
    )


def decide(
    path: Path, item: ReviewItem, reviewer: str, action: Action, label: str | None, label_set: LabelSet
) -> Decision:
    """Keep a decision.

    Raises:
        UserError: there is no label to accept, or the label is none of the set.
    """
    if action == "accept":
        if item.label is None:
            raise UserError("This image has no label to accept. Choose one.")
        label = item.label
    elif action == "skip":
        label = None
    elif label not in label_set.labels:
        raise UserError(f"'{label}' is none of the labels.")
    decided_at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    made = Decision(
        name=item.name, reviewer=reviewer, action=action, shown=item.label, label=label, decided_at=decided_at
    )
    add_line(path, made.model_dump_json())
    return made


def read_decisions(path: Path) -> dict[str, dict[str, Decision]]:
    """Name of the image -> reviewer -> the last decision; empty without a file.

    Raises:
        DataError: a line is no decision.
    """
    found: dict[str, dict[str, Decision]] = {}
    for made in _lines(path, Decision, "not a decision") if path.exists() else ():
        found.setdefault(made.name, {})[made.reviewer] = made
    return found


def agreement(review: Review, decisions: dict[str, dict[str, Decision]]) -> Agreement:
    """How far the reviewers agree on the images of a review.

    Raises:
        DataError: a decided label is not one of the review.
    """
    units = {item.name: _labels(decisions.get(item.name, {})) for item in review.items}
    for name, unit in units.items():
        for reviewer, label in unit.items():
            if label not in review.label_set.labels:
                known = ", ".join(review.label_set.labels)
                raise DataError(f"'{label}', which {reviewer} decided for {name}, is none of the labels {known}")
    shared = {name: unit for name, unit in units.items() if len(unit) > 1}
    counts = Counter(reviewer for unit in units.values() for reviewer in unit)
    disputed = tuple(name for name, unit in shared.items() if len(set(unit.values())) > 1)
    alpha = nominal_alpha([list(unit.values()) for unit in shared.values()])
    return Agreement(alpha, dict(sorted(counts.items())), len(shared), disputed, len(decisions.keys() - units.keys()))


def reviewed_records(
    review: Review, decisions: dict[str, dict[str, Decision]], adjudicator: str | None = None
) -> tuple[list[EmotionRecord], Counter[str]]:
    """The records with the labels that people decided, and how many were decided how.

    The label of the adjudicator counts where there is one, else that of more than half of the reviewers. Records that
    nobody decided, or without such a majority, are left out and counted. `DROPPED` counts the instructions that
    contradict a new label.
    """
    found: list[EmotionRecord] = []
    counts: Counter[str] = Counter()
    for item in review.items:
        labels = _labels(decisions.get(item.name, {}))
        ranked = Counter(labels.values()).most_common(1)
        if adjudicator in labels:
            label, how = labels[adjudicator], "adjudicated"
        elif not ranked:
            counts["undecided"] += 1
            continue
        elif 2 * ranked[0][1] <= len(labels):
            counts["disputed"] += 1
            continue
        else:
            label, how = ranked[0][0], "unanimous" if ranked[0][1] == len(labels) else "majority"
        counts[how] += 1
        record, num_dropped = _decided(item, label, how, labels, review.label_set)
        counts[DROPPED] += num_dropped
        found.append(record)
    return found, counts


def _decided(
    item: ReviewItem, label: str, how: str, labels: dict[str, str], label_set: LabelSet
) -> tuple[EmotionRecord, int]:
    """The record with the decided label, and the number of instructions dropped as in `with_label`."""
    shares = {name: count / len(labels) for name, count in sorted(Counter(labels.values()).items())}
    extra: dict[str, Any] = {"reviewed_by": ", ".join(sorted(labels)), "review": how}
    extra |= {"label_before_review": item.label} if item.label is not None else {}
    update = {"emotion": label, "label_set": label_set.name, "votes": shares, "extra": {**item.record.extra, **extra}}
    record, num_dropped = (item.record, 0) if label == item.label else with_label(item.record, label, label_set)
    return record.model_copy(update=update), num_dropped


def _labels(of_image: dict[str, Decision]) -> dict[str, str]:
    return {reviewer: made.label for reviewer, made in of_image.items() if made.label is not None}


def first_open(items: Sequence[ReviewItem], decisions: dict[str, dict[str, Decision]], reviewer: str) -> int:
    """Number of the first image that a reviewer has not decided; the number of images if there is none."""
    return next((n for n, item in enumerate(items) if reviewer not in decisions.get(item.name, {})), len(items))
