"""JSON in replies: its schema, and the values in a reply, which may be bare, in a code fence, or between other words.

Malformed JSON is not repaired.
"""

from __future__ import annotations

import json
import re
from typing import Any

from lavis_emovit.files import load_json, with_unique_keys
from lavis_emovit.outside import without_thoughts

_FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\r?\n(.*?)(?:\r?\n[ \t]*```|\Z)", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
# The escape of half of a surrogate pair; an even number of backslashes in front of it is text.
_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF_CHARACTER = re.compile(rf"(?<!\\)((?:\\\\)*)(?:({_HIGH}{_LOW})|{_HIGH}|{_LOW})")
# Prose has a few brackets; a long row of them is nonsense.
_MAX_OPENINGS = 20


def object_schema(**properties: Any) -> dict[str, Any]:
    """JSON schema of an object: endpoints want all keys required and no others allowed."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def bare_reply(text: str) -> str:
    """The reply without reasoning, byte order mark and surrounding blanks."""
    return without_thoughts(text.lstrip("\ufeff")).strip()


def without_fences(text: str) -> str:
    """The text without the lines of code fences; their content stays."""
    return re.sub(r"(?m)^[ \t]*```[ \t]*[\w+-]*[ \t]*$", "", text).strip()


def find_json(text: str) -> Any | None:
    """The one JSON object of a reply, or its one list if it has no object; None without one.

    None also for several different ones: of a draft and an answer, or an example and an answer, none is certain.
    """
    values = json_values(text)
    found = [value for value in values if isinstance(value, dict)] or values
    return found[0] if found and all(value == found[0] for value in found) else None


def json_values(text: str) -> list[Any]:
    """All JSON objects and lists of a reply, in order.

    They are the whole text, else those in code fences, else those between other words. An object with a repeated key is
    none, because Python would keep only one of its values. Half of a surrogate pair, which no file can contain, becomes
    the replacement character.
    """
    text = _HALF_CHARACTER.sub(lambda found: found[1] + (found[2] or r"\ufffd"), bare_reply(text))
    try:
        value = load_json(text, unique_keys=True)
    except ValueError:
        fences = [value for match in _FENCE.finditer(text) for value in _values_in(match.group(1))]
        return fences or _values_in(text)
    return [value] if isinstance(value, (dict, list)) else []


def _values_in(text: str) -> list[Any]:
    """The JSON objects and lists between other words, one after the other."""
    decoder = json.JSONDecoder(object_pairs_hook=with_unique_keys)
    values, position, num_failed = [], 0, 0
    while num_failed < _MAX_OPENINGS and (match := _OPENING.search(text, position)):
        position = match.end()
        try:
            value, position = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            num_failed += 1
            continue
        values += [value] if value else []
    return values
