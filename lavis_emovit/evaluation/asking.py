"""From items to rows of predictions: every variant of the question put to a model, every answer read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.adapters.base import Baseline, Failure, Item, LanguageModel
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Variant, Way, slice_values
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.evaluation.questions import (
    Question,
    label_from_scores,
    label_from_text,
    questions_about,
    values_from_scores,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """An item with its picture as the model takes it, or with the reason why there is none."""

    item: Item
    picture: Any = None
    problem: str | None = None


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
    way: Way,
    label_set: LabelSet | None,
) -> list[PredictionRow]:
    """The rows of a batch: by item, and for each item by variant."""
    readable = [prepared for prepared in batch if prepared.problem is None]
    puts = [
        _Put(
            prepared,
            place,
            variant,
            questions_about(prepared.item.record, prepared.item.truth, benchmark, variant, way, label_set),
        )
        for place, prepared in enumerate(readable)
        for variant in benchmark.variants
    ]
    pictures = [prepared.picture for prepared in readable]
    asked = [(put.place, question) for put in puts for question in put.questions]
    answers = iter(_answers(model, pictures, asked, way))
    made: dict[tuple[str, str], PredictionRow] = {}
    for put in puts:
        own = [next(answers) for _ in put.questions]
        made[put.prepared.item.record.id, put.variant.name] = _row(put, own, benchmark, way, label_set)
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
    for item in items:
        base = _empty_row(item, benchmark, plain, error=None)
        try:
            (values,) = baseline.predict([item])
        except DataError as error:
            rows.append(base.model_copy(update={"error": str(error)}))
            continue
        rows.append(_with_scores(base, values) if label_set is not None else _with_values(base, values))
    return [row.model_copy(update={"instance_id": row.record_id, "variant": None}) for row in rows]


def _answers(
    model: LanguageModel, pictures: Sequence[Any], asked: Sequence[tuple[int, Question]], way: Way
) -> list[Any]:
    """An answer for each question, those that share their candidates asked together."""

    def put(group: list[tuple[int, Question]]) -> Sequence[Any]:
        places = sorted({place for place, _ in group})
        shown = [pictures[place] for place in places]
        index = [places.index(place) for place, _ in group]
        questions = [question for _, question in group]
        return (
            model.write(shown, index, questions) if way == "generation" else model.score(shown, index, questions, way)
        )

    return _by_group(asked, lambda pair: (pair[1].candidates, pair[1].answer_prefix, pair[1].max_new_tokens), put)


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
    put: _Put, answers: Sequence[Any], benchmark: BenchmarkSettings, way: Way, label_set: LabelSet | None
) -> PredictionRow:
    item = put.prepared.item
    base = _empty_row(item, benchmark, put.variant, error=None)
    if benchmark.kind == "action_units":
        base = _as_decisions(base, benchmark.active_from)
    failures = [answer.reason for answer in answers if isinstance(answer, Failure)]
    if failures:
        return base.model_copy(update={"error": failures[0]})
    if way == "generation":
        return _with_text(base, put, str(answers[0]), label_set)
    if any(not math.isfinite(score) for row in answers for score in row):
        return base.model_copy(update={"error": "the model gave a score that is no number"})
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


def _with_text(base: PredictionRow, put: _Put, text: str, label_set: LabelSet | None) -> PredictionRow:
    if label_set is None:
        return base.model_copy(update={"answer": text})
    options = put.variant.options(label_set, base.record_id) if put.variant.order else None
    label, status = label_from_text(text, label_set, options)
    return base.model_copy(update={"answer": text, "prediction": label, "status": status})


def _empty_row(item: Item, benchmark: BenchmarkSettings, variant: Variant, *, error: str | None) -> PredictionRow:
    record = item.record
    several = len(benchmark.variants) > 1
    slices = slice_values(record, benchmark.slices)
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
