"""The published rules for reading an answer, only for comparison with published numbers.

EmoVIT's returns the first label that occurs in the first line as a substring. So "danger" counts as anger and "not
fear" as fear. Answers without a label were dropped from the published denominator. VECBench's looks into `<answer>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.predictions import PredictionRow

_ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE)


def read_emotion_original(text: str, labels: Sequence[str]) -> str | None:
    """The first of `labels` in the answer (the published order is alphabetical), or None if the rule drops it."""
    head = text.split("\n", maxsplit=1)[0].lower()
    return next((label for label in labels if label.lower() in head), None)


def read_emotion_in_tag(text: str, labels: Sequence[str]) -> str | None:
    """VECBench's rule: the first of `labels` inside the first `<answer>` on one line, or anywhere without such a tag.

    An empty tag counts as none, as in its code. None if there is no label, which it counts as wrong.
    """
    tag = _ANSWER_TAG.search(text)
    inside = ((tag[1] if tag else "") or text).lower()
    return next((label for label in labels if label.lower() in inside), None)


def original_rule(rows: Sequence[PredictionRow], labels: Sequence[str]) -> dict[str, Any]:
    """The `accuracy` over the answers in which the rule finds a label, as published, or None without any.

    `num_dropped` are the other answers; in `accuracy_of_all` they count as wrong.
    """
    answered = [row for row in rows if row.error is None and row.answer is not None]
    predicted = [read_emotion_original(row.answer or "", labels) for row in answered]
    num_right = sum(label == row.label for label, row in zip(predicted, answered))
    num_read = sum(label is not None for label in predicted)
    return {
        "accuracy": num_right / num_read if num_read else None,
        "num_dropped": len(answered) - num_read,
        "accuracy_of_all": num_right / len(answered) if answered else None,
    }


def _measure(measured: MeasuredRows) -> dict[str, Any] | None:
    was_generated = any(row.status is not None for row in measured.rows)
    return original_rule(measured.rows, measured.labels) if was_generated else None


register_metric(Metric("original", kinds=("emotion", "explanation"), measure=_measure))
