"""Annotators: a chat model that sees the face, or the tables of priors alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from lavis_emovit.chat.progress import RunProgress
from lavis_emovit.chat.request import ChatRequest
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.emotion.facial import FacialPriors
from lavis_emovit.emotion.facial_knowledge import Beliefs, infer
from lavis_emovit.emotion.teacher_reliability import TeacherVotes
from lavis_emovit.errors import UserError
from lavis_emovit.generation.job import ChatWriter, Job, Requests
from lavis_emovit.generation.prompts import load_prompt
from lavis_emovit.generation.seke.levels import Case, Levels, evidence_of, level_of, schema_of
from lavis_emovit.generation.seke.settings import SekeSettings
from lavis_emovit.generation.seke.views import View, shown

# `model` answers differently each time, `prior` always the same, `teachers` once each.
AnnotatorKind = Literal["model", "prior", "teachers"]
_OUTPUT_TOKENS = 60
_WORDINGS = ["answers", "answers_b", "answers_c"]  # prompts `seke_<name>`


@dataclass(frozen=True)
class Question:
    case: Case  # with its options in the order of the view
    text: str  # known levels, likely values from the tables, missing levels
    sample: int = 0  # number of the answer, from 0
    view: View = field(default_factory=View)
    proposal: Levels | None = None  # levels to review. None requests an answer.
    is_blind: bool = False  # the answer is requested from the reviewer


@dataclass(frozen=True)
class Reply:
    """A text or beliefs, or the status that explains why there are none."""

    text: str | None = None
    status: str = "ok"
    request: str | None = None  # fingerprint in the ledger
    beliefs: Beliefs | None = None
    votes: TeacherVotes | None = None  # that the beliefs follow from, if the reliability of the teacher is fitted
    by: tuple[str, ...] = ()  # who replied, if not everybody in the annotator's name
    num_calls: int = 1  # what it cost


class Annotator(Protocol):
    name: str  # name in the trail
    reviewer: str  # the same of who reviews; empty if nobody does
    kind: AnnotatorKind
    prompts: str  # names and hashes of the prompts, if any
    num_wordings: int  # of the question
    stopped: str | None  # why it no longer answers (a budget, a fault), or None
    under_way: int
    faults: dict[str, str]  # class of fault of a request -> the last reason

    def num_answers(self, case: Case) -> int | None:
        """How many answers about a face can differ; None: any number."""

    def ask(self, label: str, questions: Sequence[Question]) -> list[Reply | None]:
        """A reply to each question, or None without a reply yet (the run was stopped, or it only estimates)."""


def review_schema(case: Case) -> dict[str, Any]:
    schema = schema_of(case)
    verdict = {"type": "string", "enum": ["keep", "correct", "discard"]}
    properties = {f"{name}_verdict": verdict for name in reviewed(case)}
    properties |= schema["properties"]
    if "units" in case.wanted:
        properties["unclear_units"] = schema["properties"]["units"]
    properties["reason"] = {"type": "string"}
    return {**schema, "properties": properties, "required": list(properties)}


def reviewed(case: Case) -> list[str]:
    """What a review decides on: `expression`, `valence`, `arousal`, and `units` together."""
    return list(dict.fromkeys("units" if level_of(item) == "units" else item for item in case.items))


class ChatAnnotator:
    """Asks a chat model that sees the image, through the job's ledger. UserError for samples at temperature 0."""

    kind: AnnotatorKind = "model"

    def __init__(self, job: Job, settings: SekeSettings):
        assert job.chat is not None
        if job.chat.temperature == 0.0 and settings.num_first > 1:
            raise UserError(
                "at temperature 0 all answers are the same, so their agreement means nothing. Set chat.temperature "
                "above 0, or request one answer (--no-sampling)."
            )
        self.name = f"chat:{job.chat.model}"
        self.stopped: str | None = None
        self.under_way = 0
        self.faults: dict[str, str] = {}
        self._has_replied = False
        self._job = job
        names = ["answers"] if "answers" in settings.prompt_files else _WORDINGS
        self._answers = [self._writer(job.chat, name, settings) for name in names]
        self.num_wordings = len(self._answers)
        review = job.judge or job.chat
        if job.judge is None and review.temperature is not None:
            review = review.model_copy(update={"temperature": 0.0})
        self.reviewer = f"chat:{review.model}"
        self._review = self._writer(review, "answers" if settings.review == "blind" else "review", settings)
        self.prompts = ", ".join(writer.prompt.identity for writer in (*self._answers, self._review))

    def _writer(self, chat: ChatSettings, name: str, settings: SekeSettings) -> ChatWriter:
        custom = settings.prompt_files.get(name)  # type: ignore[call-overload]
        prompt = load_prompt(f"seke_{name}", file=Path(custom) if custom else None)
        return ChatWriter(chat, prompt, f"seke_{name}", None, self._job.image_root, ())

    def num_answers(self, case: Case) -> int | None:
        return None

    def ask(self, label: str, questions: Sequence[Question]) -> list[Reply | None]:
        """All questions are for the reviewer, or none. Replies are matched by record and sample, so none may repeat."""
        is_review = any(question.proposal is not None or question.is_blind for question in questions)
        replies: dict[tuple[str, int], Reply] = {}

        def request(question: Question) -> ChatRequest:
            writer = self._review if is_review else self._answers[question.view.wording]
            schema = schema_of if question.proposal is None else review_schema
            writer = replace(writer, schema=schema(question.case))
            made = writer.request(question.case.record, sample=question.sample, more=question.text)
            return shown(made, question.view)

        def on_row(row: dict[str, Any], progress: RunProgress) -> None:
            status = row["status"]
            text = row.get("reply") if status == "ok" else None
            key = (row["about"]["record"], row["sample"])
            replies[key] = Reply(text, status if status != "ok" or text else "empty", row["request"])

        requests = Requests(lambda: questions, len(questions), request)
        writer = self._review if is_review else self._answers[0]  # for the endpoint
        progress = self._job.send(label, writer, requests, output_tokens=_OUTPUT_TOKENS, on_row=on_row)
        self._has_replied |= progress.done > 0
        self.stopped = progress.stopped or (None if self._has_replied else progress.nothing_answered())
        self.under_way += progress.in_flight
        self.faults |= progress.reasons
        keys = [(question.case.record.id, question.sample) for question in questions]
        replies |= {keys[number]: Reply(None, "bad_picture") for number in requests.problems}
        return [replies.get(key) for key in keys]


class PriorAnnotator:
    """Answers with the likeliest levels by the tables, if a level is known. It sees no image."""

    kind: AnnotatorKind = "prior"
    prompts = reviewer = ""
    num_wordings = 1
    under_way = 0

    def __init__(self, priors: FacialPriors):
        self.name = f"offline/priors:{priors.version}"
        self.stopped: str | None = None
        self.faults: dict[str, str] = {}
        self._priors = priors

    def num_answers(self, case: Case) -> int | None:
        return 1

    def ask(self, label: str, questions: Sequence[Question]) -> list[Reply | None]:
        return [
            Reply(json.dumps(levels.only(question.case.wanted).plain()))
            if (levels := self.guess(question.case)) is not None
            else Reply(None, "nothing_known")
            for question in questions
        ]

    def guess(self, case: Case) -> Levels | None:
        """The likeliest values of the missing levels, or None if nothing is known that the tables have."""
        evidence = evidence_of(case, self._priors)
        if not evidence:
            return None
        beliefs = infer(self._priors, evidence, classes=case.classes, units=case.units)
        units = {unit: probability > 0.5 for unit, probability in beliefs.units.items()}
        expression = case.known.expression or beliefs.likeliest()[0][0]
        return Levels(expression, beliefs.valence.mean, beliefs.arousal.mean, units)
