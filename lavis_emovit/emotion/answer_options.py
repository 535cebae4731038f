"""How a question marks its options: `(a) awe` or `1. awe`."""

from __future__ import annotations

import string
from collections.abc import Sequence


def option_marks(labels: Sequence[str], style: str = "letters") -> list[str]:
    """Options as a question lists them: `(a) awe` (ValueError if letters run out), or `1. awe` with style `numbers`."""
    if style not in ("letters", "numbers"):
        raise ValueError(f"style must be 'letters' or 'numbers', got '{style}'")
    if style == "letters" and len(labels) > len(string.ascii_lowercase):
        raise ValueError(f"{len(labels)} options are too many for letters; use numbers")
    marks = [f"({letter})" for letter in string.ascii_lowercase] if style == "letters" else None
    return [f"{marks[i] if marks else f'{i + 1}.'} {label}" for i, label in enumerate(labels)]
