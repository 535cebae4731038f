"""Read what each sentence of a longer text claims, such as reasoning that names many emotions."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

from lavis_emovit.emotion import answer_phrases as phrases
from lavis_emovit.emotion.answer_claims import Text, Words, denied_mentions, plain_text
from lavis_emovit.emotion.inflections import word_forms
from lavis_emovit.emotion.label_set import LabelSet, folded

_WORD = re.compile(r"\w+")
_LETTERS_ONLY = re.compile(r"[a-z ,]*")
_NOTHING: frozenset[str] = frozenset()


def emotions_claimed(text: str, label_set: LabelSet) -> list[frozenset[str]]:
    """For each sentence, the labels that it claims: named in any form and not denied; often none or several.

    Only forms of one word are found. For the one emotion that an answer claims, see `answers.read_emotion`.
    """
    sentences, read = phrases.SENTENCE_END.split(plain_text(folded(text))), _reader(label_set)
    return [claimed for sentence in sentences if (claimed := read(sentence)) is not None]


@functools.lru_cache(maxsize=64)
def _reader(label_set: LabelSet) -> Callable[[str], frozenset[str] | None]:
    """A function of a sentence of normalised text: the labels that it claims; None if it has no words."""
    label_of = {form: label for form, label in word_forms(label_set).items() if _WORD.fullmatch(form)}

    # Reasons are read with and without the labels in them, and models repeat sentences.
    @functools.lru_cache(maxsize=1 << 13)
    def claims_of_sentence(sentence: str) -> frozenset[str] | None:
        words = _WORD.findall(sentence)
        if label_of.keys().isdisjoint(words):
            return _NOTHING if words else None
        named = [word for word in words if word in label_of]
        if (claimed := _plain_claims(sentence, words, named)) is not None:
            return frozenset(label_of[word] for word in claimed)
        return claims_of(sentence, Words({(word,): label_of[word] for word in named}))

    return claims_of_sentence


def claims_of(sentence: str, words: Words) -> frozenset[str]:
    """The labels whose words a sentence of normalised text claims."""
    read = Text(sentence, words)
    denied = denied_mentions(read) if read.mentions else set()
    return frozenset(mention.label for mention in read.mentions if mention not in denied)


def _plain_claims(sentence: str, words: list[str], named: list[str]) -> Sequence[str] | None:
    """The named words that a sentence claims, if that is plain: nothing can be an idiom, and nothing can deny them but
    one "no" before the only one. None if it is not.
    """
    if not _LETTERS_ONLY.fullmatch(sentence):
        return None
    denies = phrases.may_deny(words)
    if denies and not _denies_by_no(sentence, words, named):
        return None
    # An adverb may comment on the sentence.
    may_comment = "," in sentence or words[0] in named
    if any(word == "content" or (may_comment and word.endswith("ly")) for word in named):
        return None
    if phrases.idioms_in(sentence, words):
        return None
    return () if denies else named


def _denies_by_no(sentence: str, words: list[str], named: list[str]) -> bool:
    """Whether a "no" is directly before the only named word, and nothing else can deny it."""
    if len(named) != 1 or words.count("no") != 1 or words.index("no") + 1 != words.index(named[0]):
        return False
    if f"no {named[0]}" not in sentence:  # "no, calm" denies nothing
        return False
    return not phrases.may_deny([word for word in words if word != "no"])
