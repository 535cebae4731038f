"""What is asked about a record, and what its answers say: questions in the words of training, rows of predictions.

Two methods. *Likelihood* gives the candidates of a question to the model and takes their scores; nothing is parsed.
*Generation* lets the model write and reads its words strictly.

Valence and arousal by likelihood: each is asked on a scale from 1 to 9, and the answer is the mean of the scale under
the softmax of the nine candidates' scores, laid on [-1, 1]. Action units by likelihood: a yes-or-no question each; the
value is the share of "yes" under the softmax of the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lavis_emovit.emotion.answer_numbers import read_numbers
from lavis_emovit.emotion.answer_options import option_marks
from lavis_emovit.emotion.answer_units import read_action_units
from lavis_emovit.emotion.answers import AnswerStatus, read_emotion
from lavis_emovit.emotion.facial import facial_priors
from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.emotion.questions import (
    AFFECT_QUESTIONS,
    CAPTION_QUESTIONS,
    CATEGORICAL_ANSWER_PREFIX,
    CATEGORICAL_WORDINGS,
    EXPLANATION_QUESTIONS,
    OPEN_WORDINGS,
    SCALE,
    SCALE_QUESTIONS,
    UNIT_QUESTIONS,
    UNITS_QUESTIONS,
    YES_NO,
    categorical_prompt,
)
from lavis_emovit.evaluation.benchmarks import AXES, BenchmarkSettings, Method, Truth, Variant, units_asked
from lavis_emovit.records import EmotionRecord

_ANY_RECORD = EmotionRecord(id="any", image="any", split="any", source="any")
_DEFAULT_NEW_TOKENS = {"emotion": 32, "valence_arousal": 32, "action_units": 96, "explanation": 160, "caption": 48}


@dataclass(frozen=True)
class Question:
    """One question about one picture.

    Attributes:
        key: what of the record it asks for: `emotion`, `valence`, `AU12`, `affect`, `units`, `caption`.
        text: as the model reads it.
        candidates: the answers to choose from; empty where the model is to write.
        answer_prefix: what every candidate stands behind; read, not scored.
        max_new_tokens: the longest written answer.
    """

    key: str
    text: str
    candidates: tuple[str, ...] = ()
    answer_prefix: str = ""
    max_new_tokens: int = 32


def questions_about(
    record: EmotionRecord,
    truth: Truth,
    benchmark: BenchmarkSettings,
    variant: Variant,
    method: Method,
    label_set: LabelSet | None,
) -> list[Question]:
    """The questions of one record in one variant, asked one method; none where the method does not suit the kind."""
    number = variant.wording - 1
    new_tokens = benchmark.max_new_tokens or _DEFAULT_NEW_TOKENS[benchmark.kind]
    by_likelihood = method != "generation"
    if benchmark.kind == "emotion":
        assert label_set is not None
        text = _emotion_question(label_set, variant, record.id)
        if by_likelihood:
            return [Question("emotion", text, label_set.labels, CATEGORICAL_ANSWER_PREFIX)]
        return [Question("emotion", text, max_new_tokens=new_tokens)]
    if benchmark.kind == "valence_arousal":
        if by_likelihood:
            texts = SCALE_QUESTIONS[benchmark.subject]
            return [Question(axis, texts[axis][number], SCALE) for axis in AXES]
        written = AFFECT_QUESTIONS[benchmark.subject]
        return [Question("affect", written[number], max_new_tokens=new_tokens)]
    if benchmark.kind == "action_units":
        names = facial_priors().units
        units = units_asked(truth.values)
        if by_likelihood:
            return [
                Question(f"AU{unit}", UNIT_QUESTIONS[number].format(unit=unit, name=names[unit]), YES_NO)
                for unit in units
            ]
        listed = ", ".join(f"AU{unit} ({names[unit]})" for unit in units)
        return [Question("units", UNITS_QUESTIONS[number].format(units=listed), max_new_tokens=new_tokens)]
    if by_likelihood:
        return []
    free: tuple[str, ...] = EXPLANATION_QUESTIONS if benchmark.kind == "explanation" else CAPTION_QUESTIONS
    return [Question(benchmark.kind, free[number], max_new_tokens=new_tokens)]


def _emotion_question(label_set: LabelSet, variant: Variant, record_id: str) -> str:
    if variant.order is None:
        return OPEN_WORDINGS[variant.wording - 1]
    options = variant.options(label_set, record_id)
    if variant.marks == "none":
        return categorical_prompt(label_set, options, variant.wording)
    return CATEGORICAL_WORDINGS[variant.wording - 1].format(options=", ".join(option_marks(options, variant.marks)))


def wordings_of(benchmark: BenchmarkSettings, label_set: LabelSet | None) -> list[str]:
    """The texts of all questions of a benchmark, for a fingerprint."""
    methods: tuple[Method, ...] = ("likelihood", "generation")
    return [
        f"{question.text}|{question.answer_prefix}|{question.candidates}"
        for variant in benchmark.variants
        for method in methods
        for question in questions_about(_ANY_RECORD, Truth(), benchmark, variant, method, label_set)
    ]


def example_question(benchmark: BenchmarkSettings, method: Method, label_set: LabelSet | None) -> Question:
    """A question of the benchmark, about no record in particular."""
    return questions_about(_ANY_RECORD, Truth(), benchmark, benchmark.variants[0], method, label_set)[0]


def values_from_scores(questions: Sequence[Question], scores: Sequence[Sequence[float]]) -> dict[str, float]:
    """Valence, arousal or shares of active units out of the candidates' scores, see the module.

    Args:
        questions: with the candidates `SCALE` or `YES_NO`.
        scores: one list a question, one log-score a candidate.
    """
    values = {}
    for question, row in zip(questions, scores):
        shares = _softmax(row)
        if question.candidates == SCALE:
            mean = sum(share * int(step) for share, step in zip(shares, SCALE))
            values[question.key] = (mean - 5.0) / 4.0
        else:
            values[question.key] = shares[0]
    return values


def values_from_text(
    text: str, benchmark: BenchmarkSettings, truth: Truth
) -> tuple[dict[str, float | None], AnswerStatus]:
    """The numbers that a written answer gives, None for one that it does not, and the status of reading.

    Valence and arousal lie on [-1, 1], the scale of the question. An action unit is 1 where the answer says that it is
    active, with whatever intensity, and 0 where it does not.
    """
    if benchmark.kind == "valence_arousal":
        numbers = read_numbers(text, AXES, scale=(-1.0, 1.0))
        failed = [answer.status for answer in numbers.values() if answer.status != "ok"]
        return {name: answer.value for name, answer in numbers.items()}, failed[0] if failed else "ok"
    units = read_action_units(text, units_asked(truth.values))
    decided = {name: None if value is None else float(value > 0) for name, value in units.values.items()}
    return decided, units.status


def label_from_scores(scores: Mapping[str, float]) -> str:
    """The likeliest label; of equals the first in the alphabet."""
    return max(sorted(scores), key=lambda label: scores[label])


def label_from_text(text: str, label_set: LabelSet, options: Sequence[str] | None) -> tuple[str | None, AnswerStatus]:
    """The label that a written answer asserts, or None, and the status of reading.

    Args:
        options: the options in the order in which the question listed them, where it marked them by letters or numbers.
    """
    answer = read_emotion(text, label_set, options)
    return answer.label, answer.status


def _softmax(row: Sequence[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]
