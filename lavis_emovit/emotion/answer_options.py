"""How a question marks its options: `(a) awe` or `1. awe`."""

from __future__ import annotations

import string
from collections.abc import Sequence

MOST_LETTERS = len(string.ascii_lowercase)


def option_marks(labels: Sequence[str], style: str = "letters") -> list[str]:
    """Options as a question lists them: `(a) awe` (ValueError if letters run out), or `1. awe` with style `numbers`."""
    return [f"{mark} {label}" for mark, label in zip(marks_of(len(labels), style), labels)]


def marks_of(count: int, style: str = "letters") -> list[str]:
    """The marks alone: `(a)` or `1.`; raises as `option_marks`."""
    if style not in ("letters", "numbers"):
        raise ValueError(f"style must be 'letters' or 'numbers', got '{style}'")
    if style == "letters" and count > MOST_LETTERS:
        raise ValueError(f"{count} options are too many for letters; use numbers")
    return (
        [f"({letter})" for letter in string.ascii_lowercase[:count]]
        if style == "letters"
        else [f"{number}." for number in range(1, count + 1)]
    )
