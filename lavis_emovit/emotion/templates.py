"""The form of an answer: which parts it has, how a question asks for them, and how an answer is taken apart.

Instruction data, reinforcement learning and evaluation take their templates from here, so all of them write and read
the same form. A template is data: named parts in their order, each in marks of its own (`<answer>...</answer>`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator

from lavis_emovit.errors import DataError
from lavis_emovit.outside import without_thoughts
from lavis_emovit.settings import nearest_name

BOXED = "boxed"
"""The tag of a part that is written as `\\boxed{...}`, as in answers to problems of mathematics."""
_BOXED = r"\\boxed\{(?P<boxed>(?:[^{}]|\{[^{}]*\})*)\}"


@dataclass(frozen=True)
class Part:
    """A part of an answer.

    Attributes:
        tag: of its marks; empty for an answer that is one part without marks.
        content: what the question says about it.
        parts: parts inside, between the marks of this one, which then has no text of its own.
    """

    name: str
    tag: str
    content: str
    parts: tuple[Part, ...] = ()

    @property
    def opens(self) -> str:
        return "\\boxed{" if self.tag == BOXED else f"<{self.tag}>" if self.tag else ""

    @property
    def closes(self) -> str:
        return "}" if self.tag == BOXED else f"</{self.tag}>" if self.tag else ""

    def leaves(self) -> Iterator[Part]:
        for part in self.parts:
            yield from part.leaves()
        if not self.parts:
            yield self


@dataclass(frozen=True)
class AnswerParts:
    """An answer that was taken apart.

    Attributes:
        parts: name of a part -> its text, for every part that was found. The text of a part that occurs several times
            contains all of them, one a line, so that a reader sees a contradiction.
        problem: why the answer does not have the form of the template, None if it has.
    """

    parts: Mapping[str, str]
    problem: str | None

    @property
    def status(self) -> Literal["complete", "malformed"]:
        return "complete" if self.problem is None else "malformed"


@dataclass(frozen=True)
class AnswerTemplate:
    """The parts of an answer, in their order. Names of parts are unique."""

    name: str
    parts: tuple[Part, ...]
    source: str = field(default="", compare=False)

    @functools.cached_property
    def leaves(self) -> tuple[Part, ...]:
        """The parts that contain text."""
        return tuple(leaf for part in self.parts for leaf in part.leaves())

    @functools.cached_property
    def part_names(self) -> tuple[str, ...]:
        return tuple(leaf.name for leaf in self.leaves)

    def instruction(self) -> str:
        """What is added to a question so that it asks for this form; empty for an answer without marks."""
        if not any(part.tag for part in self.parts):
            return ""
        return "\n".join(["Write these parts in this order, and nothing else:", *_lines(self.parts, "")])

    def write(self, contents: Mapping[str, str]) -> str:
        """An answer in this form. DataError if the contents are not those of its parts, or `take_apart` differs."""
        if set(contents) != set(self.part_names):
            raise DataError(
                f"template '{self.name}' has the parts {', '.join(self.part_names)}, "
                f"got {', '.join(contents) or 'none'}"
            )
        text = "\n".join(_written(part, contents) for part in self.parts)
        found = self.take_apart(text)
        if found.problem is not None or any(found.parts[name] != contents[name].strip() for name in contents):
            problem = found.problem or "it cannot be read back"
            raise DataError(f"an answer of the template '{self.name}': {problem}; a part must not contain marks")
        return text

    def take_apart(self, text: str) -> AnswerParts:
        """The parts of an answer, and whether it has exactly this form: every part once, in order, with a text."""
        if not any(part.tag for part in self.parts):
            (part,) = self.parts
            return AnswerParts({part.name: text.strip()}, None if text.strip() else "it is empty")
        marks = list(self._pattern.finditer(text))
        parts = self._found(text, marks)
        return AnswerParts(MappingProxyType(parts), self._problem(text, marks, parts))

    @functools.cached_property
    def _expected(self) -> tuple[str, ...]:
        return tuple(mark for part in self.parts for mark in _marks_of(part))

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        tags = "|".join(re.escape(mark[1:-1].removeprefix("/")) for mark in self._expected if mark != BOXED)
        return re.compile(
            "|".join(([_BOXED] if BOXED in self._expected else []) + ([rf"</?(?:{tags})>"] if tags else []))
        )

    def _found(self, text: str, marks: list[re.Match[str]]) -> dict[str, str]:
        found: dict[str, list[str]] = {}
        by_mark = {leaf.opens: leaf for leaf in self.leaves}
        for number, mark in enumerate(marks):
            if _name_of(mark) == BOXED:
                found.setdefault(next(leaf.name for leaf in self.leaves if leaf.tag == BOXED), []).append(mark[BOXED])
            elif leaf := by_mark.get(mark[0]):
                # A part without its closing mark ends at the next mark.
                end = marks[number + 1].start() if number + 1 < len(marks) else len(text)
                found.setdefault(leaf.name, []).append(text[mark.end() : end])
        return {name: "\n".join(map(str.strip, texts)) for name, texts in found.items()}

    def _problem(self, text: str, marks: list[re.Match[str]], parts: Mapping[str, str]) -> str | None:
        names = [_name_of(mark) for mark in marks]
        if tuple(names) != self._expected:
            for name in dict.fromkeys(self._expected):
                if (count := names.count(name)) != 1:
                    shown = "\\boxed{}" if name == BOXED else name
                    return f"{shown} is missing" if count == 0 else f"{shown} occurs {count} times"
            return f"its marks are in another order: {' '.join(names)}"
        for name in self.part_names:
            if not parts[name]:
                return f"part '{name}' is empty"
        opens = {leaf.opens for leaf in self.leaves}
        begin = 0
        for mark, name in zip(marks, names):
            # What precedes a closing mark of a leaf is its text.
            is_text = name.startswith("</") and name.replace("/", "", 1) in opens
            if not is_text and (outside := text[begin : mark.start()].strip()):
                return f"text outside its parts: '{outside[:60]}'"
            begin = mark.end()
        return f"text outside its parts: '{text[begin:].strip()[:60]}'" if text[begin:].strip() else None


def _marks_of(part: Part) -> Iterator[str]:
    if part.tag == BOXED:
        yield BOXED
        return
    yield part.opens
    for inner in part.parts:
        yield from _marks_of(inner)
    yield part.closes


def _name_of(mark: re.Match[str]) -> str:
    return BOXED if mark[0].startswith("\\") else mark[0]


def _lines(parts: tuple[Part, ...], indent: str) -> Iterator[str]:
    for part in parts:
        if part.parts:
            yield f"{indent}{part.opens}"
            yield from _lines(part.parts, indent + "  ")
            yield f"{indent}{part.closes}"
        else:
            yield f"{indent}{part.opens}{part.content}{part.closes}"


def _written(part: Part, contents: Mapping[str, str]) -> str:
    inside = "\n".join(_written(inner, contents) for inner in part.parts)
    return f"{part.opens}\n{inside}\n{part.closes}" if part.parts else f"{part.opens}{contents[part.name]}{part.closes}"


# ---- The templates ----------------------------------------------------------------------------------------------

_ANSWER = Part("answer", "answer", "the emotion, one word")

DIRECT = AnswerTemplate("direct", (Part("answer", "", "the emotion"),), "the answer alone")
THINK_ANSWER = AnswerTemplate(
    "think_answer",
    (Part("reasoning", "think", "what in the image leads to the emotion, step by step"), _ANSWER),
    "reasoning before the answer, as in DeepSeek-R1 (arXiv 2501.12948)",
)
EMO_R3 = AnswerTemplate(
    "emo_r3",
    (
        Part("trigger", "step1", "what is visible in the image that can move a viewer"),
        Part("feeling", "step2", "how a person feels in front of it, and why"),
        Part("affect", "step3", "whether the feeling is positive or negative, and calm or excited"),
        Part("answer", BOXED, "the emotion, one word"),
    ),
    "structured emotional thinking in three steps, EMO-R3 (arXiv 2602.23802)",
)
EMOCALIBER = AnswerTemplate(
    "emocaliber",
    (
        Part(
            "reasoning",
            "think",
            "",
            (
                Part("element", "element", "colors, light and composition"),
                Part("human", "human", "people, their faces and postures, or 'none'"),
                Part("context", "context", "place, time and occasion"),
                Part("interaction", "interaction", "what people and things do with each other"),
                Part("analysis", "analysis", "how these together lead to an emotion"),
            ),
        ),
        _ANSWER,
        Part("confidence", "confidence", "the probability that this emotion is right, a number between 0 and 1"),
    ),
    "elements of an image, an answer and a confidence, EmoCaliber (arXiv 2512.15528)",
)
ANSWER_CONFIDENCE = AnswerTemplate(
    "answer_confidence",
    (_ANSWER, Part("confidence", "confidence", "the probability that it is right, a number between 0 and 1")),
    "an answer and how sure it is, without reasoning",
)
ACTION_UNITS = AnswerTemplate(
    "action_units",
    (
        Part(
            "reasoning", "think", "the active facial action units by number, such as AU12, and what they mean together"
        ),
        Part("answer", "answer", "the expression, one word"),
    ),
    "reasoning about action units, Facial-R1 (arXiv 2511.10254)",
)
TREE = AnswerTemplate(
    "tree",
    (
        Part("attributes", "attributes", "place, things and actions in the image, separated by commas"),
        Part("expression", "expression", "the expressions of the faces, separated by commas, or 'none'"),
        _ANSWER,
    ),
    "attributes, expression and emotion, the levels of VidEmo (NeurIPS 2025)",
)
TEMPLATES = {one.name: one for one in (DIRECT, THINK_ANSWER, EMO_R3, EMOCALIBER, ANSWER_CONFIDENCE, ACTION_UNITS, TREE)}


def get_template(name: str) -> AnswerTemplate:
    """A template by name. DataError for an unknown one."""
    if name not in TEMPLATES:
        raise DataError(f"unknown answer template '{name}'{nearest_name(name, list(TEMPLATES))}")
    return TEMPLATES[name]


# Type of a setting that names a template.
TemplateName = Annotated[str, AfterValidator(lambda name: get_template(name) and name)]


# ---- Reading an answer of any template --------------------------------------------------------------------------

_REASONING_TAGS = sorted({
    tag for one in TEMPLATES.values() for part in one.parts for tag in (part.tag, *(inner.tag for inner in part.parts))
} - {"answer", "confidence", BOXED, ""})  # fmt: skip
_ANSWER_PART = re.compile(r"<answer>(.*?)(?:</answer>|(?=<answer>)|\Z)", re.DOTALL | re.IGNORECASE)
_CONFIDENCE_PART = re.compile(r"<confidence>(.*?)(?:</confidence>|\Z)", re.DOTALL | re.IGNORECASE)
_REASONING_PART = re.compile(rf"<({'|'.join(_REASONING_TAGS)})>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_BOXED_PART = re.compile(_BOXED)
_ANY_MARK = re.compile(rf"</?(?:answer|confidence|{'|'.join(_REASONING_TAGS)})>", re.IGNORECASE)


@functools.lru_cache(maxsize=4096)
def answer_text(text: str) -> str:
    """The part of an answer that states the result, without a template: for readers of labels and numbers.

    It is what `<answer>` contains, else what `\\boxed{}` contains, else everything but the parts of reasoning and
    confidence. Several of them are all returned, one a line, so that readers see a contradiction. Marks inside the
    reasoning do not count, if the reasoning has an end.
    """
    rest = _after_thoughts(text)
    found = _results(rest)
    if not found and rest != text and "</think>" not in text:
        found = _results(text)  # reasoning without an end, but with a result
    if found:
        return "\n".join(found).strip()
    return _CONFIDENCE_PART.sub(" ", _REASONING_PART.sub(" ", rest)).strip() if "<" in rest else rest.strip()


def _results(text: str) -> list[str]:
    return ([match[1] for match in _ANSWER_PART.finditer(text)] if "<" in text else []) or (
        [match[BOXED] for match in _BOXED_PART.finditer(text)] if "\\" in text else []
    )


def _after_thoughts(text: str) -> str:
    # The common mark is searched first, because a pattern takes a hundred times as long.
    rest = text.rpartition("</think>")[2]
    return without_thoughts(rest) if "<" in rest or "[" in rest or "\u25c1" in rest else rest


@functools.lru_cache(maxsize=4096)
def reasoning_text(text: str) -> str:
    """What precedes the result of an answer, without marks; empty for an answer without marks."""
    if "<" not in text and "\\" not in text:
        return ""
    if _results(text):
        rest = _BOXED_PART.sub(" ", _CONFIDENCE_PART.sub(" ", _ANSWER_PART.sub(" ", text)))
    elif "</think>" in text:
        rest = text.rpartition("</think>")[0]
    else:
        rest = " ".join(match[0] for match in _REASONING_PART.finditer(text))
    return _ANY_MARK.sub(" ", rest).strip()


def whole_text(text: str) -> str:
    """An answer without its marks."""
    return _ANY_MARK.sub(" ", text).strip() if "<" in text else text.strip()


def confidence_text(text: str) -> str | None:
    """What `<confidence>` contains after the reasoning; all of them, one a line; None without one."""
    found = [match[1] for match in _CONFIDENCE_PART.finditer(text.rpartition("</think>")[2])]
    return "\n".join(found).strip() if found else None
