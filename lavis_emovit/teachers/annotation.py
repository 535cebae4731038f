"""Teachers look at the images of records: every answer goes to a file, and the combined ones into the records."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lavis_emovit.boxes import part_of
from lavis_emovit.distributed.engine import Engine, Lost, ProcessEngine
from lavis_emovit.emotion.facial import FacialPriors
from lavis_emovit.emotion.labels import CUSTOM_PREFIX, get_label_set
from lavis_emovit.emotion.labels_faces import EXPRESSIONS7, EXPRESSIONS8, FACE_SETS
from lavis_emovit.errors import DataError, UserError, first_line
from lavis_emovit.files import read_file
from lavis_emovit.images import decode_image, image_size_px
from lavis_emovit.progress import progress
from lavis_emovit.records import EmotionRecord
from lavis_emovit.teachers.answers import AnswerFile, AnswerRow, View
from lavis_emovit.teachers.catalogue import AnyTeacher
from lavis_emovit.teachers.choosing import OK, FaceSettings, choose_face
from lavis_emovit.teachers.combining import combine, weigh
from lavis_emovit.teachers.faces import FAULTS, UNREADABLE, Answer
from lavis_emovit.teachers.worker import Worker

_KEPT_EXAMPLES = 20


@dataclass
class Counts:
    """What happened, for a summary.

    Attributes:
        by_teacher: name and version of the teacher -> status -> number of records.
        restarts: the same -> how often its process was started again.
        lost_workers: of the engine, that ended in the middle and were replaced.
        examples: status -> ids of the first records with it, with the reason if there is one.
        outcomes: what became of the records.
    """

    by_teacher: dict[str, Counter[str]] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    lost_workers: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, teacher: AnyTeacher, record: EmotionRecord, status: str, reason: str = "") -> None:
        self.by_teacher.setdefault(teacher.title, Counter())[status] += 1
        if status == OK:
            return
        found = self.examples.setdefault(f"{teacher.title}: {status}", [])
        if len(found) < _KEPT_EXAMPLES:
            found.append(f"{record.id}: {reason}" if reason else record.id)

    def check(self) -> None:
        """UserError if no teacher could look at any image."""
        statuses = {status for counts in self.by_teacher.values() for status in counts}
        if statuses and statuses <= set(FAULTS):
            title, examples = next(iter(self.examples.items()))
            raise UserError(f"no image could be looked at; the first: {title}: {examples[0]}")

    def plain(self) -> dict[str, Any]:
        return {
            "teachers": {
                name: {"statuses": dict(counts.most_common()), "restarts": self.restarts.get(name, 0)}
                for name, counts in self.by_teacher.items()
            },
            "outcomes": dict(self.outcomes.most_common()),
            "examples": self.examples,
            "lost_workers": self.lost_workers,
        }


class Question(NamedTuple):
    """What a worker gets: the bytes of an image file, the part to show, and the numbers of the teachers to ask."""

    data: bytes
    part: tuple[int, int, int, int] | None
    teachers: tuple[int, ...]


class Look(NamedTuple):
    """What it returns: the answers of these teachers, and how often each of their processes was started again."""

    answers: tuple[Answer, ...]
    restarts: tuple[int, ...]


class _Asked(NamedTuple):
    record: EmotionRecord
    view: View
    found: list[Answer | None]


def ask_teachers(
    records: Sequence[EmotionRecord],
    image_root: Path,
    teachers: Sequence[AnyTeacher],
    answers: AnswerFile,
    settings: FaceSettings,
    counts: Counts,
    engine: Engine | None = None,
) -> Iterator[tuple[EmotionRecord, list[Answer]]]:
    """Each record with the answers of the teachers, in their order and in pixels of the image.

    The teachers look at an image at the same time. Answers in the file are not requested again, faults are. An image
    that cannot be shown has the fault `unreadable`. Without an engine, this process asks.

    Raises:
        UserError: a teacher is not installed, does not start, or fails again and again.
    """
    for teacher in teachers:
        teacher.require()
        counts.restarts.setdefault(teacher.title, 0)
    engine = ProcessEngine() if engine is None else engine
    asked = (_question(record, image_root, teachers, answers, settings) for record in records)
    with progress("faces", len(records)) as line:
        for (record, view, found), look in engine.map(partial(showing, tuple(teachers)), asked):
            if isinstance(look, Lost):
                look = Look((Answer(fault="crash", reason=look.reason),) * found.count(None), ())
            missing = [number for number, answer in enumerate(found) if answer is None]
            for number, answer in zip(missing, look.answers if look is not None else ()):
                # Engines read ahead, so the same image may have been asked about twice; the first answer counts.
                title = teachers[number].title
                if (earlier := answers.get(title, view)) is None and answer.fault != UNREADABLE:
                    answers.put(AnswerRow(teacher=title, image=record.image, view=view, answer=answer))
                found[number] = answer if earlier is None else earlier
            for teacher, number in zip(teachers, look.restarts if look is not None else ()):
                counts.restarts[teacher.title] += number
            counts.lost_workers = engine.num_lost_workers
            yield record, [answer for answer in found if answer is not None]
            line.advance()


def _question(
    record: EmotionRecord,
    image_root: Path,
    teachers: Sequence[AnyTeacher],
    answers: AnswerFile,
    settings: FaceSettings,
) -> tuple[_Asked, Question | None]:
    """What is known about an image, and the question for the teachers without an answer; None if there is none."""
    try:
        if record.clip is not None and record.clip.frames is None:
            raise DataError("a video; extract its frames, or name the frame as the record's image")
        data = read_file(image_root / record.image)
        view = View(hashlib.sha256(data).hexdigest())
        if record.box is not None:
            view = View(view.sha256, part_of(record.box, image_size_px(data), settings.margin))
    except (OSError, DataError) as error:
        return _Asked(record, View(""), [_unreadable(error)] * len(teachers)), None
    found = [answers.get(teacher.title, view) for teacher in teachers]
    missing = tuple(number for number, answer in enumerate(found) if answer is None)
    return _Asked(record, view, found), Question(data, view.part, missing) if missing else None


def _unreadable(error: Exception) -> Answer:
    return Answer(fault=UNREADABLE, reason=first_line(error))


@contextmanager
def showing(teachers: tuple[AnyTeacher, ...]) -> Iterator[Callable[[Question], Look]]:
    """A worker: the processes of the teachers, and a function that shows images to them."""
    with ExitStack() as stack:
        workers = [stack.enter_context(teacher.open()) for teacher in teachers]
        pool = stack.enter_context(ThreadPoolExecutor(len(workers)))
        programs = [worker for worker in workers if isinstance(worker, Worker)]

        @stack.push
        def end(kind: object, *_: object) -> None:
            # After a signal, the threads would wait for a program that does not answer; paid requests do answer.
            for program in programs if kind is not None else ():
                program.end()

        def look(question: Question) -> Look:
            try:
                shown = decode_image(question.data)
            except DataError as error:
                return Look((_unreadable(error),) * len(question.teachers), ())
            if question.part is not None:
                shown = shown.crop(question.part)
            before = [worker.num_restarts for worker in workers]
            found = list(pool.map(lambda number: workers[number].annotate([shown])[0], question.teachers))
            if question.part is not None:
                left, top, *_ = question.part
                found = [
                    one.model_copy(update={"faces": tuple(face.moved(left, top, 1.0) for face in one.faces)})
                    for one in found
                ]
            return Look(tuple(found), tuple(worker.num_restarts - number for worker, number in zip(workers, before)))

        yield look


def with_expression(
    record: EmotionRecord,
    teachers: Sequence[AnyTeacher],
    answers: Sequence[Answer],
    settings: FaceSettings,
    counts: Counts,
    *,
    max_entropy: float = 1.0,
    priors: FacialPriors | None = None,
) -> EmotionRecord:
    """The record with the combined expression of the teachers that found its face; unchanged without one.

    `emotion` gets the most likely label and `votes` the mean probabilities. With `priors` that have the reliability of
    the teachers, both are of the posterior over the expressions of the record's label set (`weigh`). `extra` gets
    `expression_by` with the names and versions of these teachers, and `expression_entropy` and
    `expression_mutual_information` (see `Combined`). SEKE takes such an expression, with its votes, as known from a
    program. An existing emotion stays, and is compared; so do several labels, votes and a ranking, which are not
    compared.

    `counts.outcomes` gets `annotated`, `no face that can be judged`, `uncertain` (an entropy above `max_entropy`),
    `label set of no facial expressions`, `without an expression of the tables` or `without this expression`, `already
    labelled, agrees` or `disagrees`, or `labelled by several labels or votes`.
    """
    found: dict[str, dict[str, float]] = {}
    for teacher, answer in zip(teachers, answers):
        status, face = choose_face(answer, record.box, settings)
        counts.add(teacher, record, status, answer.reason)
        if status == OK and face is not None and face.expressions is not None:
            found[teacher.title] = face.expressions
    if not found:
        counts.outcomes["no face that can be judged"] += 1
        return record
    name = record.label_set or EXPRESSIONS7.name
    is_of_faces = name in {one.name for one in FACE_SETS} or name.startswith(CUSTOM_PREFIX)
    if not is_of_faces or not any(_label_in(name, one) for one in EXPRESSIONS8.labels):
        counts.outcomes["label set of no facial expressions"] += 1
        return record
    if priors is None:
        combined = combine(list(found.values()))
    else:
        classes = [one for one in priors.expressions if _label_in(name, one) is not None]
        if not classes:
            counts.outcomes["label set without an expression of the tables"] += 1
            return record
        combined = weigh(found, priors, classes)
    label = _label_in(name, combined.label)
    if record.emotion is not None:
        counts.outcomes[f"already labelled, {'agrees' if label == record.emotion else 'disagrees'}"] += 1
        return record
    if any(given is not None for given in (record.labels, record.votes, record.ranking)):
        counts.outcomes["labelled by several labels or votes"] += 1
        return record
    if combined.entropy > max_entropy:
        counts.outcomes["uncertain"] += 1
        return record
    if label is None:
        counts.outcomes["label set without this expression"] += 1
        return record
    counts.outcomes["annotated"] += 1
    marks: dict[str, str | int | float | bool] = {
        "expression_by": " + ".join(found),
        "expression_entropy": round(combined.entropy, 4),
        "expression_mutual_information": round(combined.mutual_information, 4),
    }
    changes: dict[str, Any] = {"emotion": label, "label_set": name, "extra": {**record.extra, **marks}}
    votes = {_label_in(name, one): round(share, 4) for one, share in combined.votes.items() if share >= 0.00005}
    if None not in votes:
        changes["votes"] = votes
    return record.model_copy(update=changes)


def _label_in(name: str, expression: str) -> str | None:
    """The label of a set of facial expressions, such as `happy` for happiness; None if it is not there."""
    try:
        return get_label_set(name).canonical(expression)
    except DataError:
        return None
