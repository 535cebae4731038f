"""From items to rows: requests to a model, each one question about one image, and its answers read into rows."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from lavis_emovit.boxes import shows_both
from lavis_emovit.emotion.answer_confidence import read_confidence, without_confidence
from lavis_emovit.emotion.answers import EmotionAnswer, read_emotion
from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.emotion.templates import answer_text
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.adapters.base import Baseline, Failure, Item, LanguageModel
from lavis_emovit.evaluation.benchmarks import OWN_KINDS, BenchmarkSettings, Method, Variant, slice_values
from lavis_emovit.evaluation.metrics.calibration import log_softmax
from lavis_emovit.evaluation.metrics.explanations import EXPLAINED_FACTS
from lavis_emovit.evaluation.metrics.original_rule import read_emotion_in_tag, read_emotion_original
from lavis_emovit.evaluation.own_questions import read_own, scored_own
from lavis_emovit.evaluation.predictions import TOKEN_LOSS, PredictionRow
from lavis_emovit.evaluation.questions import (
    Question,
    prompt_sha256,
    questions_about,
    values_from_scores,
    values_from_text,
)
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.outside import scrub, without_thoughts
from lavis_emovit.records import EmotionRecord, Statement

logger = logging.getLogger(__name__)

# After this many failed images in a row, the model is at fault and not the images.
MAX_FAILURES_IN_A_ROW = 16
_NOT_FINITE = "the model returned a score that is not a finite number"


@dataclass(frozen=True)
class Prepared:
    """An item with its image as the model takes it, or with the reason why there is none.

    Of a clip also the presentation times of the frames that the model sees, in seconds; of a record with a `pair`,
    whether the model sees its two images in one.
    """

    item: Item
    image: Any = None
    frames_s: tuple[float, ...] | None = None
    is_joined: bool | None = None
    problem: str | None = None


class FailureLimit:
    """Ends an evaluation whose model fails on one image after the other."""

    def __init__(self, limit: int = MAX_FAILURES_IN_A_ROW):
        self._limit, self._num_failed = limit, 0

    def note(self, failure: Failure | None) -> None:
        """Count a failure; None resets the count. UserError for too many in a row."""
        self._num_failed = self._num_failed + 1 if failure is not None else 0
        if failure is not None and self._num_failed >= self._limit:
            raise UserError(
                f"the model failed on {self._num_failed} images in a row, the last time with: {failure.reason}. Fix it "
                "and start again with suite.retry_errors=true; --debug shows the tracebacks."
            )


def prepare(item: Item, model: LanguageModel, *, join_pairs: bool = False) -> Prepared:
    """The item with its image prepared; if the image cannot be decoded, with the problem instead.

    The images of a pair are joined for models that take one image, with `join_pairs` for all of them.
    """
    try:
        # The encoded image is not needed any more, and need not travel from a loader's process.
        rest = replace(item, image_bytes=b"")
        record = item.record
        if record.clip is not None:
            return Prepared(rest, *model.prepare_clip(item.image_bytes, record.clip, record.box, item.show))
        if shows_both(item.show):
            return Prepared(rest, model.prepare_both(item.image_bytes, record.box, item.show))
        if record.pair is not None and model.reads_pairs and not join_pairs:
            return Prepared(rest, model.prepare_pair(item.image_bytes, record.pair), is_joined=False)
        return Prepared(rest, model.prepare(item.shown()), is_joined=None if record.pair is None else True)
    except DataError as error:
        return Prepared(item, problem=str(error))


def prepare_batch(
    items: Iterable[Item | Prepared], model: LanguageModel, *, join_pairs: bool = False
) -> list[Prepared]:
    """Items with their images prepared, see `prepare`; those that are already, or have a problem, stay as they are.

    In a process of a loader, the images share one block of memory if they have one shape: the main process connects to
    the loader's process once for each block that it gets.
    """
    import torch
    from torch.utils.data import get_worker_info

    batch = [item if isinstance(item, Prepared) else prepare(item, model, join_pairs=join_pairs) for item in items]
    images = [prepared.image for prepared in batch if prepared.problem is None]
    if get_worker_info() is None or not all(isinstance(image, torch.Tensor) for image in images):
        return batch
    if len({(image.shape, image.dtype) for image in images}) != 1:
        return batch
    parts = iter(torch.stack(images).unbind())
    return [replace(prepared, image=next(parts)) if prepared.problem is None else prepared for prepared in batch]


class _RowRequests(NamedTuple):
    """The questions that one row needs: a variant of the question about one image; none without an image."""

    prepared: Prepared
    place: int  # of the image in the batch
    truth: Truth
    variant: Variant
    questions: list[Question]


class BatchRequests:
    """The requests of a batch, in passes of a model, and the rows that its answers give.

    Items with a problem get no request.
    """

    def __init__(
        self, batch: Sequence[Prepared], settings: BenchmarkSettings, method: Method, label_set: LabelSet | None
    ):
        self._batch, self._settings, self._method, self._label_set = batch, settings, method, label_set
        variants = settings.variants
        asked = variants if settings.kind != "instruction" else ()  # whose rows have the question itself
        self._prompts = {variant: prompt_sha256(settings, variant, method, label_set) for variant in asked}
        self._rows = []
        for place, prepared in enumerate(batch):
            for variant, truth in itertools.product(variants, prepared.item.truth.each):
                about = prepared.item.record, truth, settings, variant, method, label_set
                is_joined = prepared.is_joined is not False
                questions = questions_about(*about, is_joined=is_joined) if prepared.problem is None else []
                self._rows.append(_RowRequests(prepared, place, truth, variant, questions))
        # (place of the image, question) of every request.
        self._requests = [(row.place, question) for row in self._rows for question in row.questions]

    @property
    def questions(self) -> list[Question]:
        """The question of every request, in the order of the rows."""
        return [question for _, question in self._requests]

    def passes(self, images_at_once: int = 0) -> list[list[int]]:
        """Numbers of the requests that a model gets at once.

        Those of a pass share candidates, prefix and length of the answer. A pass has at most as many requests as the
        batch has images (or `images_at_once`, if that is more), so several variants need no more memory than one.
        """
        num_images = sum(prepared.problem is None for prepared in self._batch)
        size = max(1, num_images, images_at_once)
        groups: dict[Any, list[int]] = {}
        for number, (_, question) in enumerate(self._requests):
            key = question.candidates, question.answer_prefix, question.max_new_tokens
            groups.setdefault(key, []).append(number)
        return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]

    def by_image(self, numbers: Sequence[int]) -> list[list[int]]:
        """The requests of a pass, those about each image by themselves."""
        groups: dict[int, list[int]] = {}
        for number in numbers:
            groups.setdefault(self._requests[number][0], []).append(number)
        return list(groups.values())

    def answer(self, model: LanguageModel, numbers: Sequence[int]) -> list[Any]:
        """The model's answers to a pass: a text, a Failure, or a list of scores for each request."""
        places = sorted({self._requests[number][0] for number in numbers})
        images = [self._batch[place].image for place in places]
        image_index = [places.index(self._requests[number][0]) for number in numbers]
        questions = [self._requests[number][1] for number in numbers]
        found: list[Any] = []
        if self._method == "generation":
            found += model.write(images, image_index, questions)
        else:
            found += model.score(images, image_index, questions, self._method)
        if len(found) != len(questions):
            raise UserError(f"the model returned {len(found)} answers to {len(questions)} questions")
        return found

    def rows(self, answers: dict[int, Any]) -> list[PredictionRow]:
        """The rows of the batch, by item and then by variant, from the answer to each number of a request."""
        numbers = iter(range(len(self._requests)))
        return [self._row(row, [answers[next(numbers)] for _ in row.questions]) for row in self._rows]

    def _row(self, row: _RowRequests, answers: Sequence[Any]) -> PredictionRow:
        settings, item = self._settings, row.prepared.item
        base = _empty_row(
            item, row.truth, settings, row.variant, error=row.prepared.problem, prompt=self._prompts.get(row.variant)
        )
        base = base.model_copy(update={"frames_s": row.prepared.frames_s, "is_joined": row.prepared.is_joined})
        if base.error is not None:
            return base
        if row.questions and row.questions[0].options:
            base = base.model_copy(update={"options": row.questions[0].options})
        if settings.kind == "action_units":
            # The question is whether a unit is active, not how intense it is.
            active = sorted(item.record.active_units(settings.active_from).items())
            decisions = {f"AU{unit}": float(is_active) for unit, is_active in active}
            base = base.model_copy(update={"true_values": decisions, "occurrence_only": None})
        failures = [answer.reason for answer in answers if isinstance(answer, Failure)]
        if failures:
            return base.model_copy(update={"error": failures[0]})
        if self._method == "generation":
            return self._with_text(base, row, str(answers[0]))
        if written := [answer for answer in answers if isinstance(answer, str)]:
            return self._without_scores(base, row, written[0])
        if any(not math.isfinite(score) for scores in answers for score in scores):
            return base.model_copy(update={"error": _NOT_FINITE})
        if settings.kind == "instruction":
            return base.model_copy(update={"values": {TOKEN_LOSS: -answers[0][0]}})
        if settings.kind in ("choice", "statement", "ranking"):
            return base.model_copy(update=scored_own(row.questions[0], row.truth, settings, answers[0]))
        if self._label_set is not None:
            scores = log_softmax(np.array(answers[:1]))[0].tolist() if settings.kind == "labels" else answers[0]
            return _with_scores(base, dict(zip(row.questions[0].candidates, scores)))
        return _with_values(base, values_from_scores(row.questions, answers))

    def _without_scores(self, base: PredictionRow, row: _RowRequests, text: str) -> PredictionRow:
        """The row of a model that names no candidate: an invalid answer, for which all candidates are alike."""
        update: dict[str, Any] = {"answer": text, "status": "invalid"}
        if self._settings.kind in OWN_KINDS:
            return base.model_copy(update=update)
        if self._label_set is None:
            update["values"] = dict.fromkeys(base.true_values or {question.key for question in row.questions})
        else:
            candidates = row.questions[0].candidates
            update["scores"] = dict.fromkeys(candidates, -math.log(len(candidates)))
        return base.model_copy(update=update)

    def _with_text(self, base: PredictionRow, row: _RowRequests, text: str) -> PredictionRow:
        if self._settings.asks_confidence:
            base = base.model_copy(update={"confidence": read_confidence(text)})
        written, text = text, without_confidence(text) if self._settings.asks_confidence else text
        if self._settings.kind in (*OWN_KINDS, "ranking", "words"):
            read = read_own(text, row.questions[0], row.truth, self._settings, self._label_set)
            return base.model_copy(update={"answer": written, **read})
        if self._settings.kind in ("valence_arousal", "action_units"):
            values, status = values_from_text(text, self._settings, row.truth)
            return base.model_copy(update={"answer": text, "values": values, "status": status})
        if self._settings.kind in ("explanation", "caption", "instruction"):
            text = without_thoughts(text)  # metrics, judges and people read the whole answer
        if self._label_set is None:
            return base.model_copy(update={"answer": text})
        is_marked = row.variant.marks != "none"
        options = row.variant.options(self._label_set.labels, base.record_id) if is_marked else None
        answer = self._read_emotion(text, self._label_set, options)
        text = written if self._settings.asks_confidence else text
        return base.model_copy(update={"answer": text, "prediction": answer.label, "status": answer.status})

    def _read_emotion(self, text: str, label_set: LabelSet, options: Sequence[str] | None) -> EmotionAnswer:
        reading = self._settings.prompt.reading if self._settings.prompt is not None else "strict"
        if reading in ("strict", "result"):
            return read_emotion(text if reading == "strict" else answer_text(text), label_set, options)
        read = read_emotion_original if reading == "first_line" else read_emotion_in_tag
        label = read(text, label_set.labels)
        return EmotionAnswer(label, "ok" if label is not None else "invalid")


def request_rows(
    model: LanguageModel,
    batch: Sequence[Prepared],
    settings: BenchmarkSettings,
    method: Method,
    label_set: LabelSet | None,
    failure_limit: FailureLimit | None = None,
) -> list[PredictionRow]:
    """The rows of a batch. An image on which the model raises an error becomes an error row.

    If a pass fails, its images are passed to the model one by one. `failure_limit` counts failures over batches.

    Raises:
        UserError: the model cannot continue at all.
    """
    requests = BatchRequests(batch, settings, method, label_set)
    answers: dict[int, Any] = {}
    limit = failure_limit or FailureLimit(len(batch) + 1)
    waiting = requests.passes(model.images_at_once)
    while waiting:
        numbers = waiting.pop(0)
        try:
            answers |= zip(numbers, requests.answer(model, numbers))
        except UserError:
            raise
        # Libraries of models raise errors of any kind.
        except Exception as error:
            images = requests.by_image(numbers)
            logger.debug("a pass with %d images failed", len(images), exc_info=True)
            if len(images) > 1:
                waiting = images + waiting
                continue
            failure = Failure(scrub(f"{type(error).__name__}: {error}".strip().splitlines()[0]))
            limit.note(failure)
            answers |= dict.fromkeys(numbers, failure)
        else:
            limit.note(None)
    return requests.rows(answers)


def baseline_rows(
    baseline: Baseline, items: Sequence[Item], settings: BenchmarkSettings, label_set: LabelSet | None
) -> list[PredictionRow]:
    """The rows of a baseline, one for each item: it reads no question, so there are no variants."""
    rows: list[PredictionRow] = []
    for item, values in zip(items, _predictions(baseline, items) if items else ()):
        base = _empty_row(item, item.truth, settings, settings.variants[0], error=None)
        base = base.model_copy(update={"instance_id": base.record_id, "variant": None})
        if isinstance(values, Failure):
            rows.append(base.model_copy(update={"error": values.reason}))
        elif not all(map(math.isfinite, values.values())):
            rows.append(base.model_copy(update={"error": _NOT_FINITE}))
        else:
            rows.append(_with_scores(base, values) if label_set is not None else _with_values(base, values))
    return rows


def _predictions(baseline: Baseline, items: Sequence[Item]) -> list[dict[str, float] | Failure]:
    """All at once; one by one if an image among them cannot be decoded."""
    try:
        return list(baseline.predict(items))
    except DataError as error:
        if len(items) == 1:
            return [Failure(str(error))]
        return [values for item in items for values in _predictions(baseline, [item])]


def _with_scores(base: PredictionRow, scores: dict[str, float]) -> PredictionRow:
    # The most likely label, the first in the alphabet of several.
    best = max(sorted(scores), key=lambda label: scores[label])
    return base.model_copy(update={"scores": scores, "prediction": best})


def _with_values(base: PredictionRow, values: dict[str, float]) -> PredictionRow:
    return base.model_copy(update={"values": {name: values.get(name) for name in base.true_values or values}})


def _empty_row(
    item: Item,
    truth: Truth,
    settings: BenchmarkSettings,
    variant: Variant,
    *,
    error: str | None,
    prompt: str | None = None,
) -> PredictionRow:
    record, asked = item.record, truth.asked
    several = len(settings.variants) > 1
    facts = EXPLAINED_FACTS if settings.kind == "explanation" else ()
    slices = slice_values(record, (*settings.slices, *facts))
    if asked is not None:
        slices |= asked.categories or {}
    if record.group is not None:
        slices = {"group": record.group} | slices | {"group": record.group}  # no category takes its place
    question_id = record.id if truth.name is None else f"{record.id}/{truth.name}"
    question = asked.text if isinstance(asked, Statement) else asked.question if asked is not None else None
    return PredictionRow(
        instance_id=f"{question_id}#{variant.name}" if several else question_id,
        record_id=record.id,
        label=truth.label,
        prediction=None,
        error=error,
        votes=truth.votes,
        labels=truth.labels,
        true_values=truth.values,
        occurrence_only=truth.occurrence_only or None,
        slices=slices or None,
        variant=variant.name if several else None,
        question=truth.pair.question if truth.pair is not None and settings.kind == "instruction" else question,
        reference=truth.pair.answer.strip() if truth.pair is not None else None,
        prompt=prompt,
        moment=_moment(record) if settings.kind == "valence_arousal" else None,
    )


def _moment(record: EmotionRecord) -> float | None:
    """When a part of a video is shown in it, in seconds, or else the number of the frame; None if neither is known."""
    clip, frame = record.clip, record.extra.get("frame")
    if clip is not None and clip.frames is None and clip.start_s is not None:
        middle_s = clip.start_s if clip.end_s is None else (clip.start_s + clip.end_s) / 2
        return middle_s if clip.key_s is None else clip.key_s
    return float(frame) if isinstance(frame, (int, float)) else None
