"""The published rule for reading an answer, only for comparison with published numbers.

It returns the first label that occurs in the first line as a substring. So "danger" counts as anger and "not fear" as
fear. Answers without a label were dropped from the published denominator.
"""

from __future__ import annotations

from collections.abc import Sequence


def read_emotion_original(text: str, labels: Sequence[str]) -> str | None:
    """The first of `labels` in the answer (the published order is alphabetical), or None if the rule drops it."""
    head = text.split("\n", maxsplit=1)[0].lower()
    return next((label for label in labels if label.lower() in head), None)
