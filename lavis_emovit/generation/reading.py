"""Schemas of replies, and readers: JSON, or questions and answers as models write them in plain text.

A reader never invents content. It reports text that it cannot read as a problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lavis_emovit.chat.json_text import bare_reply, find_json, json_values, without_fences

_ROLES = r"simple|complex|basic|advanced|first|second|third|fourth|final|last|follow[- ]?up|reasoning|bonus"
_NUMBER = r"(?:\s*#?\s*(?:\d+|one|two|three|four|i{1,3}))?"
# "Question 1:", "**Complex Question:**", "### Q2.", "- Answer (simple):", and a bare "Complex question" as a heading.
_MARKER = re.compile(
    rf"^[ \t]*(?:[#>*\-\u2022]+[ \t]*)?(?:\(?\d+[.)][ \t]*)?[*_]*(?:(?P<role>{_ROLES})[ \t]+)?"
    rf"(?P<kind>questions?|answer|q|a){_NUMBER}[ \t]*(?:\([^)\n]*\))?[ \t]*[*_]*[ \t]*"
    rf"(?:(?P<end>[:.\u2013\u2014-]|\))[ \t]*[*_]*[ \t]*(?P<rest>.*))?$",
    re.IGNORECASE,
)
# "... a cat. Answer 1: ..." on one line: only after the end of a sentence, and not after the "1." of a list.
_INLINE = re.compile(
    rf"(?<=[^\d\s][.!?*)\"\u201d])[ \t]+(?=[*_]*(?:(?:{_ROLES})[ \t]+)?(?:question|answer){_NUMBER}[ \t]*[*_]*:)",
    re.IGNORECASE,
)
# "1. What is there?" on a separate line, for replies without the words "question" and "answer".
_NUMBERED_QUESTION = re.compile(r"^[ \t]*[*_]*\(?\d+[.)][*_]*[ \t]*(?P<text>.*\?)[*_ \t]*$")
_KEYS = {"question": "question", "q": "question", "answer": "answer", "a": "answer"}
_RULE = re.compile(r"^[ \t]*(?:[-*_=]{3,}|#+[^?]*)[ \t]*$")
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Pair:
    question: str
    answer: str


@dataclass
class Reading:
    """The pairs of a reply, and its unreadable parts."""

    pairs: list[Pair] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_pairs(text: str) -> Reading:
    """All questions and answers of a reply, in order.

    JSON: every object with a question and an answer, at any depth. Text: marked questions and answers, or numbered
    questions followed by their answers.
    """
    text = bare_reply(text)
    reading = Reading()
    for value in json_values(text):
        _collect(value, reading)
    if reading.pairs or reading.problems:
        return reading
    lines = _INLINE.sub("\n", without_fences(text)).split("\n")
    reading = _pair_up(list(_marked_parts(lines)) or list(_numbered_parts(lines)))
    if not (reading.pairs or reading.problems):
        return Reading(problems=[f"no question and answer found: {_shown(text)}"])
    return reading


def read_text(text: str, key: str) -> Reading:
    """One text, under a key of an object or as plain text: a pair with an empty question, or a problem."""
    text = bare_reply(text)
    value = find_json(text)
    if isinstance(value, dict):
        found = {name.casefold(): item for name, item in value.items()}.get(key)
        if isinstance(found, str) and found.strip():
            return Reading([Pair("", _tidy(found))])
        return Reading(problems=[f"no text under '{key}': {_shown(text)}"])
    bare = _tidy(re.sub(rf"^[*_ \t]*{key}[*_ \t]*:[*_ \t]*", "", without_fences(text), flags=re.IGNORECASE))
    if json_values(text) or not bare or bare.startswith(("{", "[")):
        return Reading(problems=[f"no text under '{key}': {_shown(text)}"])
    return Reading([Pair("", bare)])


def _collect(value: Any, reading: Reading) -> None:
    items = value if isinstance(value, dict) else {}
    parts = {key: item for name, item in items.items() if (key := _KEYS.get(str(name).strip().casefold()))}
    if not parts:
        for item in value if isinstance(value, list) else items.values():
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


def _pair_up(parts: list[tuple[str, str]]) -> Reading:
    """Pairs from ("question", text) and ("answer", text), in order."""
    reading = Reading()
    question: str | None = None
    for kind, text in [*parts, ("question", "")]:
        if kind == "question" or (question and not text):
            if question:
                reading.problems.append(f"a question without answer: {_shown(question)}")
            # "Complex question:" directly before "Question:" is one question.
            question = text if kind == "question" else None
        elif question:
            reading.pairs.append(Pair(question, text))
            question = None
        else:
            reading.problems.append(f"an answer without question: {_shown(text)}")
    return reading


def _marked_parts(lines: list[str]) -> Iterator[tuple[str, str]]:
    kind: str | None = None
    content: list[str] = []
    for line in lines:
        marker = _MARKER.match(line)
        if marker is None or not _is_marker(marker):
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
    """Whether a line that looks like a marker is a marker: "A. ..." may be a choice, "a - ..." a word."""
    word, end = marker["kind"], marker["end"]
    if word.lower() in ("q", "a"):
        return word.isupper() and (end == ":" or (end in (".", ")") and bool(re.search(r"[QA]\s*\d", marker.group()))))
    if word.lower() == "questions":
        return end is None or not (marker["rest"] or "").strip()
    if end is None:
        return True
    return end == ":" or bool(re.search(rf"{word}\s*#?\s*\d", marker.group(), re.IGNORECASE)) or not marker["rest"]


def _numbered_parts(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Numbered questions, each with the lines below it as the answer."""
    question: str | None = None
    content: list[str] = []
    for line in [*lines, None]:
        match = _NUMBERED_QUESTION.match(line) if line is not None else None
        if line is not None and match is None:
            content.append(re.sub(r"^[ \t]*[-*\u2022][ \t]+", "", line))
            continue
        if question is not None:
            yield "question", question
            yield "answer", _tidy("\n".join(content))
        question, content = (_tidy(match["text"]) if match else None), []


def _tidy(text: str) -> str:
    """The text without bold marks, outer quotes and superfluous spaces."""
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
