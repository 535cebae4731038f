"""Read an emotion from a generated answer, strictly: the answer must clearly name one label of the set.

Only whole words count, with inflections and aliases ("amused" is amusement), but not negated mentions ("not sad") or
idioms ("happy to help"). An announced answer ("Predict emotion: awe"), or a first sentence that consists of a label,
takes precedence over the rest. In doubt the reader returns a status other than `ok`; metrics keep such answers in the
denominator.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import NamedTuple

from lavis_emovit.emotion.answer_choices import ChoiceAnswer, options_named, read_choice
from lavis_emovit.emotion.answer_claims import (
    WORD,
    AnswerStatus,
    EmotionAnswer,
    Text,
    Words,
    claimed_answer,
    plain_text,
    running_text_answer,
)
from lavis_emovit.emotion.answer_shortcuts import Vocabulary, evident_label, vocabulary_of
from lavis_emovit.emotion.inflections import word_forms
from lavis_emovit.emotion.label_set import LabelSet, folded, spelling
from lavis_emovit.emotion.labels import LABEL_SETS
from lavis_emovit.emotion.questions import CATEGORICAL_ANSWER_PREFIX
from lavis_emovit.outside import without_thoughts

__all__ = ["AnswerStatus", "ChoiceAnswer", "EmotionAnswer", "labels_named", "may_claim", "read_choice", "read_emotion"]

# In parts, as few as find each way of saying it: every answer is searched for them.
_LESSER_CUES = (
    "hint",
    "touch of",
    "trace",
    "tinge of",
    "bit of",
    "undertone",
    "slightly",
    "somewhat",
    "followed by",
    "some ",
    "secondary",
)
_LESSER = re.compile(
    r"\b(?:(?:hints?|touch|traces?|tinge|bit|undertones?)\s+of|slightly|somewhat|followed\s+by|there\s+is\s+(?:also\s+)?some)"
    r"\s+(?:an?\s+)?(?:slight\s+)?$"
)
_LEADER = re.compile(
    r"\b(?:(?:pre)?dominant|primary|main|strongest|prevailing|overall)\s+(?:emotion|feeling|mood)\b[^.;\n]{0,40}?"
    r"(?:\bis\b|:)\s*(?:one\s+of\s+)?(?P<first>[a-z]+)"
    r"|\b(?:mostly|mainly|primarily|predominantly)\s+(?P<second>[a-z]+)"
    r"|\b(?:evokes?|is|shows?)\s+(?P<third>[a-z]+)\s*,?\s+with\s+(?:just\s+)?an?\s+(?:hint|touch|trace|tinge|bit)\b"
)
_MAX_LABEL = 120  # characters; longer answers are more than a label
_STAND_IN = "\ua66e"  # a letter that no answer contains


def read_emotion(text: str, label_set: LabelSet, options: Sequence[str] | None = None) -> EmotionAnswer:
    """Read the emotion that an answer claims.

    Args:
        options: labels in the order of the question, if the question marked them by letters or numbers. Then "(b)" and
            "2" are valid answers, and a mark that contradicts the word beside it is ambiguous.

    Raises:
        DataError: an option is not a label of the set.
    """
    reply = without_thoughts(folded(text))
    forms = _forms(label_set)
    words, plain = forms.words, plain_text(_with_stand_ins(reply, forms))
    if label := _exact_label(reply, label_set) or evident_label(plain, forms.vocabulary):
        answer = EmotionAnswer(label, "ok")
    else:
        answer = claimed_answer(Text(plain, words))
        if answer.status == "ok" and any(map(plain.__contains__, _LESSER_CUES)) and _is_lesser(plain, words):
            answer = EmotionAnswer(None, "invalid")
    if options is None:
        return answer
    listed = [label_set.canonical(option) for option in options]
    chosen = options_named(text, listed)
    if chosen is None:
        return EmotionAnswer(None, "ambiguous")
    return _with_option(answer, {listed[index] for index in chosen}, plain, words) if chosen else answer


def _is_lesser(plain: str, words: Words) -> bool:
    """Whether all labels of a text are lesser beside an emotion outside of the set: "awe, with a hint of fear"."""
    leaders = {match["first"] or match["second"] or match["third"] for match in _LEADER.finditer(plain)}
    if not any(leader in _emotion_words() and (leader,) not in words for leader in leaders):
        return False
    return all(
        _LESSER.search(plain, max(0, one.start - 40), one.start) or plain.startswith(" is secondary", one.end)
        for one in Text(plain, words).mentions
    )


@functools.lru_cache(maxsize=1)
def _emotion_words() -> frozenset[str]:
    return frozenset(form for label_set in LABEL_SETS.values() for form in word_forms(label_set))


def labels_named(text: str, label_set: LabelSet) -> set[str]:
    """The labels that a text names in any form, claimed or not; "fearless" does not name fear."""
    forms = _forms(label_set)
    found = Text(plain_text(_with_stand_ins(folded(text), forms)), Words()).find(forms.words)
    return {mention.label for mention in found if not mention.denies}


def may_claim(text: str, labels: Collection[str], label_set: LabelSet) -> bool:
    """Whether the letters of one of some labels occur in a text; if not, `read_emotion` finds none of these labels."""
    forms = _forms(label_set)
    plain = plain_text(_with_stand_ins(folded(text), forms))
    return any(any(map(plain.__contains__, forms.first_words.get(label, ()))) for label in labels)


def text_and_words(text: str, label_set: LabelSet) -> tuple[str, Words]:
    """A text as `Text` takes it, and the forms of the labels that occur in such texts."""
    forms = _forms(label_set)
    return plain_text(_with_stand_ins(folded(text), forms)), forms.words


def _with_option(answer: EmotionAnswer, chosen: set[str], plain: str, words: Words) -> EmotionAnswer:
    """Combine the answer in words with the options that the answer names by their marks."""
    if len(chosen) > 1:
        return EmotionAnswer(None, "ambiguous")
    (label,) = chosen
    if answer.status == "ok":
        return answer if answer.label == label else EmotionAnswer(None, "ambiguous")
    of_label = Words({form: name for form, name in words.items() if name == label})
    is_denied = running_text_answer(Text(plain, of_label)).status == "negated"
    return EmotionAnswer(None, "ambiguous") if is_denied else EmotionAnswer(label, "ok")


class _Forms(NamedTuple):
    """The forms of the labels of a set."""

    words: Words  # tokens of a form -> label
    # Spelling of a form with other characters than letters and spaces, such as "-1", "c#" or "mr. happy" -> the word
    # that replaces it before an answer is divided into sentences and tokens; and the pattern that finds these forms.
    stand_ins: dict[str, str]
    marked: re.Pattern[str]
    vocabulary: Vocabulary
    first_words: dict[str, tuple[str, ...]]  # label -> first words of its forms, less those with another in them


@functools.lru_cache(maxsize=64)
def _forms(label_set: LabelSet) -> _Forms:
    words = Words()
    unmarked: dict[tuple[str, ...], set[str]] = {}
    stand_ins: dict[str, str] = {}
    for form, label in word_forms(label_set).items():
        spelt = spelling(form)
        tokens = tuple(WORD.findall(spelt))
        if "_" not in form and spelt.replace(" ", "").isalpha():
            words[tokens] = label
        # A label without any of these, such as "+", is only read from an exact answer: it is punctuation elsewhere.
        elif any(unicodedata.category(c).startswith(("L", "N", "So")) for c in spelt):
            stand_ins[spelt] = f"{_STAND_IN}{len(stand_ins)}"
            words[(stand_ins[spelt],)] = label
            # "high arousal" is read as "high-arousal", but "1" is not read as "-1".
            if len(tokens) > 1 and all(map(str.isalpha, tokens)):
                unmarked.setdefault(tokens, set()).add(label)
    for tokens, labels in unmarked.items():
        if len(labels) == 1:
            words.setdefault(tokens, next(iter(labels)))
    longest_first = sorted(stand_ins, key=len, reverse=True)
    marked = re.compile("|".join(map(_pattern, longest_first)) or "(?!)")
    return _Forms(words, stand_ins, marked, vocabulary_of(words), _first_words(words))


def _first_words(words: Words) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for form, label in words.items():
        found.setdefault(label, set()).add(form[0])
    return {
        label: tuple(word for word in firsts if not any(other in word for other in firsts - {word}))
        for label, firsts in found.items()
    }


def _pattern(spelt: str) -> str:
    """Finds a form that is not part of a longer word, of a number, or of a range ("1-2"); an emoji needs no border."""
    first, last = (unicodedata.category(character) for character in (spelt[0], spelt[-1]))
    before = "" if first == "So" else r"(?<!\w)" if first.startswith("L") else r"(?<![\w.+-])"
    after = "" if last == "So" else r"(?!\w|[.,+-]\d|\s?%)"
    return before + re.escape(spelt).replace(r"\ ", r"(?:[^\S\n]|_)+") + after


def _with_stand_ins(reply: str, forms: _Forms) -> str:
    def replaced(match: re.Match[str]) -> str:
        found, following = match.group(), reply[match.end() : match.end() + 1]
        if following and unicodedata.category(following).startswith("M"):  # a vowel sign, so the word is longer
            return found
        word = forms.stand_ins[re.sub(r"[\s_]+", " ", found)]
        return f" {word} " if unicodedata.category(found[0]) == "So" else word

    return forms.marked.sub(replaced, reply) if forms.stand_ins else reply


def _exact_label(reply: str, label_set: LabelSet) -> str | None:
    """The label of an answer that contains nothing else, or only what `categorical_answer` adds."""
    if len(reply) > _MAX_LABEL or "\n" in reply.strip():
        return None
    written = spelling(reply).removeprefix(CATEGORICAL_ANSWER_PREFIX.strip().casefold()).strip()
    return label_set.by_spelling.get(written) or label_set.by_spelling.get(written.removesuffix(".").strip())
