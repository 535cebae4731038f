"""Read valence, arousal and other numbers from a generated answer, strictly.

A number counts if it is tied to its name ("valence: 0.3", "0.3 for valence"), or if the answer contains nothing but as
many numbers as were requested. Ranges, two different numbers for one name, and words alone do not count.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lavis_emovit.emotion.answer_phrases import is_refusal, one_form, without_markup
from lavis_emovit.outside import without_thoughts

NumberStatus = Literal["ok", "invalid", "ambiguous", "refused"]

VALENCE_AROUSAL = ("valence", "arousal")
# Other words for a dimension.
SYNONYMS: Mapping[str, tuple[str, ...]] = {"valence": ("pleasantness", "pleasure"), "arousal": ("activation",)}

_NUMBER = r"[+-]?\s?(?:\d+(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?"
# Words allowed between a name and its number.
_LINK_WORDS = (
    "score|scores|value|values|level|rating|rate|rated|dimension|axis|is|are|was|at|of|about|approximately|approx|roughly|"
    "around|near|nearly|would|be|should|could|may|might|must|estimated|estimate|estimates|predicted|prediction|equals|"
    "equal|to|likely|probably|seems|appears|slightly|mildly|moderately|highly|very|fairly|quite|rather|strongly|somewhat|"
    "positive|negative|neutral|high|low|medium|moderate|i|it|as|an|a|the|my|minus|plus"
)
_LINK = rf"(?:\s|[:=,(\[\"'~$\\]|->|\b(?:{_LINK_WORDS})\b\.?)*?"
_SCALE_NOTE = r"(?:\s*[\"']?\s*[(\[][^()\[\]]{0,40}?(?:to|\.\.|,|/|scale|-)[^()\[\]]{0,40}[)\]])?"
_AFTER = re.compile(
    r"\s*[)\]\"']*\s*(?:(?:/|\bout of\b)\s*(?P<of>\d+(?:\.\d+)?)|(?P<percent>%|percent\b)|"
    r"(?:\([^)]*\)\s*)?(?P<range>(?:to|through|or|-|\.\.+|\band(?! \w+ (?:is|of)\b))\s*[+-]?\.?\d))"
)


@dataclass(frozen=True)
class NumberAnswer:
    value: float | None  # None unless the status is `ok`
    # `ok`; `invalid`: no number, or one off the scale; `ambiguous`: several numbers, a range, or a word that
    # contradicts the sign; `refused`: the answer declines to give one.
    status: NumberStatus


def read_numbers(
    text: str, names: Sequence[str] = VALENCE_AROUSAL, scale: tuple[float, float] = (-1.0, 1.0)
) -> dict[str, NumberAnswer]:
    """Read the requested numbers from an answer: name -> number, for each of `names`.

    Args:
        names: the requested quantities, in the order of the question.
        scale: lower and upper end of the question's scale, such as (1, 9).
    """
    if not scale[0] < scale[1]:
        raise ValueError(f"a scale is given as (lower end, upper end), got {scale}")
    text = re.sub("[\u2212\u2010-\u2015]", "-", without_thoughts(one_form(text).casefold()))
    plain = without_markup(text.replace("\u2248", "~"))
    bare = _bare_numbers(plain, len(names))
    # "V: 0.3, A: -0.2". A single "A:" only opens an answer.
    letters = len(names) > 1 and all(re.search(_lettered(name), plain) for name in names)
    plain, together = _joined_numbers(plain, names)
    refused = is_refusal(plain)
    answers = {}
    for i, name in enumerate(names):
        found: list[float | NumberStatus] = [bare[i]] if bare else [values[name] for values in together]
        if not bare:
            found += _numbers_of(plain, name, scale, letters)
        answers[name] = _answer(found, refused, scale)
    return answers


def _answer(found: Sequence[float | NumberStatus], refused: bool, scale: tuple[float, float]) -> NumberAnswer:
    if not found:
        return NumberAnswer(None, "refused" if refused else "invalid")
    for status in ("ambiguous", "invalid"):
        if status in found:
            return NumberAnswer(None, status)
    values = {float(value) for value in found}
    if len(values) > 1:
        return NumberAnswer(None, "ambiguous")
    value = values.pop()
    return NumberAnswer(value, "ok") if scale[0] <= value <= scale[1] else NumberAnswer(None, "invalid")


def _bare_numbers(plain: str, count: int) -> list[float] | None:
    """The numbers of an answer that consists of exactly the requested count of numbers, else None."""
    bare = re.compile(rf"(?<![\w.]){_NUMBER}")
    numbers, rest = bare.findall(plain), bare.sub("", plain)
    if len(numbers) != count or not re.fullmatch(r"[\s,;:()\[\]{}.'\"]*", rest) or re.search(r"\d,\d", plain):
        return None
    return [float(number.replace(" ", "")) for number in numbers]


def _joined_numbers(plain: str, names: Sequence[str]) -> tuple[str, list[dict[str, float]]]:
    """Numbers given for all names at once, "(valence, arousal) = (0.3, -0.2)", and the text without these phrases.

    Joined names never take a single number, so they are removed from the text even if no matching list follows.
    """
    together: list[dict[str, float]] = []
    if len(names) < 2:
        return plain, together
    numbers = r"\s*(?:,|/|;|\band\b|\s)\s*".join([rf"({_NUMBER})(?![\w%]|\.\d)"] * len(names))
    for ordered in itertools.permutations(names):
        head = r"\s*(?:,|/|&|\band\b)+\s*(?:(?:and|the)\s+)*".join(rf"\b(?:{_words(name)})\b" for name in ordered)
        phrase = re.compile(rf"\(?{head}\)?(?:{_LINK}{numbers}(?!\s*(?:,|/|;|\band\b)\s*[-+]?\.?\d))?")
        for match in phrase.finditer(plain):
            if match[1] is not None:
                together.append(dict(zip(ordered, (float(re.sub(r"\s", "", number)) for number in match.groups()))))
        plain = phrase.sub(" ", plain)
    return plain, together


def _words(name: str) -> str:
    return "|".join(map(re.escape, (name, *SYNONYMS.get(name, ()))))


def _lettered(name: str) -> str:
    return rf"(?<![\w'])[\"']?{re.escape(name[0])}[\"']?(?=\s*[:=])"


def _numbers_of(plain: str, name: str, scale: tuple[float, float], letters: bool) -> list[float | NumberStatus]:
    """Every number that the text ties to a name, each as a value or as the status that rejects it."""
    words = _words(name)
    named = rf"(?:\b(?:{words})\b{'|' + _lettered(name) if letters else ''})"
    after_name = re.compile(rf"{named}[\"']?{_SCALE_NOTE}(?P<link>{_LINK})(?P<number>(?<![\w.]){_NUMBER})(?!\w|\.\d)")
    before_name = re.compile(
        rf"(?<![\w.])(?P<number>{_NUMBER})(?P<link>\s*(?:\(|\b(?:for|in|on|as)\b)\s*(?:the\s+)?)(?:{words})\b"
    )
    found: list[float | NumberStatus] = [_value(plain, match, name, scale) for match in after_name.finditer(plain)]
    return found or [_value(plain, match, name, scale) for match in before_name.finditer(plain)]


def _value(plain: str, match: re.Match[str], name: str, scale: tuple[float, float]) -> float | NumberStatus:
    digits, link = match["number"], match["link"]
    value = float(re.sub(r"\s", "", digits))
    end = match.end("number")
    if re.match(r",\d", plain[end:]):  # a decimal comma, or two numbers
        return "ambiguous"
    has_space_after_sign = re.match(r"[+-]\s", digits) is not None
    if has_space_after_sign and not re.search(r"[:=(]|\b(?:is|of)\b", link):  # "valence - 0.3": a dash or a minus
        return "ambiguous"
    if "minus" in link or (scale[0] < 0 and "negative" in link and "positive" not in link and value > 0):
        return "ambiguous"
    if scale[0] < 0 and "positive" in link and "negative" not in link and value < 0:
        return "ambiguous"
    after = _AFTER.match(plain, end)
    if after is None:
        return value
    if after["range"]:
        return "ambiguous"
    if after["percent"]:
        return value if scale[1] == 100 else "invalid"
    return value if float(after["of"]) == scale[1] else "invalid"
