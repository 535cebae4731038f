"""Reading what a model wrote: JSON where it kept to it, else the ways in which models write questions and answers.

The reader takes what is there and invents nothing. What it cannot read is named as a problem with its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lavis_emovit.chat.json_text import find_json, without_fences, without_thoughts

_ROLES = r"simple|complex|basic|advanced|first|second|third|fourth|final|last|follow[- ]?up|reasoning|bonus"
_NUMBER = r"(?:\s*#?\s*(?:\d+|one|two|three|four|i{1,3}))?"
# "Question 1:", "**Complex Question:**", "### Q2.", "- Answer (simple):", and a bare "Complex question" as a heading.
_MARKER = re.compile(
    rf"^[ \t]*(?:[#>*\-\u2022]+[ \t]*)?(?:\(?\d+[.)][ \t]*)?[*_]*(?:(?P<role>{_ROLES})[ \t]+)?"
    rf"(?P<kind>questions?|answer|q|a){_NUMBER}[ \t]*(?:\([^)\n]*\))?[ \t]*[*_]*[ \t]*"
    rf"(?:(?P<end>[:.\u2013\u2014-]|\))[ \t]*[*_]*[ \t]*(?P<rest>.*))?$",
    re.IGNORECASE,
)
# "... a cat. Answer 1: ...", all on one line: only behind the end of a sentence, and not behind the "1." of a list.
_INLINE = re.compile(
    rf"(?<=[^\d\s][.!?*)\"\u201d])[ \t]+(?=[*_]*(?:(?:{_ROLES})[ \t]+)?(?:question|answer){_NUMBER}[ \t]*[*_]*:)",
    re.IGNORECASE,
)
# "1. What is there?" on a line of its own, for replies that name neither questions nor answers.
_NUMBERED_QUESTION = re.compile(r"^[ \t]*[*_]*\(?\d+[.)][*_]*[ \t]*(?P<text>.*\?)[*_ \t]*$")
_KEYS = {"question": "question", "q": "question", "answer": "answer", "a": "answer"}
_RULE = re.compile(r"^[ \t]*(?:[-*_=]{3,}|#+[^?]*)[ \t]*$")
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Pair:
    """A question and its answer, as the model gave them."""

    question: str
    answer: str


@dataclass
class Reading:
    """What a reply holds, and what in it could not be read."""

    pairs: list[Pair] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_pairs(text: str) -> Reading:
    """All questions and answers of a reply, in order.

    JSON: every object with a question and an answer, however deep. Text: marked questions and answers (numbered or not,
    "Complex question", several lines, bold, in code fences), or numbered questions with the answer below.
    """
    text = without_thoughts(text)
    value = find_json(text)
    if value is not None:
        reading = Reading()
        _collect(value, reading)
        if reading.pairs or reading.problems:
            return reading
    lines = _INLINE.sub("\n", without_fences(text)).split("\n")
    found = _read_marked(lines) or _read_numbered(lines)
    if found is None or not (found.pairs or found.problems):
        return Reading(problems=[f"no question and answer found: {_shown(text)}"])
    return found


def read_text(text: str, key: str) -> Reading:
    """A reply that is one text under a key of an object, or nothing but the text itself.

    Returns:
        a reading with one pair, whose question is empty; or with a problem.
    """
    text = without_thoughts(text)
    value = find_json(text)
    if isinstance(value, dict):
        found = {name.casefold(): item for name, item in value.items()}.get(key)
        if isinstance(found, str) and found.strip():
            return Reading([Pair("", _tidy(found))])
        return Reading(problems=[f"no text under '{key}': {_shown(text)}"])
    bare = _tidy(re.sub(rf"^[*_ \t]*{key}[*_ \t]*:[*_ \t]*", "", without_fences(text), flags=re.IGNORECASE))
    if value is not None or not bare or bare.startswith(("{", "[")):
        return Reading(problems=[f"no text under '{key}': {_shown(text)}"])
    return Reading([Pair("", bare)])


def _collect(value: Any, reading: Reading) -> None:
    if isinstance(value, list):
        for item in value:
            _collect(item, reading)
        return
    if not isinstance(value, dict):
        return
    parts: dict[str, Any] = {}
    for name, item in value.items():
        key = _KEYS.get(str(name).strip().casefold())
        if key is not None:
            parts[key] = item
    if not parts:
        for item in value.values():
            _collect(item, reading)
        return
    question, answer = parts.get("question"), parts.get("answer")
    if isinstance(question, dict) and answer is None:
        _collect(question, reading)
    elif isinstance(question, str) and isinstance(answer, str) and question.strip() and answer.strip():
        reading.pairs.append(Pair(_tidy(question), _tidy(answer)))
    else:
        missing = "answer" if isinstance(question, str) and question.strip() else "question"
        reading.problems.append(f"an object without {missing}: {_shown(str(value))}")


def _read_marked(lines: list[str]) -> Reading | None:
    """Questions and answers behind their markers; None where there is no marker."""
    parts = list(_marked_parts(lines))
    if not parts:
        return None
    reading = Reading()
    question: str | None = None
    for kind, text in parts:
        if kind == "question":
            if question:
                reading.problems.append(f"a question without answer: {_shown(question)}")
            # "Complex question:" and "Question:" one after the other are one question.
            question = text
        elif question:
            if text:
                reading.pairs.append(Pair(question, text))
            else:
                reading.problems.append(f"a question without answer: {_shown(question)}")
            question = None
        else:
            reading.problems.append(f"an answer without question: {_shown(text)}")
    if question:
        reading.problems.append(f"a question without answer: {_shown(question)}")
    return reading


def _marked_parts(lines: list[str]) -> Iterator[tuple[str, str]]:
    kind: str | None = None
    content: list[str] = []
    for line in lines:
        marker = _MARKER.match(line)
        if marker and not _is_marker(marker):
            marker = None
        if marker is None:
            if kind is not None and not _RULE.match(line):
                content.append(line)
            continue
        if kind is not None:
            yield kind, _tidy("\n".join(content))
        kind = "answer" if marker["kind"].lower() in ("a", "answer") else "question"
        content = [marker["rest"] or ""]
    if kind is not None:
        yield kind, _tidy("\n".join(content))


def _is_marker(marker: re.Match[str]) -> bool:
    """Whether a line that looks like a marker is one: "A. ..." may be a choice, "a - ..." a word."""
    word, end = marker["kind"], marker["end"]
    if word.lower() in ("q", "a"):
        return word.isupper() and (end == ":" or (end in (".", ")") and bool(re.search(r"[QA]\s*\d", marker.group()))))
    if word.lower() == "questions":
        return end is None or not (marker["rest"] or "").strip()
    if end is None:
        return True
    return end == ":" or bool(re.search(rf"{word}\s*#?\s*\d", marker.group(), re.IGNORECASE)) or not marker["rest"]


def _read_numbered(lines: list[str]) -> Reading | None:
    """Numbered questions with their answers in the lines below."""
    reading = Reading()
    question: str | None = None
    content: list[str] = []
    found = False
    for line in [*lines, None]:
        match = _NUMBERED_QUESTION.match(line) if line is not None else None
        if line is not None and match is None:
            content.append(re.sub(r"^[ \t]*[-*\u2022][ \t]+", "", line))
            continue
        if question is not None:
            answer = _tidy("\n".join(content))
            if answer:
                reading.pairs.append(Pair(question, answer))
            else:
                reading.problems.append(f"a question without answer: {_shown(question)}")
        found = found or match is not None
        question, content = (_tidy(match["text"]) if match else None), []
    return reading if found else None


def _tidy(text: str) -> str:
    """Without bold marks, quotes around all of it, and blanks that mean nothing."""
    text = re.sub(r"(\*\*|__)(.+?)\1", r"\2", text, flags=re.DOTALL).strip().strip("*").strip()
    text = re.sub(r"[ \t]*\n[ \t]*(?:\n[ \t]*)+", "\n\n", text)
    text = re.sub(r"[ \t]*(?<!\n)\n(?!\n)[ \t]*", " ", text)
    text = re.sub(r"[ \t]+", " ", text)
    if len(text) > 1 and text[0] + text[-1] in ('""', "\u201c\u201d") and text.count(text[0]) <= 2:
        text = text[1:-1].strip()
    return text


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
