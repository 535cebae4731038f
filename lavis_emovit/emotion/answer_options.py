"""Read answers that name an option by its letter or number: "(b)", "3", "Option C: fear".

A letter or number counts only if it is the whole answer, is announced, or opens the answer, set apart by punctuation.
So "A sad man" and "I see a dog" choose nothing.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

_MARK = r"(?P<mark>[a-z]|\d{1,2})"
_OPEN, _CLOSE = r"[\"'(\[{<]*", r"[\"')\]}>]*"
_NOUN = r"(?:option|choice|answer|letter|number|no\.|#)"
# "Answer: B", "the answer is (c)", "option 3", "choose d", "predict emotion: 2".
_ANNOUNCED = re.compile(
    rf"(?:\b(?:(?:predict(?:ed|s)?[\s_]+)?emotion|prediction|answer|option|choice|label|letter|class)\b"
    rf"{_CLOSE}\s*(?:\bis\b\s*:?|:|=>?|->)|<(?:final[ _])?answer>|\bboxed(?={{)|"
    r"\b(?:choose|chose|select|pick|go with|option|choice)\b)"
    rf"\s*(?:{_NOUN}\s*)?{_OPEN}{_MARK}{_CLOSE}(?![\w'%/]|\.\d)"
)
_HEAD = re.compile(rf"[^\S\n]*(?:{_NOUN}\s*)?{_OPEN}{_MARK}(?:{_CLOSE}\s*[.):,;\]]|{_CLOSE}\s*(?:\n|$))(?!\d)", re.M)
# Marks alone: "A and C".
_SEVERAL = re.compile(rf"\s*{_OPEN}{_MARK}{_CLOSE}(?:\s*(?:,|/|&|\+|\band\b|\bor\b)\s*{_OPEN}[a-z\d]{_CLOSE})+[\s.]*$")
_FURTHER = re.compile(rf"[\s.)]*(?:,|/|&|\+|\band\b|\bor\b)\s*(?:{_NOUN}\s*)?{_OPEN}{_MARK}{_CLOSE}(?=[\s.,;)]|$)")
_DENIED = re.compile(r"(?:\bnot|\bnever|\bn't|\bneither)\s*(?:the\s+)?$")


def chosen_option(plain: str, num_options: int) -> tuple[int, ...]:
    """Indices (from 0) of the options that an answer in lower case names by letter or number."""
    announced = [
        _with_further(plain, match, num_options)
        for match in _ANNOUNCED.finditer(plain)
        if not _DENIED.search(plain[: match.start("mark")].rstrip("\"'([{<"))
    ]
    found = {index for indices in announced for index in indices}
    if not found:
        text = plain.strip()
        head = _SEVERAL.match(text) or _HEAD.match(text)
        if head:
            # Further lines that open with a mark of the same kind repeat the list; numbers below a letter count
            # reasons.
            lines = (match for match in _HEAD.finditer(text, head.end()) if text[: match.start()].endswith("\n"))
            heads = [head, *lines]
            same_kind = [match for match in heads if match["mark"].isdigit() == head["mark"].isdigit()]
            found = {index for match in same_kind for index in _with_further(text, match, num_options)}
    return tuple(sorted(found))


def option_marks(labels: Sequence[str], style: str = "letters") -> list[str]:
    """Options as a question lists them: `(a) awe` (ValueError if letters run out), or `1. awe` with style `numbers`."""
    if style not in ("letters", "numbers"):
        raise ValueError(f"style must be 'letters' or 'numbers', got '{style}'")
    if style == "letters" and len(labels) > len(string.ascii_lowercase):
        raise ValueError(f"{len(labels)} options are too many for letters; use numbers")
    marks = [f"({letter})" for letter in string.ascii_lowercase] if style == "letters" else None
    return [f"{marks[i] if marks else f'{i + 1}.'} {label}" for i, label in enumerate(labels)]


def _with_further(plain: str, match: re.Match[str], num_options: int) -> list[int]:
    """The option of a match and the options joined to it: "A and C"."""
    indices = [_index(match["mark"], num_options)]
    position = match.end("mark")
    while further := _FURTHER.match(plain, position):
        indices.append(_index(further["mark"], num_options))
        position = further.end("mark")
    return [index for index in indices if index is not None]


def _index(mark: str, num_options: int) -> int | None:
    index = int(mark) - 1 if mark.isdigit() else ord(mark) - ord("a")
    return index if 0 <= index < num_options else None
