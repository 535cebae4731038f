"""Read the confidence that an answer states, a number from 0 to 1 or a percentage."""

from __future__ import annotations

import re

from lavis_emovit.emotion.label_set import folded
from lavis_emovit.emotion.templates import confidence_text

# Neither a part of a longer number, nor "8/10".
_NUMBER = (
    r"(?P<number>\d+(?:\.\d+)?|\.\d+)(?![\d,]|\.\d|\s*/\s*(?!1(?:\.0+)?\b|100\b)\d)"
    r"(?P<unit>\s*(?:%|percent\b|/\s*100\b|out\s+of\s+100\b))?"
)
_RANGE = re.compile(r"\s*(?:-|\u2013|to\b|or\b)\s*\.?\d")
_TIED = re.compile(
    r"\b(?:confidence|certainty|probability|likelihood)\b(?:\s+(?:score|level|value|rating|that\s+\w[^.:=]{0,60}?))?"
    rf"[\"'*\s]*(?:\(0\s*(?:to|-)\s*1\)\s*)?(?:[:=]|\bis\b|\bof\b)*[\"'*\s]*(?:about\s+|around\s+|~\s*)?{_NUMBER}"
)
_SURE = re.compile(rf"{_NUMBER}\s+(?:confident|sure|certain|confidence|certainty)\b")
_ALONE = re.compile(rf"\s*{_NUMBER}\s*\.?\s*")
_LINE = re.compile(
    r"[.;,]?\s*\bconfidence(?:\s+(?:score|level))?\s*[:=][^\n]*|<confidence>.*?(?:</confidence>|\Z)", re.I | re.S
)


def read_confidence(text: str) -> float | None:
    """The confidence in `<confidence>`, "Confidence: 0.8", "Confidence: 80 %" or "80% sure"; else None.

    None for a number outside of 0 to 1 (or 100 %), a range, and several different numbers.
    """
    tagged = confidence_text(text)
    plain = folded(text if tagged is None else tagged)
    if tagged is not None and (alone := _ALONE.fullmatch(plain)):
        return _value(alone)
    found = [*_TIED.finditer(plain), *_SURE.finditer(plain)]
    if any(_RANGE.match(plain, match.end()) for match in found):
        return None
    values = {_value(match) for match in found}
    return values.pop() if len(values) == 1 else None


def without_confidence(text: str) -> str:
    """An answer without the part that states its confidence, for readers of labels and options."""
    return _LINE.sub("", text)


def _value(match: re.Match[str]) -> float | None:
    number = float(match["number"])
    value = number / 100 if match["unit"] else number
    return value if 0.0 <= value <= 1.0 else None
