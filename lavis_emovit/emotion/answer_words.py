"""Read words of emotion that an answer chooses freely."""

from __future__ import annotations

import re

from lavis_emovit.emotion.answer_sentences import emotions_claimed
from lavis_emovit.emotion.templates import answer_text
from lavis_emovit.emotion.wheels import Wheels

_MAX_ITEM_WORDS = 4
_ITEM_END = re.compile(r"[,;\n/]|\band\b")
_AROUND_ITEM = " \t.:\"'*()[]-\u2022"
_HEAD = re.compile(r"^[^:\n]{0,60}:")
_NUMBER = re.compile(r"^\s*\d+[.)]\s*")


def read_words(text: str, wheels: Wheels) -> tuple[str, ...]:
    """The words of the wheels that an answer names and does not deny, sorted; forms of a word are that word.

    An answer that is a list is read item by item, so that words such as "at ease" are found.
    """
    result = answer_text(text)
    claimed = frozenset().union(*emotions_claimed(result, wheels.lexicon))
    items = [_NUMBER.sub("", item).strip(_AROUND_ITEM) for item in _ITEM_END.split(_HEAD.sub("", result))]
    if all(len(item.split()) <= _MAX_ITEM_WORDS for item in items):
        claimed |= {word for item in items if (word := wheels.word(item)) is not None}
    return tuple(sorted(claimed))
