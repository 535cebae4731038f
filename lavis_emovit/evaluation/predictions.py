"""Predictions as JSON lines: one row for each evaluated instance, written at once, readable after a crash.

All metrics and the whole report can be computed from this file alone.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator, model_validator

from lavis_emovit.emotion.answers import AnswerStatus
from lavis_emovit.errors import DataError
from lavis_emovit.files import atomic_path, regular_file
from lavis_emovit.own_files import parse_as
from lavis_emovit.records import OCCURRENCE_THRESHOLD

# On every line, `null` if a row has none; other keys are only on the lines of rows that have them.
_ALWAYS_WRITTEN = frozenset({"instance_id", "record_id", "label", "prediction", "scores", "image", "answer"})
_VOTE_SUM_TOLERANCE = 0.01
TOKEN_LOSS = "token_loss"
"""Name of the value of a scored reference answer: its cross-entropy per token (natural log)."""


class PredictionRow(BaseModel):
    """One evaluated instance.

    Attributes:
        instance_id: unique within a file.
        label: the true label, if it is known.
        labels: all true labels of an image that may have several.
        prediction: the chosen label. Anything outside the label set, None included, counts as an invalid answer.
        scores: log-probability (natural log) of each label; need not be normalised over the labels.
        image: path of a thumbnail, relative to the run folder.
        answer: generated text; `status` is how it was read.
        error: why there is no answer, such as an image that cannot be decoded. Such a row has no prediction, scores,
            values or status. It is counted, but not measured.
        votes: label -> share of the annotators, sum 1: the truth of soft labels.
        true_values: name -> true number: `valence` and `arousal` in [-1, 1], `AU12` as an intensity or as 1 and 0.
        occurrence_only: the names in `true_values` that are 1 and 0 while the others are intensities.
        values: name -> predicted number, None if the answer has no usable one. A name of `true_values` that is missing
            here counts as None, so as invalid.
        slices: name of a field -> its value, for metrics by slice (`person`, `scene`).
        variant: wording and order of the question, if there are several.
        question, reference: the record's own question and the answer that was written with it.
        options: of a multiple choice, in the order of the question.
        predictions: all that an answer names, in its order, where it may name several: words, or a ranking.
        confidence: the probability of being right that the answer states, from 0 to 1.
        frames_s: of a clip, when the frames are shown that the model saw, in seconds.
        frame_effects: of a clip that a report shows, how much each of these frames raises the log-probability of
            `prediction`, see `suite/frame_effects.py`.
        is_joined: of a record with a pair of images, whether the model saw them joined in one.
        moment: of a frame or part of a video, which is the `group` slice: when it is shown in it, in seconds, or the
            number of the frame.
        prompt: sha256 of what the model was asked, see `prompt_sha256`; None for baselines, which are not asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    instance_id: str = Field(min_length=1)
    record_id: str = Field(min_length=1)
    label: str | None
    prediction: str | None
    scores: dict[str, FiniteFloat] | None = None
    image: str | None = None
    answer: str | None = None
    status: AnswerStatus | None = None
    error: str | None = Field(default=None, min_length=1)
    votes: dict[str, FiniteFloat] | None = None
    true_values: dict[str, FiniteFloat] | None = None
    occurrence_only: tuple[str, ...] | None = None
    values: dict[str, FiniteFloat | None] | None = None
    slices: dict[str, str] | None = None
    labels: tuple[str, ...] | None = None
    variant: str | None = None
    question: str | None = None
    reference: str | None = None
    prompt: str | None = None
    options: tuple[str, ...] | None = None
    predictions: tuple[str, ...] | None = None
    confidence: float | None = Field(default=None, ge=0.0, le=1.0)
    frames_s: tuple[FiniteFloat, ...] | None = None
    frame_effects: tuple[FiniteFloat, ...] | None = None
    is_joined: bool | None = None
    moment: FiniteFloat | None = None

    @field_validator("votes")
    @classmethod
    def _votes_are_shares(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and (
            any(share < 0 for share in value.values()) or abs(sum(value.values()) - 1) > _VOTE_SUM_TOLERANCE
        ):
            raise ValueError("must be shares of the annotators: none negative, together 1")
        return value

    @property
    def question_id(self) -> str:
        """The record, with the name of its question if it has several: the same in all variants and for all models."""
        own = self.instance_id.removesuffix(f"#{self.variant}")
        return own if own.startswith(f"{self.record_id}/") else self.record_id

    def active_from(self, name: str, threshold: float) -> float:
        """The value from which an action unit is active in this row; `threshold` is that of intensities."""
        return OCCURRENCE_THRESHOLD if name in (self.occurrence_only or ()) else threshold

    @model_validator(mode="after")
    def _an_error_is_no_answer(self) -> PredictionRow:
        if self.error is not None:
            answers = ("prediction", "predictions", "scores", "values", "status", "confidence")
            found = [name for name in answers if getattr(self, name) is not None]
            if found:
                raise ValueError(f"a row with an 'error' is no answer, yet it has {', '.join(found)}")
        return self


class PredictionWriter(AbstractContextManager["PredictionWriter"]):
    """Appends rows to a file; a row has left the process before `write` returns.

    An existing file is repaired and continued; `instance_ids` are those that it already has.

        with PredictionWriter(path) as writer:
            for row in rows:
                if row.instance_id not in writer.instance_ids:
                    writer.write(row)
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        repair_last_line(self.path)
        self.path.touch()
        self.instance_ids = {row.instance_id for row in read_predictions(self.path)}
        self._file = self.path.open("ab")

    def write(self, row: PredictionRow) -> None:
        """Append one row.

        Raises:
            DataError: the instance is in the file already, or a score is not a finite number.
        """
        if row.instance_id in self.instance_ids:
            raise DataError(f"{self.path}: already has instance '{row.instance_id}'; each is predicted once")
        self._file.write(encode_row(row))
        self._file.flush()
        self.instance_ids.add(row.instance_id)

    def close(self) -> None:
        self._file.close()

    def __exit__(self, *exception: object) -> None:
        self.close()


def write_predictions(path: str | os.PathLike[str], rows: Iterable[PredictionRow]) -> None:
    """Write a whole file; it appears under its name, in place of an earlier one, when it is complete."""
    with atomic_path(Path(path)) as temporary, PredictionWriter(temporary) as writer:
        for row in rows:
            writer.write(row)


def read_predictions(path: str | os.PathLike[str], *, drop_partial_last_line: bool = False) -> list[PredictionRow]:
    """Read a file of predictions.

    Args:
        drop_partial_last_line: skip a last line that a crash cut off.

    Raises:
        DataError: the file is missing, a line is not a row (named as `file:line`), or an instance occurs twice.
    """
    path = Path(path)
    first_line_of: dict[str, int] = {}
    rows: list[PredictionRow] = []
    try:
        file = regular_file(path).open("rb")
    except FileNotFoundError:
        raise DataError(f"{path}: no such prediction file; evaluate first, or check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, expected a prediction file") from None
    with file:
        for line_number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = decode_row(line)
            except ValueError as error:
                if drop_partial_last_line and not line.endswith(b"\n"):
                    break
                raise DataError(f"{path}:{line_number}: {error}") from None
            earlier = first_line_of.setdefault(row.instance_id, line_number)
            if earlier != line_number:
                raise DataError(f"{path}:{line_number}: instance '{row.instance_id}' is already on line {earlier}")
            rows.append(row)
    return rows


def encode_row(row: PredictionRow) -> bytes:
    """The line of a row, newline included. The same row always gives the same bytes."""
    content = {key: value for key, value in row.model_dump().items() if value is not None or key in _ALWAYS_WRITTEN}
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except ValueError as error:  # NaN and infinity, or a lone surrogate; neither is JSON that others can read
        raise DataError(f"prediction of instance '{row.instance_id}' cannot be written: {error}") from None


def decode_row(line: bytes) -> PredictionRow:
    """The row of a line. Raises ValueError with one readable line that says what is wrong."""
    # Several times as fast as what follows, which has the readable errors; equal keys of rows share their memory.
    with contextlib.suppress(ValidationError):
        return PredictionRow.model_validate_json(line)
    try:
        return parse_as(line, PredictionRow)
    except ValidationError as error:
        places = (
            (".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")) for item in error.errors()
        )
        raise ValueError("; ".join(f"key '{key}': {text}" if key else text for key, text in places)) from None


def repair_last_line(path: str | os.PathLike[str]) -> bool:
    """Complete a last line without a newline if it is a whole row, else remove it; whether that was necessary."""
    path = Path(path)
    if not path.exists():
        return False
    with regular_file(path).open("r+b") as file:
        content = file.read()
        if not content or content.endswith(b"\n"):
            return False
        start = content.rfind(b"\n") + 1
        try:
            decode_row(content[start:])
        except ValueError:
            file.truncate(start)
        else:
            file.write(b"\n")
    return True
