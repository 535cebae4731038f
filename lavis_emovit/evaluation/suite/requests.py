"""From items to rows of predictions: every variant of the question put to a model, every answer read."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.adapters.base import Baseline, Failure, Item, LanguageModel
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Method, Variant, slice_values
from lavis_emovit.evaluation.metrics.explanations import EXPLAINED_FACTS
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.questions import (
    Question,
    label_from_scores,
    label_from_text,
    questions_about,
    values_from_scores,
    values_from_text,
)

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Pictures that fail one after the other before it is the model that is at fault and not the pictures.
MOST_FAILURES_IN_A_ROW = 16


@dataclass(frozen=True)
class Prepared:
    """An item with its picture as the model takes it, or with the reason why there is none."""

    item: Item
    picture: Any = None
    problem: str | None = None


class Patience:
    """Ends an evaluation whose model fails on one picture after the other."""

    def __init__(self, most: int = MOST_FAILURES_IN_A_ROW):
        self._most, self._failed = most, 0

    def note(self, failure: Failure | None) -> None:
        """Count a picture.

        Raises:
            UserError: too many in a row have failed.
        """
        self._failed = self._failed + 1 if failure is not None else 0
        if failure is not None and self._failed >= self._most:
            raise UserError(
                f"the model failed on {self._failed} pictures in a row, at last with: {failure.reason}. Mend it and "
                "start again, with suite.ask_errors_again=true for those that have failed; --debug tells more."
            )


@dataclass(frozen=True)
class _Put:
    """One variant of the question about one item, with the questions that it is made of."""

    prepared: Prepared
    place: int
    variant: Variant
    questions: list[Question]


def prepare(item: Item, model: LanguageModel) -> Prepared:
    """The item with its picture; one that cannot be decoded is an error in the table, not the end of the evaluation."""
    try:
        return Prepared(item, model.prepare(item.image_bytes))
    except DataError as error:
        return Prepared(item, problem=str(error))


def ask(
    model: LanguageModel,
    batch: Sequence[Prepared],
    benchmark: BenchmarkSettings,
    method: Method,
    label_set: LabelSet | None,
    patience: Patience | None = None,
) -> list[PredictionRow]:
    """The rows of a batch: by item, and for each item by variant.

    Where the model raises an error, the pictures of the batch are put to it one by one: those on which it fails again
    are errors in the table, the others are answered.

    Args:
        patience: counts failures over batches; None ends at none.

    Raises:
        UserError: the model cannot go on at all.
    """
    readable = [prepared for prepared in batch if prepared.problem is None]
    puts = [
        _Put(
            prepared,
            place,
            variant,
            questions_about(prepared.item.record, prepared.item.truth, benchmark, variant, method, label_set),
        )
        for place, prepared in enumerate(readable)
        for variant in benchmark.variants
    ]
    pictures = [prepared.picture for prepared in readable]
    asked = [(put.place, question) for put in puts for question in put.questions]
    answers = iter(_answers(model, pictures, asked, method, patience or Patience(len(batch) + 1)))
    made: dict[tuple[str, str], PredictionRow] = {}
    for put in puts:
        own = [next(answers) for _ in put.questions]
        made[put.prepared.item.record.id, put.variant.name] = _row(put, own, benchmark, method, label_set)
    rows = []
    for prepared in batch:
        for variant in benchmark.variants:
            row = made.get((prepared.item.record.id, variant.name))
            rows.append(row or _empty_row(prepared.item, benchmark, variant, error=prepared.problem))
    return rows


def predict(
    baseline: Baseline, items: Sequence[Item], benchmark: BenchmarkSettings, label_set: LabelSet | None
) -> list[PredictionRow]:
    """The rows of a baseline, one an item: it reads no question, so there are no variants."""
    plain = benchmark.variants[0]
    rows: list[PredictionRow] = []
    for item, values in zip(items, _predictions(baseline, items)):
        base = _empty_row(item, benchmark, plain, error=None)
        base = base.model_copy(update={"instance_id": base.record_id, "variant": None})
        if isinstance(values, Failure):
            rows.append(base.model_copy(update={"error": values.reason}))
        elif not all(map(math.isfinite, values.values())):
            rows.append(base.model_copy(update={"error": _NO_NUMBER}))
        else:
            rows.append(_with_scores(base, values) if label_set is not None else _with_values(base, values))
    return rows


_NO_NUMBER = "the model gave a score that is no number"


def _predictions(baseline: Baseline, items: Sequence[Item]) -> list[dict[str, float] | Failure]:
    """All at once; one by one where a picture among them cannot be decoded."""
    try:
        return list(baseline.predict(items))
    except DataError as error:
        if len(items) == 1:
            return [Failure(str(error))]
        return [values for item in items for values in _predictions(baseline, [item])]


def _answers(
    model: LanguageModel,
    pictures: Sequence[Any],
    asked: Sequence[tuple[int, Question]],
    method: Method,
    patience: Patience,
) -> list[Any]:
    """An answer for each question, those that share their candidates asked together."""

    def put(group: list[tuple[int, Question]]) -> list[Any]:
        places = sorted({place for place, _ in group})
        shown = [pictures[place] for place in places]
        index = [places.index(place) for place, _ in group]
        questions = [question for _, question in group]
        try:
            found: list[Any] = []
            if method == "generation":
                found += model.write(shown, index, questions)
            else:
                found += model.score(shown, index, questions, method)
        except UserError:
            raise
        # Whatever a model's library raises; it becomes an error in the table, and too many of them end the evaluation.
        except Exception as error:
            logger.debug("a batch of %d pictures failed", len(places), exc_info=True)
            if len(places) > 1:
                return _by_group(group, lambda pair: pair[0], put)
            failure = Failure(f"{type(error).__name__}: {error}".strip().splitlines()[0])
            patience.note(failure)
            return [failure] * len(group)
        if len(found) != len(questions):
            raise UserError(f"the model gave {len(found)} answers to {len(questions)} questions")
        patience.note(None)
        return found

    # Several wordings of many pictures would be more at once than the batch size promises; neighbours in the list are
    # about the same picture, so it is still looked at once for most of its questions.
    size = max(1, len(pictures), model.pictures_at_once)

    def put_all(group: list[tuple[int, Question]]) -> list[Any]:
        return [answer for start in range(0, len(group), size) for answer in put(group[start : start + size])]

    return _by_group(asked, lambda pair: (pair[1].candidates, pair[1].answer_prefix, pair[1].max_new_tokens), put_all)


def _by_group(members: Sequence[T], key: Callable[[T], Any], work: Callable[[list[T]], Iterable[Any]]) -> list[Any]:
    """What `work` makes of each group of members with one key, in the members' own order."""
    groups: dict[Any, list[int]] = {}
    for number, member in enumerate(members):
        groups.setdefault(key(member), []).append(number)
    results: list[Any] = [None] * len(members)
    for numbers in groups.values():
        for number, result in zip(numbers, work([members[number] for number in numbers])):
            results[number] = result
    return results


def _row(
    put: _Put, answers: Sequence[Any], benchmark: BenchmarkSettings, method: Method, label_set: LabelSet | None
) -> PredictionRow:
    item = put.prepared.item
    base = _empty_row(item, benchmark, put.variant, error=None)
    if benchmark.kind == "action_units":
        base = _as_decisions(base, benchmark.active_from)
    failures = [answer.reason for answer in answers if isinstance(answer, Failure)]
    if failures:
        return base.model_copy(update={"error": failures[0]})
    if method == "generation":
        return _with_text(base, put, str(answers[0]), benchmark, label_set)
    if any(not math.isfinite(score) for row in answers for score in row):
        return base.model_copy(update={"error": _NO_NUMBER})
    if label_set is not None:
        return _with_scores(base, dict(zip(put.questions[0].candidates, answers[0])))
    return _with_values(base, values_from_scores(put.questions, answers))


def _with_scores(base: PredictionRow, scores: dict[str, float]) -> PredictionRow:
    return base.model_copy(update={"scores": scores, "prediction": label_from_scores(scores)})


def _as_decisions(row: PredictionRow, active_from: float) -> PredictionRow:
    """Language models are asked whether a unit is active, so what is true is 1 or 0, not an intensity."""
    decisions = {name: float(value >= active_from) for name, value in (row.true_values or {}).items()}
    return row.model_copy(update={"true_values": decisions})


def _with_values(base: PredictionRow, values: dict[str, float]) -> PredictionRow:
    return base.model_copy(update={"values": {name: values.get(name) for name in base.true_values or values}})


def _with_text(
    base: PredictionRow, put: _Put, text: str, benchmark: BenchmarkSettings, label_set: LabelSet | None
) -> PredictionRow:
    if benchmark.kind in ("valence_arousal", "action_units"):
        values, read = values_from_text(text, benchmark, put.prepared.item.truth)
        return base.model_copy(update={"answer": text, "values": values, "status": read})
    if label_set is None:
        return base.model_copy(update={"answer": text})
    options = put.variant.options(label_set, base.record_id) if put.variant.marks != "none" else None
    label, status = label_from_text(text, label_set, options)
    return base.model_copy(update={"answer": text, "prediction": label, "status": status})


def _empty_row(item: Item, benchmark: BenchmarkSettings, variant: Variant, *, error: str | None) -> PredictionRow:
    record = item.record
    several = len(benchmark.variants) > 1
    facts = EXPLAINED_FACTS if benchmark.kind == "explanation" else ()
    slices = slice_values(record, (*benchmark.slices, *facts))
    if record.group is not None:
        slices = {"group": record.group, **slices}
    return PredictionRow(
        instance_id=f"{record.id}#{variant.name}" if several else record.id,
        record_id=record.id,
        label=item.truth.label,
        prediction=None,
        error=error,
        votes=item.truth.votes,
        true_values=item.truth.values,
        slices=slices or None,
        variant=variant.name if several else None,
    )
