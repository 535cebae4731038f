"""The questions about a record, in the wordings of training, and the labels and numbers in their answers.

By likelihood, the model scores the candidates of a question, and nothing is parsed; valence and arousal are mean steps
of a scale, an action unit is the share of "yes". By generation, the model writes and its text is read strictly.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace

from lavis_emovit.emotion import questions as wordings
from lavis_emovit.emotion.answer_numbers import read_numbers
from lavis_emovit.emotion.answer_options import option_marks
from lavis_emovit.emotion.answer_units import read_action_units
from lavis_emovit.emotion.answers import AnswerStatus
from lavis_emovit.emotion.facial import facial_priors
from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.evaluation.benchmarks import AXES, BenchmarkSettings, Method, Variant, record_subject, units_asked
from lavis_emovit.evaluation.own_questions import own_question
from lavis_emovit.evaluation.question import Question
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.records import EmotionRecord, Instruction

_ANY_PAIR = Instruction(kind="conversation", question="Why?", answer="Because.", provenance="any")
ANY_RECORD = EmotionRecord(id="any", image="any", split="any", source="any")
"""Stands for an image without annotation: questions about it are those about any image."""
_DEFAULT_NEW_TOKENS = {
    "emotion": 32,
    "labels": 32,
    "valence_arousal": 32,
    "action_units": 96,
    "explanation": 160,
    "caption": 48,
    "instruction": 256,
    "choice": 64,
    "statement": 32,
    "ranking": 48,
    "words": 64,
    "vqa": 16,
}
_CONFIDENCE_TOKENS = 16
_MODE_TOKENS = 96


def _default_new_tokens(benchmark: BenchmarkSettings, variant: Variant) -> int:
    more = _CONFIDENCE_TOKENS if benchmark.confidence else 0
    return _DEFAULT_NEW_TOKENS[benchmark.kind] + more + (_MODE_TOKENS if variant.mode != "direct" else 0)


def questions_about(
    record: EmotionRecord,
    truth: Truth,
    benchmark: BenchmarkSettings,
    variant: Variant,
    method: Method,
    label_set: LabelSet | None,
    *,
    is_joined: bool = True,
) -> list[Question]:
    """The questions about one record in one variant; none if the scoring method does not suit the kind.

    `is_joined`: whether the model sees the images of a pair in one.
    """
    number, prompt = variant.wording - 1, benchmark.prompt
    new_tokens = (
        benchmark.max_new_tokens or (prompt and prompt.max_new_tokens) or _default_new_tokens(benchmark, variant)
    )
    decoding = tuple(prompt.decoding.items()) if prompt is not None else ()
    by_likelihood = method != "generation"
    about = benchmark.subject or record_subject(record, label_set.name if label_set else None)
    if benchmark.kind in ("emotion", "labels"):
        assert label_set is not None
        options = variant.options(label_set.labels, record.id)
        marked = options if variant.marks == "none" else tuple(option_marks(options, variant.marks))
        if prompt is not None:
            text = prompt.question(marked)
        elif variant.order is None:
            text = wordings.OPEN_WORDINGS[about][number]
        else:
            text = wordings.LISTED_WORDINGS[about][number].format(options=", ".join(marked))
        if by_likelihood:
            text = variant.opening + text
            prefix = prompt.scored_prefix if prompt is not None else wordings.CATEGORICAL_ANSWER_PREFIX
            return [Question("emotion", text, label_set.labels, prefix)]
        if benchmark.kind == "labels":
            return []
        text = variant.opening + text + (wordings.CONFIDENCE_REQUEST if benchmark.confidence else "")
        return [Question("emotion", text, max_new_tokens=new_tokens, decoding=decoding)]
    if benchmark.kind in ("choice", "statement", "ranking", "words", "vqa"):
        asked = own_question(record, truth, benchmark, variant, method, label_set, about, is_joined=is_joined)
        if asked is None or asked.candidates:
            return [asked] if asked is not None else []
        return [replace(asked, max_new_tokens=new_tokens, decoding=decoding)]
    if benchmark.kind == "valence_arousal":
        if by_likelihood:
            scales = {axis: wordings.scale_questions(about, axis, benchmark.scale) for axis in benchmark.axes}
            return [Question(axis, texts[number], answers) for axis, (texts, answers) in scales.items()]
        text = wordings.AFFECT_QUESTIONS[about][number]
        if benchmark.axes != AXES:
            dimensions = ", ".join(wordings.DIMENSIONS[axis] for axis in benchmark.axes)
            text = wordings.DIMENSIONS_QUESTIONS[about][number].format(dimensions=dimensions)
        return [Question("affect", text, max_new_tokens=new_tokens)]
    if benchmark.kind == "action_units":
        name = facial_priors().unit_name
        units = units_asked(truth.values)
        if by_likelihood:
            texts_of = {unit: wordings.UNIT_QUESTIONS[number].format(unit=unit, name=name(unit)) for unit in units}
            return [Question(f"AU{unit}", text, wordings.YES_NO) for unit, text in texts_of.items()]
        listed = ", ".join(f"AU{unit} ({name(unit)})" for unit in units)
        return [Question("units", wordings.UNITS_QUESTIONS[number].format(units=listed), max_new_tokens=new_tokens)]
    if benchmark.kind == "instruction":
        pair = truth.pair or _ANY_PAIR
        candidates = (pair.answer.strip(),) if by_likelihood else ()
        return [Question("instruction", pair.question, candidates, max_new_tokens=new_tokens)]
    if by_likelihood:
        return []
    free = wordings.EXPLANATION_QUESTIONS[about] if benchmark.kind == "explanation" else wordings.CAPTION_QUESTIONS
    text = prompt.question(label_set.labels if label_set else ()) if prompt is not None else free[number]
    return [Question(benchmark.kind, text, max_new_tokens=new_tokens, decoding=decoding)]


def wordings_of(benchmark: BenchmarkSettings, label_set: LabelSet | None) -> list[str]:
    """The texts of all questions of a benchmark, for a fingerprint."""
    methods: tuple[Method, ...] = ("likelihood", "generation")
    return [
        f"{question.text}|{question.answer_prefix}|{question.candidates}"
        for variant in benchmark.variants
        for method in methods
        for question in questions_about(ANY_RECORD, Truth(), benchmark, variant, method, label_set)
    ]


def prompt_sha256(benchmark: BenchmarkSettings, variant: Variant, method: Method, label_set: LabelSet | None) -> str:
    """Identifies what a model is asked in a variant: text, listed options, answer prefix and candidates.

    Numbers whose rows have other hashes come from other prompts.
    """
    asked = questions_about(ANY_RECORD, Truth(), benchmark, variant, method, label_set)
    seen = [[question.text, question.answer_prefix, *question.candidates] for question in asked]
    return hashlib.sha256(json.dumps(seen, ensure_ascii=False).encode()).hexdigest()


def example_question(benchmark: BenchmarkSettings, method: Method, label_set: LabelSet | None) -> Question:
    """A question of the benchmark, about no record in particular."""
    return questions_about(ANY_RECORD, Truth(), benchmark, benchmark.variants[0], method, label_set)[0]


def values_from_scores(questions: Sequence[Question], scores: Sequence[Sequence[float]]) -> dict[str, float]:
    """Valence, arousal or shares of active units from the log-scores of the candidates, those of a scale or `YES_NO`.

    A number is the mean answer of the scale under the softmax of the scores, with its ends mapped to -1 and 1.
    """
    values = {}
    for question, row in zip(questions, scores):
        powers = [math.exp(value - max(row)) for value in row]
        shares = [power / sum(powers) for power in powers]
        if question.candidates == wordings.YES_NO:
            values[question.key] = shares[0]
        else:
            steps = (len(shares) - 1) / 2
            values[question.key] = sum(share * place for place, share in enumerate(shares)) / steps - 1.0
    return values


def values_from_text(
    text: str, benchmark: BenchmarkSettings, truth: Truth
) -> tuple[dict[str, float | None], AnswerStatus]:
    """The numbers in a written answer, None for those that it lacks, and the status of reading.

    Valence and arousal are on [-1, 1]. An action unit is 1 if the answer calls it active, at any intensity, else 0.
    """
    if benchmark.kind == "valence_arousal":
        numbers = read_numbers(text, benchmark.axes, scale=(-1.0, 1.0))
        failed = [answer.status for answer in numbers.values() if answer.status != "ok"]
        return {name: answer.value for name, answer in numbers.items()}, failed[0] if failed else "ok"
    units = read_action_units(text, units_asked(truth.values))
    decided = {name: None if value is None else float(value > 0) for name, value in units.values.items()}
    return decided, units.status
