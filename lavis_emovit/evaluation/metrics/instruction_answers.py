"""Answers to a record's own questions, beside the reference answers that were written with them.

The token loss shows how well a model predicts the reference, word for word; ROUGE-L (Lin, 2004) how many of its words a
written answer has in the same order. Both reward answers like the reference; neither shows whether an answer is good.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from lavis_emovit.evaluation.metrics.comparison import NumbersComparison, answered_by_both, compare_numbers
from lavis_emovit.evaluation.metrics.registry import Headline, MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import resamples_of, without_errors
from lavis_emovit.evaluation.predictions import TOKEN_LOSS, PredictionRow

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


class InstructionAnswerMetrics(Result):
    """Metrics of answers with a reference.

    Attributes:
        rouge_l: mean F1 of the longest common word sequence of a written answer and its reference, over `num_written`
            answers, empty ones included with 0 (`num_invalid` of them); None if nothing was written.
        rouge_l_blind: ROUGE-L of the reference of another image in the place of the answer, to the same question where
            there is one: what wording alone gives; None for a single row.
        token_loss: mean over the `num_scored` references of the cross-entropy of a token (natural log), without the end
            token; None if they were not scored. `perplexity` is its exponential.
        num_words, num_reference_words: mean lengths of written and of reference answers.
    """

    num_samples: int
    num_errors: int
    num_written: int
    num_invalid: int
    rouge_l: float | None
    rouge_l_interval: Interval | None
    rouge_l_blind: float | None
    num_scored: int
    token_loss: float | None
    token_loss_interval: Interval | None
    perplexity: float | None
    num_words: float | None
    num_reference_words: float


def instruction_answer_metrics(
    rows: Sequence[PredictionRow], *, group_by: str | None = None
) -> InstructionAnswerMetrics:
    """Measure rows with a `reference`, and with an `answer`, a value `token_loss`, or both.

    Raises:
        DataError: no rows, or only errors.
    """
    answered = without_errors(rows)
    written = [row for row in answered if row.answer is not None]
    overlaps_N = np.array([_overlap(row) for row in written])
    scored = [row for row in answered if _token_loss(row) is not None]
    losses_N = np.array([_token_loss(row) for row in scored], dtype=float)
    loss = float(losses_N.mean()) if scored else None
    in_range = (0.0, math.inf)
    return InstructionAnswerMetrics(
        num_samples=len(answered),
        num_errors=len(rows) - len(answered),
        num_written=len(written),
        num_invalid=sum(not (row.answer or "").strip() for row in written),
        rouge_l=float(overlaps_N.mean()) if written else None,
        rouge_l_interval=resamples_of(written, group_by).mean_interval(overlaps_N) if written else None,
        rouge_l_blind=_blind(answered),
        num_scored=len(scored),
        token_loss=loss,
        token_loss_interval=resamples_of(scored, group_by).mean_interval(losses_N, in_range) if scored else None,
        perplexity=math.exp(min(loss, 700.0)) if loss is not None else None,
        num_words=float(np.mean([len(_words(row.answer or "")) for row in written])) if written else None,
        num_reference_words=float(np.mean([len(_words(row.reference or "")) for row in answered])),
    )


def compare_instruction_answers(
    before: Sequence[PredictionRow], after: Sequence[PredictionRow], *, group_by: str | None = None
) -> NumbersComparison:
    """The difference in ROUGE-L of two models on the same questions; raises as `compare_models`."""
    firsts, seconds, num_left_out = answered_by_both(before, after)
    resamples = resamples_of(firsts, group_by)
    overlaps = [np.array([_overlap(row) for row in rows]) for rows in (firsts, seconds)]
    resampled = list(resamples.means(np.column_stack(overlaps)).T)
    values = [float(of_model.mean()) for of_model in overlaps]
    return compare_numbers("rouge_l", values, resampled, resamples, num_left_out, (-1.0, 1.0))


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of the words of two texts, without regard to case; 0 if one is empty."""
    words, wanted = _words(answer), _words(reference)
    if not words or not wanted:
        return 0.0
    return 2.0 * _common_length(words, wanted) / (len(words) + len(wanted))


def _common_length(words: Sequence[str], wanted: Sequence[str]) -> int:
    """Length of the longest common subsequence; the bits of a number are a row of the usual table (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(wanted):
        places[word] = places.get(word, 0) | 1 << place
    whole = (1 << len(wanted)) - 1
    row = whole
    for word in words:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & whole
    return len(wanted) - row.bit_count()


def _blind(rows: Sequence[PredictionRow]) -> float | None:
    if len(rows) < 2:
        return None
    by_question: dict[str | None, list[int]] = {}
    for number, row in enumerate(rows):
        by_question.setdefault(row.question, []).append(number)
    following: dict[int, int] = {}  # the next row with the same question, the first one after the last
    for group in by_question.values():
        following.update(zip(group, group[1:] + group[:1]) if len(group) > 1 else ())
    references = [row.reference or "" for row in rows]
    others = [following.get(number, (number + 1) % len(rows)) for number in range(len(rows))]
    return float(np.mean([rouge_l(references[other], reference) for other, reference in zip(others, references)]))


def _overlap(row: PredictionRow) -> float:
    return rouge_l(row.answer or "", row.reference or "")


def _token_loss(row: PredictionRow) -> float | None:
    return (row.values or {}).get(TOKEN_LOSS)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _measure(measured: MeasuredRows) -> InstructionAnswerMetrics:
    return instruction_answer_metrics(measured.rows, group_by=measured.group_by)


register_metric(
    Metric(
        "instruction_answers",
        kinds=("instruction",),
        result=InstructionAnswerMetrics,
        less_is_better=frozenset({"token_loss", "perplexity", "num_invalid", "num_errors"}),
        measure=_measure,
        headline=Headline(
            "rouge_l",
            title="ROUGE-L",
            counts=lambda result: (result.num_samples, result.num_invalid),
            compare=lambda before, after: compare_instruction_answers(
                before.rows, after.rows, group_by=before.group_by
            ),
        ),
    )
)
