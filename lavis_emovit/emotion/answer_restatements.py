"""Sentences of an answer that restate its question: "The first image evokes a more positive response."

Asked "Which image evokes a more positive emotional response?", this sentence is the answer; asked for the calmer image,
it is not. So the words of the question that matter most must all be there: names of emotions, and words that compare.
"""

from __future__ import annotations

import functools
import re

from lavis_emovit.emotion.inflections import word_forms
from lavis_emovit.emotion.labels import LABEL_SETS

_WORD = re.compile(r"[a-z]+")
# What a question says about itself, or adds to it: "..., meaning that viewers feel less control?"
_ADDED = re.compile(r",\s*(?:\w+ing\b|and\s+which\b)|[?\n]")
_MIN_COVERAGE = 0.6  # of the content words of the question
_PLAIN = frozenset(
    """which what these those this that them they image images picture pictures photo photos figure figures between
    among with from does both have into following""".split()
)
_COMPARES = frozenset(
    """more less most least higher lower highest lowest stronger weaker strongest greater lesser better worse arousal
    valence dominance""".split()
)


class Restatement:
    """Recognises sentences that restate a question."""

    def __init__(self, question: str):
        asked = _content(_ADDED.split(question, maxsplit=1)[0].casefold())
        self._stems = {_stem(word) for word in asked}
        self._decisive = asked & _decisive_words()

    def matches(self, sentence: str) -> bool:
        """Whether a sentence in lower case has all decisive words of the question, and most others."""
        words = _content(sentence)
        if not self._stems or not self._decisive <= words:
            return False
        return len(self._stems & {_stem(word) for word in words}) >= _MIN_COVERAGE * len(self._stems)


@functools.lru_cache(maxsize=1)
def _decisive_words() -> frozenset[str]:
    return _COMPARES.union(form for label_set in LABEL_SETS.values() for form in word_forms(label_set))


def _content(text: str) -> set[str]:
    return {word for word in _WORD.findall(text) if (len(word) > 3 or word in _decisive_words()) and word not in _PLAIN}


def _stem(word: str) -> str:
    return re.sub(r"(?:ing|ed|es|s)$", "", word)
