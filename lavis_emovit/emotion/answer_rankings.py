"""Read an answer that ranks emotions from the strongest to the weakest."""

from __future__ import annotations

import re
from typing import NamedTuple

from lavis_emovit.emotion.answer_claims import AnswerStatus, Text, denied_mentions
from lavis_emovit.emotion.answer_phrases import is_refusal
from lavis_emovit.emotion.answers import text_and_words
from lavis_emovit.emotion.label_set import LabelSet
from lavis_emovit.emotion.templates import answer_text

_BRACKETS = re.compile(r"\[([^\[\]]+)\]")
_ANNOUNCED = re.compile(r"\b(?:ranking|ranked|rank|order|emotions?|feelings?|answer|weakest)\b[^:\n]{0,40}:")


class RankingAnswer(NamedTuple):
    """The named labels, strongest first; empty unless the status is `ok`."""

    labels: tuple[str, ...]
    status: AnswerStatus


def read_ranking(text: str, label_set: LabelSet, count: int) -> RankingAnswer:
    """The emotions that an answer ranks, at most `count`.

    A list in brackets counts first, then what follows an announcement ("Emotion ranking: joy, fear"), then the whole
    text. Denied emotions do not count. More than `count` different ones are ambiguous, and fewer leave places empty.
    """
    plain, words = text_and_words(answer_text(text), label_set)
    parts = [*(match[1] for match in _BRACKETS.finditer(plain))]
    parts += [plain[match.end() :] for match in _ANNOUNCED.finditer(plain)]
    for part in (*parts, plain):
        found = _ranked(Text(part, words))
        if found:
            return RankingAnswer(found, "ok") if len(found) <= count else RankingAnswer((), "ambiguous")
    return RankingAnswer((), "refused" if is_refusal(plain) else "invalid")


def _ranked(text: Text) -> tuple[str, ...]:
    denied = denied_mentions(text)
    return tuple(dict.fromkeys(mention.label for mention in text.mentions if mention not in denied))
