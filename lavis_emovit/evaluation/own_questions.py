"""The questions of the records themselves (choices, statements, questions of people), rankings and free words.

Each is one question whose answer is read into the fields of a row: `read_own` for written answers, `scored_own` for
scores. Nothing is guessed: an answer that the readers cannot read has a status, and counts as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lavis_emovit.emotion import questions as wordings
from lavis_emovit.emotion.answer_options import marks_of, option_marks
from lavis_emovit.emotion.answer_rankings import read_ranking
from lavis_emovit.emotion.answer_statements import read_statement
from lavis_emovit.emotion.answer_words import read_words
from lavis_emovit.emotion.answers import read_choice
from lavis_emovit.emotion.labels import LabelSet, Subject
from lavis_emovit.emotion.wheels import emotion_wheels
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Method, Variant
from lavis_emovit.evaluation.question import Question
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.records import AnsweredQuestion, EmotionRecord, Statement

_ANY_CHOICE = AnsweredQuestion(question="Which?", answers=["this"], options=["this", "that"])
_ANY_STATEMENT = Statement(text="It evokes awe.", is_correct=True)
_DEFAULT_RANKED = 3


def shows_joined_pair(record: EmotionRecord, *, is_joined: bool) -> bool:
    """Whether one image shows the two of a record; shards of earlier versions have no `pair`, and pairs joined."""
    return is_joined if record.pair is not None else record.extra.get("num_images") == 2


def own_question(
    record: EmotionRecord,
    truth: Truth,
    benchmark: BenchmarkSettings,
    variant: Variant,
    method: Method,
    label_set: LabelSet | None,
    about: Subject,
    *,
    is_joined: bool,
) -> Question | None:
    """The question in one variant; None if the scoring method does not suit the kind. `about` is its subject.

    `is_joined`: whether the model sees the images of a pair in one, which a note before the question then says.
    """
    number, prompt, kind = variant.wording - 1, benchmark.prompt, benchmark.kind
    by_likelihood = method != "generation"
    note = (wordings.PAIR_NOTE if shows_joined_pair(record, is_joined=is_joined) else "") + variant.opening
    more = wordings.CONFIDENCE_REQUEST if benchmark.confidence and not by_likelihood else ""
    prefix = prompt.answer_prefix or "" if prompt is not None else ""
    if kind == "choice":
        asked = truth.asked if isinstance(truth.asked, AnsweredQuestion) else _ANY_CHOICE
        options = variant.options(asked.options or (), f"{record.id}/{truth.name}")
        is_marked = variant.marks != "none"
        listed = tuple(option_marks(options, variant.marks)) if is_marked else options
        if prompt is not None:
            text = prompt.question(listed, asked.question)
        else:
            text = _filled(wordings.CHOICE_QUESTIONS[number], question=asked.question, options="; ".join(listed))
        marks = [mark.strip("().") for mark in marks_of(len(options), variant.marks)] if is_marked else options
        candidates = tuple(dict.fromkeys(marks)) if by_likelihood else ()  # options may be equal
        return Question("choice", note + text + more, candidates, prefix, options=options)
    if kind == "statement":
        statement = truth.asked.text if isinstance(truth.asked, Statement) else _ANY_STATEMENT.text
        if prompt is not None:
            text = prompt.question((), statement)
        else:
            text = _filled(wordings.STATEMENT_QUESTIONS[number], statement=statement)
        return Question("statement", note + text + more, wordings.STATEMENT_ANSWERS if by_likelihood else (), prefix)
    if kind == "ranking":
        assert label_set is not None
        options = variant.options(label_set.labels, record.id)
        if by_likelihood:
            text = wordings.LISTED_WORDINGS[about][number].format(options=", ".join(options))
            return Question("emotion", text, label_set.labels, wordings.CATEGORICAL_ANSWER_PREFIX)
        count = len(truth.labels or ()) or _DEFAULT_RANKED
        text = wordings.RANKING_QUESTIONS[about][number].format(count=count, options=", ".join(options))
        return Question("ranking", prompt.question(options) if prompt is not None else text)
    if by_likelihood:
        return None
    if kind == "vqa":
        asked = truth.asked if isinstance(truth.asked, AnsweredQuestion) else _ANY_CHOICE
        text = _filled(wordings.VQA_QUESTIONS[number], question=asked.question)
        return Question("vqa", note + (prompt.question((), asked.question) if prompt is not None else text))
    return Question("words", prompt.text if prompt is not None else wordings.WORDS_QUESTIONS[about][number])


def read_own(
    text: str, question: Question, truth: Truth, benchmark: BenchmarkSettings, label_set: LabelSet | None
) -> dict[str, Any]:
    """The fields of a row that a written answer gives: `status`, and `prediction` or `predictions`."""
    if benchmark.kind == "choice":
        asked = truth.asked.question if isinstance(truth.asked, AnsweredQuestion) else None
        found = read_choice(text, question.options, question=asked)
        chosen = question.options[found.index] if found.index is not None else None
        return {"prediction": chosen, "status": found.status}
    if benchmark.kind == "statement":
        judged = read_statement(text)
        return {"prediction": judged.label, "status": judged.status}
    if benchmark.kind == "ranking":
        assert label_set is not None
        ranking = read_ranking(text, label_set, len(truth.labels or ()) or _DEFAULT_RANKED)
        return {"predictions": ranking.labels or None, "status": ranking.status}
    if benchmark.kind == "words":
        words = read_words(text, emotion_wheels(benchmark.wheels))
        return {"predictions": words or None, "status": "ok" if words else "invalid"}
    return {"status": "ok" if text.strip() else "invalid"}


def scored_own(
    question: Question, truth: Truth, benchmark: BenchmarkSettings, scores: Sequence[float]
) -> dict[str, Any]:
    """The fields of a row that the scores of the candidates give; a tie goes to the first in the alphabet."""
    # Unmarked candidates are the options themselves, equal ones once.
    is_marked = len(question.options) == len(question.candidates)
    names = question.options if benchmark.kind == "choice" and is_marked else question.candidates
    by_name: dict[str, float] = {}
    for name, score in zip(names, scores):
        by_name[name] = max(score, by_name.get(name, score))  # options may be equal
    order = sorted(sorted(by_name), key=lambda name: -by_name[name])
    found: dict[str, Any] = {"scores": by_name}
    if benchmark.kind == "ranking":
        return {**found, "predictions": tuple(order[: len(truth.labels or ())])}
    return {**found, "prediction": order[0]}


def _filled(wording: str, **texts: str) -> str:
    """A wording with its texts, which may have braces of their own, and end with a full stop or without."""
    return wording.format(**{name: _ended(text) if name == "statement" else text for name, text in texts.items()})


def _ended(text: str) -> str:
    return text if text.rstrip().endswith((".", "!", "?", '"')) else f"{text.rstrip()}."
