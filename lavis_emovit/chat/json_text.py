"""Finds a JSON value in a reply: bare, in a code fence, or between other words. Malformed JSON is not repaired."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

from lavis_emovit.files import load_json
from lavis_emovit.outside import without_thoughts

_FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\r?\n(.*?)(?:\r?\n[ \t]*```|\Z)", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
# Prose has a few brackets; a long row of them is nonsense.
_MAX_OPENINGS = 20


def bare_reply(text: str) -> str:
    """The reply without reasoning, byte order mark and surrounding blanks."""
    return without_thoughts(text.lstrip("\ufeff")).strip()


def without_fences(text: str) -> str:
    """The text without the lines of code fences; their content stays."""
    return re.sub(r"(?m)^[ \t]*```[ \t]*[\w+-]*[ \t]*$", "", text).strip()


def find_json(text: str) -> Any | None:
    """The first JSON object or list of a reply, or None.

    Tries the whole text, then the content of code fences, then the text from each opening bracket on.
    """
    text = bare_reply(text)
    for candidate in (text, *(match.group(1) for match in _FENCE.finditer(text))):
        try:
            value = load_json(candidate)
        except ValueError:
            continue
        if isinstance(value, (dict, list)):
            return value
    decoder = json.JSONDecoder()
    for match in islice(_OPENING.finditer(text), _MAX_OPENINGS):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if value:
            return value
    return None
