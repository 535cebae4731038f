"""The published rule for reading an answer, for comparison with published numbers and for nothing else.

It takes what stands before the first newline, in lower case, and the first label of the list that occurs in it as a
run of letters. So "danger" is anger, "awesome" is awe, "not fear" is fear, and of several labels the first of the list
wins. An answer without a label was left out of the published denominator.
"""

from __future__ import annotations

from collections.abc import Sequence


def read_emotion_original(text: str, labels: Sequence[str]) -> str | None:
    """The label that the published rule reads, or None for an answer that it drops.

    Args:
        text: a generated answer.
        labels: in the order in which they are tried; the published order is alphabetical.
    """
    head = text.split("\n", maxsplit=1)[0].lower()
    return next((label for label in labels if label.lower() in head), None)
