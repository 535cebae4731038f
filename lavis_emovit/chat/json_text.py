"""Finding a JSON value in what a model wrote: bare, in a code fence, or between other words. Nothing is mended."""

from __future__ import annotations

import json
import re
from typing import Any

_FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\r?\n(.*?)(?:\r?\n[ \t]*```|\Z)", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
# Reasoning models of some endpoints think aloud first; what they think is no part of the answer.
_THOUGHT = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


def without_thoughts(text: str) -> str:
    """The reply behind a leading `<think>...</think>`, without a byte order mark and blanks around."""
    return _THOUGHT.sub("", text.lstrip("\ufeff"), count=1).strip()


def without_fences(text: str) -> str:
    """The text with the lines of code fences taken out, their content kept."""
    return re.sub(r"(?m)^[ \t]*```[ \t]*[\w+-]*[ \t]*$", "", text).strip()


def find_json(text: str) -> Any | None:
    """The first JSON object or list of a reply, or None.

    The whole text, then what stands in code fences, then what follows the first opening bracket from which a value can
    be read in full. A value that is cut off or malformed is not mended.
    """
    text = without_thoughts(text)
    for candidate in (text, *(match.group(1) for match in _FENCE.finditer(text))):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, (dict, list)):
            return value
    decoder = json.JSONDecoder()
    # A few openings are enough: prose holds some brackets, a long row of them is nonsense.
    for number, match in enumerate(_OPENING.finditer(text)):
        if number == 20:
            break
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if value:
            return value
    return None
