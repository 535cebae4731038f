"""Personas from a file: who answers, as an id and the text before the question.

The file is a list of objects with `id` and `text` as JSON or YAML, or a table (CSV) with these two columns, in UTF-8.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lavis_emovit.emotion.questions import PERSONAS
from lavis_emovit.files import load_json, load_yaml, regular_file
from lavis_emovit.outside import table_rows
from lavis_emovit.paths import expand_home
from lavis_emovit.settings import nearest_name

_KEYS = ("id", "text")
_ENDINGS = (".json", ".yaml", ".yml", ".csv")
NO_PERSONA = "none"


def read_personas(name: str) -> dict[str, str]:
    """Id -> text before the question, in the order of the file.

    Raises:
        ValueError: the file cannot be read, is empty, repeats an id, or has an entry without an id or a text.
    """
    path = Path(name)
    if path.suffix.lower() not in _ENDINGS:
        known = f"; for the persona '{name}', write a list: [none, {name}]" if name in PERSONAS else ""
        raise ValueError(f"'{name}' is no file of personas ({', '.join(_ENDINGS)}){known}")
    try:
        text = regular_file(expand_home(path)).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: the file of personas cannot be read ({error.strerror}); check its path") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: the file of personas is not UTF-8 text") from None
    found: dict[str, str] = {}
    for place, entry in _entries(path, text):
        persona, opening = _checked(f"{path}: {place}", entry)
        if persona in found:
            raise ValueError(f"{path}: {place}: the id '{persona}' is already used; ids must be unique")
        found[persona] = opening
    if not found:
        raise ValueError(f"{path}: the file has no personas; write some, each with an id and a text")
    return found


def _entries(path: Path, text: str) -> Iterable[tuple[str, Any]]:
    """Each entry with its place in the file."""
    if path.suffix.lower() == ".csv":
        reader = table_rows(text)
        try:
            return [(f"line {reader.line_num}", row) for row in reader]
        except csv.Error as error:
            raise ValueError(f"{path}: line {reader.line_num} is no row of a table ({error})") from None
    try:
        content = load_json(text, unique_keys=True) if path.suffix.lower() == ".json" else load_yaml(text)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if content is None or isinstance(content, list):
        return [(f"entry {number}", entry) for number, entry in enumerate(content or ())]
    raise ValueError(f"{path}: is no list of personas, each with an id and a text (got {content!r:.60})")


def _checked(place: str, entry: Any) -> tuple[str, str]:
    """Id and text of an entry."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{place} is no object with id and text (got {entry!r:.60})")
    if strays := [key for key in entry if key not in _KEYS]:
        hint = nearest_name(str(strays[0]), list(_KEYS))
        raise ValueError(f"{place}: unknown key {strays[0]!r}{hint}; keep id and text")
    for key in _KEYS:
        value = entry.get(key)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            raise ValueError(f"{place}: has no {key} (got {value!r:.60})")
    persona = str(entry["id"]).strip()
    if persona == NO_PERSONA or len(persona.splitlines()) > 1:
        raise ValueError(f"{place}: the id {persona!r:.60} must be one line, and not 'none', which is no persona")
    return persona, " ".join(str(entry["text"]).split())
