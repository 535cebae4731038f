"""Whether explanations are right for the right reason: the emotion that the reason alone leads to, and its steps.

The emotion of a reason and the steps are read from words (`emotion/answer_reasons.py`, the record's facts), or judged
by a chat model if a suite has one; both are measured alike, and a reading that fails is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lavis_emovit.emotion.answer_reasons import emotions_of_reason, has_words_for
from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.evaluation.metrics.explanations import facts_of, mentions_any, reason_of, words_of
from lavis_emovit.evaluation.metrics.instruction_answers import rouge_l
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import resamples_of, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.generation.checks import contradicts_label

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_COT_WEIGHT = 0.5


class ReasonMetrics(Result):
    """Shares over the `num_samples` answered explanations; a reason that leads to no emotion is wrong.

    Attributes:
        source: `words`, or the name of the judge.
        eea: share whose reason alone leads to the true emotion; fcr: the same, and the answer is right too; epc: share
            whose reason leads to the emotion of the answer, right or wrong (ERV, AAAI 2026).
        right_right, right_wrong, wrong_right, wrong_wrong: label and reason, where the reason is read with the labels
            removed ("doubly right", StimuVAR, IJCV 2025); together 1.
        rec_s, rea_s, cot_s: label right; mean share of right steps of the reason, 0 without a step; their mean
            (MME-Emotion, 2025). Steps are sentences; by words, one is right if it mentions a fact of the record and
            does not claim an emotion of the other polarity. Over the `num_with_steps` records that have facts, or were
            judged; None without any.
        rouge_l: mean ROUGE-L of the answer and the reference, over the `num_with_reference` records with one; rege:
            that plus the accuracy on the same records, in [0, 2] (FABA-Bench, ECCV 2024). None without references.
    """

    num_samples: int
    num_errors: int
    source: str
    num_without_emotion: int
    eea: float | None
    eea_interval: Interval | None
    fcr: float | None
    epc: float | None
    right_right: float | None
    right_right_interval: Interval | None
    right_wrong: float | None
    wrong_right: float | None
    wrong_wrong: float | None
    num_with_steps: int
    rec_s: float | None
    rea_s: float | None
    cot_s: float | None
    cot_s_interval: Interval | None
    num_with_reference: int
    rouge_l: float | None
    rege: float | None
    rege_interval: Interval | None


def reason_metrics(
    rows: Sequence[PredictionRow],
    label_set: LabelSet,
    *,
    group_by: str | None = None,
    source: str = "words",
    emotions: Mapping[str, str | None] | None = None,
    steps: Mapping[str, Sequence[bool]] | None = None,
) -> ReasonMetrics:
    """Measure written explanations.

    Args:
        emotions: instance -> the emotion that a judge reads from its reason without the labels; None: by words.
        steps: instance -> whether each step is right, by a judge; None: by words.

    Raises:
        DataError: no rows, or only errors.
    """
    answered = without_errors(rows)
    right_N = np.array([row.prediction is not None and row.prediction == row.label for row in answered])
    found: dict[str, Any] = dict.fromkeys(
        ("eea", "eea_interval", "fcr", "epc", "right_right_interval", *_QUADRANTS), None
    )
    num_without = 0
    if emotions is not None or has_words_for(label_set):
        reasons = [reason_of(row.answer or "") for row in answered]
        if emotions is None:
            read = [emotions_of_reason(one, label_set) for one in reasons]
            alone, masked = [one for one, _ in read], [one for _, one in read]
        else:
            alone = masked = [emotions.get(row.instance_id) for row in answered]
        num_without = sum(one is None for one in masked)
        found |= _agreement(answered, right_N, alone, masked, group_by)
    return ReasonMetrics(
        num_samples=len(answered),
        num_errors=len(rows) - len(answered),
        source=source,
        num_without_emotion=num_without,
        **found,
        **_steps(answered, right_N, label_set, steps, group_by),
        **_references(answered, right_N, group_by),
    )


_QUADRANTS = ("right_right", "right_wrong", "wrong_right", "wrong_wrong")


def _agreement(
    rows: Sequence[PredictionRow],
    right_N: np.ndarray,
    alone: Sequence[str | None],
    masked: Sequence[str | None],
    group_by: str | None,
) -> dict[str, Any]:
    is_true_N = np.array([one is not None and one == row.label for one, row in zip(alone, rows)])
    is_same_N = np.array([one is not None and one == row.prediction for one, row in zip(alone, rows)])
    reason_N = np.array([one is not None and one == row.label for one, row in zip(masked, rows)])
    both = (right_N & reason_N, right_N & ~reason_N, ~right_N & reason_N, ~right_N & ~reason_N)
    intervals = resamples_of(rows, group_by).mean_intervals(np.column_stack([is_true_N, both[0]]).astype(np.float64))
    return {
        "eea": float(is_true_N.mean()),
        "eea_interval": intervals[0],
        "fcr": float((is_true_N & right_N).mean()),
        "epc": float(is_same_N.mean()),
        **{name: float(of_N.mean()) for name, of_N in zip(_QUADRANTS, both)},
        "right_right_interval": intervals[1],
    }


def _steps(
    rows: Sequence[PredictionRow],
    right_N: np.ndarray,
    label_set: LabelSet,
    judged: Mapping[str, Sequence[bool]] | None,
    group_by: str | None,
) -> dict[str, Any]:
    measured, shares = [], []
    for number, row in enumerate(rows):
        steps: Sequence[bool] | None = (
            steps_by_words(row, label_set) if judged is None else judged.get(row.instance_id, ())
        )
        if steps is not None:
            measured.append(number)
            shares.append(sum(steps) / len(steps) if len(steps) else 0.0)
    if not measured:
        return {"num_with_steps": 0, **dict.fromkeys(("rec_s", "rea_s", "cot_s", "cot_s_interval"), None)}
    rec_M, rea_M = right_N[measured].astype(np.float64), np.array(shares)
    cot_M = _COT_WEIGHT * rec_M + (1 - _COT_WEIGHT) * rea_M
    resamples = resamples_of([rows[number] for number in measured], group_by)
    means = {"rec_s": float(rec_M.mean()), "rea_s": float(rea_M.mean()), "cot_s": float(cot_M.mean())}
    return {"num_with_steps": len(measured), **means, "cot_s_interval": resamples.mean_interval(cot_M)}


def steps_of(answer: str) -> list[str]:
    """The sentences of the reason of an answer."""
    return [step for step in _SENTENCE_END.split(reason_of(answer).strip()) if any(map(str.isalnum, step))]


def steps_by_words(row: PredictionRow, label_set: LabelSet) -> list[bool] | None:
    """Whether each step mentions a fact and contradicts nothing; None for a record without facts."""
    facts = facts_of(row.slices or {})
    if row.label is None or not facts:
        return None
    return [
        mentions_any(words_of(step), facts) and not contradicts_label(step, row.label, label_set)
        for step in steps_of(row.answer or "")
    ]


def _references(rows: Sequence[PredictionRow], right_N: np.ndarray, group_by: str | None) -> dict[str, Any]:
    known = [number for number, row in enumerate(rows) if row.reference]
    if not known:
        return {"num_with_reference": 0, **dict.fromkeys(("rouge_l", "rege", "rege_interval"), None)}
    overlap_M = np.array([rouge_l(rows[n].answer or "", rows[n].reference or "") for n in known])
    rege_M = overlap_M + right_N[known]
    resamples = resamples_of([rows[n] for n in known], group_by)
    return {
        "num_with_reference": len(known),
        "rouge_l": float(overlap_M.mean()),
        "rege": float(rege_M.mean()),
        "rege_interval": resamples.mean_interval(rege_M, (0.0, 2.0)),
    }


def _measure(measured: MeasuredRows) -> ReasonMetrics:
    assert measured.label_set is not None
    return reason_metrics(measured.rows, measured.label_set, group_by=measured.group_by)


register_metric(
    Metric(
        "reasons",
        kinds=("explanation",),
        result=ReasonMetrics,
        less_is_better=frozenset({"right_wrong", "wrong_right", "wrong_wrong", "num_without_emotion", "num_errors"}),
        measure=_measure,
    )
)
