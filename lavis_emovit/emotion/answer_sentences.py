"""Read what each sentence of a longer text claims, such as reasoning that names many emotions."""

from __future__ import annotations

import functools
import re

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
    sentences = phrases.SENTENCE_END.split(plain_text(folded(text)))
    return [claimed for sentence in sentences if (claimed := _claims_of_sentence(sentence, label_set)) is not None]


# Reasons are read with and without the labels in them, and models repeat sentences.
@functools.lru_cache(maxsize=1 << 13)
def _claims_of_sentence(sentence: str, label_set: LabelSet) -> frozenset[str] | None:
    """The labels that a sentence of normalised text claims; None if it has no words."""
    label_of, words = _words(label_set), _WORD.findall(sentence)
    if label_of.keys().isdisjoint(words):
        return _NOTHING if words else None
    named = [word for word in words if word in label_of]
    if _is_plain(sentence, words, named):
        return frozenset(label_of[word] for word in named)
    return claims_of(sentence, Words({(word,): label_of[word] for word in named}))


def claims_of(sentence: str, words: Words) -> frozenset[str]:
    """The labels whose words a sentence of normalised text claims."""
    read = Text(sentence, words)
    denied = denied_mentions(read) if read.mentions else set()
    return frozenset(mention.label for mention in read.mentions if mention not in denied)


def _is_plain(sentence: str, words: list[str], named: list[str]) -> bool:
    """Whether nothing in a sentence can deny the words that it names, or make them an idiom."""
    if not _LETTERS_ONLY.fullmatch(sentence) or phrases.may_deny(words):
        return False
    # An adverb may comment on the sentence.
    may_comment = "," in sentence or words[0] in named
    if any(word == "content" or (may_comment and word.endswith("ly")) for word in named):
        return False
    return not phrases.idioms_in(sentence, words)


@functools.lru_cache(maxsize=64)
def _words(label_set: LabelSet) -> dict[str, str]:
    return {form: label for form, label in word_forms(label_set).items() if _WORD.fullmatch(form)}
