"""What a tuned model says about images: one row for each, whatever happens to the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ConfigDict, Field, FiniteFloat

from lavis_emovit.boxes import BoxSettings
from lavis_emovit.emotion.labels import LabelSet, get_label_set
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Kind, Method
from lavis_emovit.evaluation.metrics.calibration import softmax
from lavis_emovit.evaluation.questions import ANY_RECORD
from lavis_emovit.evaluation.suite.requests import Prepared, prepare_batch, request_rows
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.settings import FrozenModel

if TYPE_CHECKING:
    from lavis_emovit.evaluation.adapters.base import LanguageModel
    from lavis_emovit.evaluation.predictions import PredictionRow
    from lavis_emovit.evaluation.trained_questions import TrainedQuestion
    from lavis_emovit.tuned.inputs import InputImage


class ImagePrediction(FrozenModel):
    """The row of an image.

    Attributes:
        image: its path as given, or the id of its record.
        emotion: the likeliest label, or the label that was written; None if none was, or if the model abstains.
        confidence: probability of the likeliest label.
        abstained: whether the confidence is below the threshold, so that `emotion` is None.
        probabilities: label -> probability, the likeliest first.
        valence, arousal: in [-1, 1].
        action_units: name -> probability that it is active (by likelihood), or 1 and 0 (written).
        explanation: written text.
        status: how a written answer was read, if it was not read without doubt.
        error: why there is nothing; all other values are None then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str = Field(min_length=1)
    emotion: str | None = None
    confidence: FiniteFloat | None = None
    abstained: bool | None = None
    probabilities: dict[str, FiniteFloat] | None = None
    valence: FiniteFloat | None = None
    arousal: FiniteFloat | None = None
    action_units: dict[str, FiniteFloat] | None = None
    explanation: str | None = None
    status: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Asking:
    """One kind of question, as the model gets it."""

    kind: Kind
    benchmark: BenchmarkSettings
    method: Method
    label_set: LabelSet | None = field(compare=False)

    @classmethod
    def of(cls, question: TrainedQuestion) -> Asking:
        labels = get_label_set(question.label_set) if question.label_set is not None else None
        return cls(question.kind, question.benchmark(), question.method, labels)


@dataclass(frozen=True)
class PredictionSettings:
    """What is asked and reported.

    Attributes:
        askings: the kinds of questions.
        temperature: divides log-scores of labels before they become probabilities, see `calibrating`.
        threshold: confidence below which the model abstains; None: never.
        top_k: labels in `probabilities`; None: all.
        show: what the model sees of records with a box; None: the whole image.
    """

    askings: tuple[Asking, ...]
    temperature: float = 1.0
    threshold: float | None = None
    top_k: int | None = None
    show: BoxSettings | None = None


class _Images:
    """The batches of images, prepared, as a dataset of torch."""

    def __init__(self, images: Sequence[InputImage], model: LanguageModel, batch_size: int, show: BoxSettings | None):
        self._images, self._model, self._size, self._show = images, model, batch_size, show

    def __len__(self) -> int:
        return -(-len(self._images) // self._size)

    def __getitem__(self, number: int) -> list[Prepared] | UserError:
        """A batch, or the error that ends the prediction: torch would add a traceback to one that a worker raises."""
        try:
            images = self._images[number * self._size : (number + 1) * self._size]
            return prepare_batch(map(self._read, images), self._model)
        except UserError as error:
            return error

    def _read(self, image: InputImage) -> Item | Prepared:
        """The item of an image, or why it cannot be read."""
        record = image.record or ANY_RECORD.model_copy(update={"clip": image.clip})
        item = Item(record, b"", Truth(), self._show)
        try:
            return replace(item, image_bytes=image.read())
        except OSError as error:
            return Prepared(item, problem=f"cannot be read: {os.strerror(error.errno) if error.errno else error}")
        except DataError as error:
            return Prepared(item, problem=str(error))


def predict(
    model: LanguageModel,
    images: Sequence[InputImage],
    settings: PredictionSettings,
    *,
    batch_size: int = 16,
    num_workers: int = 0,
) -> Iterator[list[ImagePrediction]]:
    """The rows of images in their order, batch by batch. Images are read and decoded by `num_workers` processes.

    Raises:
        UserError: the model cannot continue at all.
    """
    import torch
    from torch.utils.data import DataLoader

    from lavis_emovit.distributed.workers import ignore_stop_signals, unchanged

    batches: Any = _Images(images, model, batch_size, settings.show)
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=num_workers,
        collate_fn=unchanged,
        generator=torch.Generator(),
        worker_init_fn=ignore_stop_signals,
    )
    start = 0
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        names = [image.name for image in images[start : start + len(batch)]]
        start += len(batch)
        yield _rows(model, names, batch, settings)


def _rows(
    model: LanguageModel, names: Sequence[str], batch: Sequence[Prepared], settings: PredictionSettings
) -> list[ImagePrediction]:
    found: list[dict[str, Any]] = [{"image": name} for name in names]
    for asking in sorted(settings.askings, key=lambda one: one.kind != "explanation"):
        rows = request_rows(model, batch, asking.benchmark, asking.method, asking.label_set)
        for values, row in zip(found, rows, strict=True):
            if row.error is not None:
                values.setdefault("error", row.error)
            else:
                values |= _values(row, asking, settings)
    return [
        ImagePrediction(image=values["image"], error=values["error"])
        if "error" in values
        else ImagePrediction.model_validate(values)
        for values in found
    ]


def _values(row: PredictionRow, asking: Asking, settings: PredictionSettings) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if row.status not in (None, "ok"):
        values["status"] = row.status
    if asking.kind == "explanation":
        # The emotion that an explanation names counts unless the emotion is asked for by itself.
        return {**values, "explanation": row.answer, "emotion": row.prediction}
    if asking.kind == "action_units":
        units = {name: value for name, value in (row.values or {}).items() if value is not None}
        return {**values, "action_units": units}
    if asking.kind == "valence_arousal":
        return {**values, **{name: (row.values or {}).get(name) for name in ("valence", "arousal")}}
    if row.scores is None:
        return {**values, "emotion": row.prediction}
    probabilities = probabilities_of(row.scores, settings.temperature)
    ranked = sorted(probabilities, key=lambda label: -probabilities[label])
    confidence = probabilities[ranked[0]]
    shown = ranked[: settings.top_k]
    values |= {"confidence": confidence, "probabilities": {label: probabilities[label] for label in shown}}
    if settings.threshold is None:
        return {**values, "emotion": ranked[0]}
    abstained = confidence < settings.threshold
    return {**values, "abstained": abstained, "emotion": None if abstained else ranked[0]}


def probabilities_of(scores: dict[str, float], temperature: float) -> dict[str, float]:
    """Label -> probability, the softmax of log-scores divided by a temperature, in the order of the alphabet."""
    labels = sorted(scores)
    shares = softmax(np.array([[scores[label] for label in labels]]) / temperature)[0]
    return dict(zip(labels, shares.tolist()))
