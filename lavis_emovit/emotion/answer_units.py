"""Read facial action units from a generated answer, by number ("AU6 and AU12", "AU 4+7") or by FACS name.

A named unit is active; a denied or unmentioned unit is not. A number or a FACS letter from A to E beside a unit is its
intensity. An answer that names no unit counts only if it states that no unit is active.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from lavis_emovit.emotion.answer_numbers import NumberStatus
from lavis_emovit.emotion.answer_phrases import is_refusal, one_form, without_markup
from lavis_emovit.emotion.facial import FACIAL_UNITS, facial_priors
from lavis_emovit.outside import without_thoughts

MAX_INTENSITY = 5.0
_HIGHEST_UNIT = 64  # FACS includes head and eye positions
# Their names count as a mention in every answer. Names of other units, such as "blink", are also everyday words, and
# count only if the unit is asked about.
_ALWAYS_NAMED = (*FACIAL_UNITS, 16)

# "au6", "au 06", "aus 6", "action unit 6", "au12_r", with or without a FACS letter, and "r12a" for one side.
_UNIT = r"0?(?P<unit>\d{1,2})(?:_[rc])?(?P<letter>[a-e])?(?![\w%]|\.\d)"
_NAMED_UNIT = re.compile(rf"(?<![a-z])(?:action[\s_]*units?|aus?)[\s_#:.(\[\"'-]*[lr]?{_UNIT}")
# Further numbers of a list that a named unit opens: "6 and 12", "4+7".
_FURTHER = re.compile(
    rf"(?:\s*\([^)\n]*\))?[\"')\]]*\s*(?:,|\+|&|/|;|\band\b|\bor\b|\bnor\b|,\s*(?:and|or)\b)\s*[\"'(]*[lr]?{_UNIT}"
    r"(?!\s*(?:others?|more|people|persons?|faces?|units?|aus?|percent|points?)\b)"
)
_NUMBER_LIST = re.compile(r"[\s\[({\"']*(?:[lr]?\d{1,2}[a-e]?(?![\w.])(?:[\s,+&/;\"']|\band\b)*)+[\])}.\s]*$")
_ELEMENT = re.compile(rf"[lr]?{_UNIT}")
# The value of a unit: ": 3", "(intensity 2)", "= 0.8", ": absent".
_VALUE = re.compile(
    r"[\"')\]]*\s*(?:\((?![^)]*\d)[^)\n]*\)\s*)?"
    r"(?:[:=]|->|\((?=\s*\d(?:\.\d+)?\s*\))|\(?\s*(?:at |with )?(?:an )?(?:intensity|level)(?: of)?\s*[:=]?)\s*[\"']?"
    r"(?:(?P<number>\d+(?:\.\d+)?|\.\d+)(?!\.?\d)(?P<percent>\s*%)?(?!\s*[,+]\s*\d)|"
    r"(?P<no>no|not|none|absent|inactive|false|off)\b|(?P<yes>yes|present|active|true|on)\b)"
)
# "AU6 (absent)", "AU6 - not visible", "AU6 \u2192 no", "AU6 off", "AU6 \u2717"; also behind the name of the unit.
_NO_WORDS = (
    r"(?:no|none|off|false|zero|n|missing|(?:not|un)\s?(?:active|activated|present|visible|seen|detected|observed)|"
    r"absent|inactive)"
)
_NO_BEHIND = re.compile(
    r"[\"')\]]*\s*(?:\((?![^)]*\d)[^)\n]*\)\s*)?"
    rf"(?:[(\[]\s*(?:{_NO_WORDS}\s*|-|0\s*)[)\]]|(?:\s-|\u2013|\u2014|\u2192|=>?|:)\s*{_NO_WORDS}(?=\s*(?:[,.;|\n]|$))|"
    r"(?:no|not|off|false|missing)(?=\s*(?:[,.;|\n]|$))|[:\s]*[\u2717\u2718\u274c\u2610])"
)
_NONE = re.compile(
    r"\b(?:no|none of the|without(?: any)?|zero|not any)\s+"
    r"(?:(?:facial|visible|active|other|clear|specific|of the)\s+)*(?:action units?|aus?)\b(?!\s*[:#]?\s*\d)|"
    r"\bnone of (?:them|these|those|the units)\b|"
    r"\b(?:aus?|action[ _]units?)[\"']?\s*[:=]\s*[\"']?(?:none|no|null|nil|n/a|\[\s*\])"
)
_ONLY_NONE = re.compile(r"[\s\"'(\[]*(?:none|\[\s*\]|no(?:ne)? (?:active|present|visible))?[\s\"')\].]*$")

_DENIAL = re.compile(r"\b(?:no|not|without|neither|nor|never|lacks?|lacking|absence of|cannot|\w+n't)\b[:\s]*")
# "Absent: AU4, AU7." denies every unit on its line.
_ABSENT_HEADING = re.compile(
    r"\b(?:absent|inactive|missing|not (?:active|present|visible|seen))(?: (?:aus?|action units?))?\s*:[^.;\n]*"
)
# Phrases that name units without listing them: "all AUs except AU6", "AU1 to AU7".
_NO_LIST = re.compile(
    r"\b(?:all|every|each)(?: of)?(?: the)?(?: other)? (?:aus?|action units?)\b|"
    r"\b(?:aus?|action units?)\s*\d+ *(?:-|\u2013|\bto\b|\bthrough\b) *(?:aus? *)?\d"
)
# A table of units and numbers without signs: "AU6,1" and "AU12 0", line by line.
_PAIR = re.compile(
    r"(?:aus?|action[ _]units?)[\s_]*(?P<unit>\d{1,2})\s*[,\s]\s*(?P<number>[0-5](?:\.\d+)?)(?![\w.])[\s,;()\[\]]*"
)
_DENIED_AFTER = re.compile(
    r"(?:\s*\([^()\n]*\))?[\s,\"')\]-]*\b(?:"
    r"(?:is|are|was|were|seems?|appears?)\s+(?:\w+\s+)?"
    r"(?:not|no longer|absent|inactive|missing|neither|off|hardly|barely|scarcely|unlikely)\b|"
    r"(?:is|are|was|were|do|does)n't\b|(?:do|does)\s+not\b|(?:can|could)(?:not|n't|'t|\s+not)\b|"
    r"(?:not (?:active|present|visible|activated|seen)|no longer|absent|inactive|unlikely)\b(?!\s*:))"
)
# Words allowed between the units of one list, and further words allowed between a denial and its unit.
_LIST_WORDS = r"and|or|nor|the|an?|aus?|action units?"
_JOINT = re.compile(rf"(?:\([^()\n]*\)|[\s,/&+\"'()\[\]]|\b(?:{_LIST_WORDS})\b)*")
_REACH = re.compile(
    rf"(?:[\s,/&+\"'()\[\]]|\b(?:{_LIST_WORDS}|any|visible|active|clear|signs?|evidence|activation|of|show|shows|see|"
    r"display|have|involve|include|exhibit|contain|activate|use|"
    r"think|believe|that|find|detect|observe|identify|confirm)\b)*"
)


class _Mention(NamedTuple):
    """A unit in the text: characters [start, end), and its value."""

    unit: int
    start: int
    end: int
    value: float | None


@dataclass(frozen=True)
class UnitAnswer:
    # `AU12` -> 1 for active, 0 for inactive, or the stated intensity; None for a unit that is both claimed and denied,
    # or off the scale. All None unless the status is `ok`.
    values: dict[str, float | None]
    # `ok`; `invalid`: no unit is named or denied; `ambiguous`: every named unit is None; `refused`.
    status: NumberStatus


def read_action_units(text: str, units: Collection[int] = FACIAL_UNITS) -> UnitAnswer:
    """Read the requested action units from an answer; other units in the answer are ignored."""
    plain = without_markup(one_form(without_thoughts(text.casefold())))
    mentions = _mentions(plain, units)
    if _NO_LIST.search(plain):
        return UnitAnswer({f"AU{unit}": None for unit in units}, "ambiguous")
    found: dict[int, set[float | None]] = {}
    for mention, is_denied in zip(mentions, _denied(plain, mentions)):
        found.setdefault(mention.unit, set()).add(0.0 if is_denied else mention.value)
    states_none = _NONE.search(plain) or (plain.strip() and _ONLY_NONE.match(plain))
    if not found and not states_none:
        return UnitAnswer({f"AU{unit}": None for unit in units}, "refused" if is_refusal(plain) else "invalid")
    values = {f"AU{unit}": _agreed(found.get(unit, {0.0})) for unit in units}
    named = [values[f"AU{unit}"] for unit in units if unit in found]
    if named and all(value is None for value in named):
        return UnitAnswer(dict.fromkeys(values), "ambiguous")
    return UnitAnswer(values, "ok")


def _agreed(values: set[float | None]) -> float | None:
    """The value on which all mentions of a unit agree, else None; an intensity is more exact than "active"."""
    if len(values) == 2 and 1.0 in values:
        exact = next(value for value in values if value != 1.0)
        return exact if exact is None or exact > 0 else None
    return next(iter(values)) if len(values) == 1 else None


def _mentions(plain: str, units: Collection[int]) -> list[_Mention]:
    if pairs := _pairs(plain):
        return pairs
    matches: list[re.Match[str]] = []
    if _NUMBER_LIST.match(plain):
        matches = list(_ELEMENT.finditer(plain))
        if any(int(match["unit"]) == 0 for match in matches):  # a list of ones and zeros names no unit
            return []
    else:
        for match in _NAMED_UNIT.finditer(plain):
            following: re.Match[str] | None = match
            while following:
                matches.append(following)
                has_value = _VALUE.match(plain, following.end()) is not None
                following = None if has_value else _FURTHER.match(plain, following.end())
    by_number = [
        _Mention(int(match["unit"]), match.start(), match.end(), _intensity(plain, match))
        for match in matches
        if 1 <= int(match["unit"]) <= _HIGHEST_UNIT
    ]
    unit_from = {mention.start: mention.unit for mention in by_number}
    unit_to = {mention.end: mention.unit for mention in by_number}
    by_name = []
    for match in _names(frozenset({*_ALWAYS_NAMED, *units})).finditer(plain):
        unit = int(str(match.lastgroup).removeprefix("unit"))
        # "AU6 (cheek raiser)" and "cheek raiser (AU6)" are one mention.
        beside = {unit_to.get(match.start() - gap) for gap in range(6)}
        beside |= {unit_from.get(match.end() + gap) for gap in range(6)}
        if unit not in beside:
            by_name.append(_Mention(unit, match.start(), match.end(), _intensity(plain, match)))
    return sorted([*by_number, *by_name], key=lambda mention: mention.start)


def _pairs(plain: str) -> list[_Mention]:
    """The mentions of a bare table, empty for any other text. Only a zero or a fraction proves that it is a table."""
    pairs = list(_PAIR.finditer(plain))
    covered = sum(match.end() - match.start() for match in pairs)
    begin = pairs[0].start() if pairs else 0
    is_table = len(pairs) > 1 and not plain[:begin].strip(" \n([") and begin + covered == len(plain)
    if not is_table or all(match["number"] in ("1", "2", "3", "4", "5") for match in pairs):
        return []
    return [_Mention(int(match["unit"]), *match.span(), float(match["number"])) for match in pairs]


def _intensity(plain: str, match: re.Match[str]) -> float | None:
    """The intensity of a mention: 1 if the unit is only named, None for a number off the scale."""
    if letter := match.groupdict().get("letter"):
        return float("abcde".index(letter) + 1)
    if _NO_BEHIND.match(plain, match.end()):
        return 0.0
    stated = _VALUE.match(plain, match.end())
    if stated is None or stated["yes"]:
        return 1.0
    if stated["no"]:
        return 0.0
    value = float(stated["number"]) / (100 if stated["percent"] else 1)
    return value if value <= MAX_INTENSITY else None


def _value_behind(plain: str, position: int) -> re.Match[str] | None:
    return _NO_BEHIND.match(plain, position) or _VALUE.match(plain, position)


def _denied(plain: str, mentions: list[_Mention]) -> list[bool]:
    """Whether a denial precedes or follows each mention, or the list that contains it."""
    # The text between two neighbours of one list; None if they are not in one list.
    between = [plain[left.end : right.start] for left, right in itertools.pairwise(mentions)]
    joints = [text if _JOINT.fullmatch(text) else None for text in between]
    followed, continues_to_or = [False] * len(mentions), [False] * len(mentions)
    for i in reversed(range(len(mentions))):
        joint = joints[i] if i < len(joints) else None
        if joint is None:
            followed[i] = _DENIED_AFTER.match(plain, mentions[i].end) is not None
        else:
            followed[i] = followed[i + 1]
            continues_to_or[i] = continues_to_or[i + 1] or _contains(joint, "or|nor")
    # "no" as the value of a unit, "AU6: no, AU12: yes", says nothing about the next one.
    values = [match.span() for mention in mentions if (match := _value_behind(plain, mention.end))]
    headings = [match.span() for match in _ABSENT_HEADING.finditer(plain)]
    preceded: list[bool] = []
    for i, mention in enumerate(mentions):
        joint = joints[i - 1] if i else None
        # A comma passes a denial on only inside a list that continues to an "or", "and" only to the direct neighbour.
        is_passed_on = joint is not None and (
            continues_to_or[i - 1] or ("," not in joint and (_contains(joint, "and") or "+" in joint or "/" in joint))
        )
        before = plain[max(0, mention.start - 60) : mention.start]
        begin = mention.start - len(before)
        cues = [
            cue
            for cue in _DENIAL.finditer(before)
            if not any(start <= begin + cue.start() < end for start, end in values)
        ]
        follows_cue = bool(cues) and _REACH.fullmatch(before, cues[-1].end()) is not None
        preceded.append(follows_cue or (is_passed_on and preceded[i - 1]))
        preceded[i] = preceded[i] or any(start <= mention.start < end for start, end in headings)
    return [one or other for one, other in zip(followed, preceded)]


def _contains(joint: str, words: str) -> bool:
    return re.search(rf"\b(?:{words})\b", joint) is not None


_VERBS = {
    "raiser": "rais(?:er|ers|e|es|ed|ing)",
    "lowerer": "lower(?:er|s|ed|ing)?",
    "wrinkler": "wrinkl(?:er|e|es|ed|ing)",
    "funneler": "funnel(?:er|ers|s|ed|ing)?",
    "puckerer": "pucker(?:er|ers|s|ed|ing)?",
    "blink": "blink(?:s|ed|ing)?",
    "thrust": "thrust(?:s|ing)?",
    "puller": "pull(?:er|s|ed|ing)?",
    "tightener": "tighten(?:er|s|ed|ing)?",
    "depressor": "depress(?:or|ed|ing)",
    "stretcher": "stretch(?:er|ed|ing)?",
    "pressor": "press(?:or|er|ed|ing)",
    "part": "part(?:ed|ing)?",
    "drop": "drop(?:s|ped|ping)?",
}


@functools.cache
def _names(units: frozenset[int]) -> re.Pattern[str]:
    """Pattern of the FACS names of units, with all forms of the verb; the group `unit6` is the name of unit 6."""
    names = (
        rf"(?P<unit{unit}>" + r"[\s-]+".join(_VERBS.get(word, rf"{word}s?") for word in name.split()) + ")"
        for unit, name in facial_priors().units.items()
        if unit in units
    )
    return re.compile(rf"\b(?:{'|'.join(names)})\b")
