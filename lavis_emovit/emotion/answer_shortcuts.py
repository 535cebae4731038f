"""Labels of answers that need no close reading: one label, in sentences without any word that could change the claim.

Most answers of good models are of this kind. A shortcut gives the label that `answer_claims` would give, or None where
only the full reading decides; the tests compare both.
"""

from __future__ import annotations

import re
import string
from typing import NamedTuple

from lavis_emovit.emotion import answer_phrases as phrases
from lavis_emovit.emotion.answer_claims import WORD, Words

# "predict emotion: awe." at the beginning, with the words that announce an answer more explicitly.
_LABEL = r"\s*:\s*(?P<word>[a-z]+)(?=\.?\s*\Z|\.\s|\n)"
_ANNOUNCED = (
    (re.compile(rf"\s*predict(?:ed|s)?[\s_]+emotions?{_LABEL}"), "predict", ("<",)),
    (re.compile(rf"\s*(?:final )?answer{_LABEL}"), "answer", ("<", "predict", "final emo")),
    (re.compile(rf"\s*emotion{_LABEL}"), "emotion", ("<", "predict", "answer")),
)
# Words that may deny, doubt or refuse in their sentence.
_DOUBTFUL = frozenset(
    """not never cannot cant dont isnt aint doesnt nobody no none nothing nowhere unlikely denies deny doubt wrong
    incorrect misleading mistake least zero without sans avoid avoids avoided avoiding fails failed refuses refused too
    lack lacks lacking lacked absence devoid free neither nor rather instead opposed than less except excluding excludes
    excluded rule rules ruled unlike opposite anything far hardly barely scarcely rarely seldom used lost mistaken
    confused confuse misread unable impossible difficult hard tricky unsure uncertain unclear unknown undetermined
    indeterminate applicable please insufficient decline refuse sorry afraid surprise neutral positive n hint hints
    touch trace traces tinge bit undertone undertones slightly somewhat followed some secondary""".split()
)
# A sign behind one of these words announces an answer: "most likely:".
_BEFORE_SIGN = frozenset(
    """emotion emotions feeling sentiment label class category answer prediction likely choice pick guess fit match
    reflection thought thoughts look inspection closer again actually wait correction rather conclusion
    overall""".split()
)
# Words of the phrases that announce an answer without a sign.
_ANNOUNCING = frozenset(
    """answer prediction final emotion emotions choose select pick go say vote best closest most dominant predominant
    main primary prevailing overall strongest overriding leading principal reflection second closer looking actually
    wait correction first top""".split()
)
_SIGN = re.compile(r"(\w+)[\"'\])]*\s*(?:[:=>]|->)")
_SPACES = {ord(sign): " " for sign in string.punctuation if sign not in "'_"}
_MARKED = re.compile(r"[<\[?\u2610]|\d")


class Vocabulary(NamedTuple):
    """The words of a label set, as shortcuts need them."""

    simple: dict[str, str]  # form -> label
    others: frozenset[str]  # words that only the full reading understands
    notable: frozenset[str]  # all of these, and words that may deny or announce
    idioms: dict[str, tuple[re.Pattern[str], ...]]  # form -> the idioms that may contain it


def vocabulary_of(words: Words) -> Vocabulary:
    simple = {tokens[0]: label for tokens, label in words.items() if len(tokens) == 1}
    others = {tokens[0] for tokens in words if len(tokens) > 1} | set(phrases.ANTONYMS)
    others |= {form for form in simple if form.endswith("ly") or form in ("content", "other") or not form.isalpha()}
    for form in simple:
        others |= {f"un{form}", f"{form}less", f"{form}lessly", f"{form}'s"}
    idioms = {form: tuple(idiom for idiom in phrases.IDIOMS if form in idiom.pattern) for form in simple}
    return Vocabulary(simple, frozenset(others), _DOUBTFUL.union(simple, others, _ANNOUNCING), idioms)


def evident_label(plain: str, known: Vocabulary) -> str | None:
    """The label that a normalised text claims beyond doubt; None if the text needs the full reading."""
    if not plain.isascii():
        return None
    for pattern, word, stronger in _ANNOUNCED:
        if match := pattern.match(plain):
            label = known.simple.get(match["word"])
            is_only = plain.count(word) == 1 and not any(map(plain.__contains__, stronger))
            following = WORD.search(plain, match.end())
            is_alone = following is None or following.group() not in known.simple  # else it may be the first of a list
            if is_only and is_alone and match["word"] not in known.others and not _is_taken_back(plain, match.end()):
                return label
            return None
    if _MARKED.search(plain):
        return None
    found = WORD.findall(plain) if "'" in plain else plain.translate(_SPACES).split()
    notable = known.notable.intersection(found)
    hits = known.simple.keys() & notable
    if not hits or len(labels := {known.simple[hit] for hit in hits}) != 1 or not known.others.isdisjoint(notable):
        return None
    if (":" in plain or "=" in plain or ">" in plain) and not _BEFORE_SIGN.isdisjoint(_SIGN.findall(plain)):
        return None
    doubts = (*((notable - hits) & _DOUBTFUL), *(("n't",) if "n't" in plain else ()))
    if doubts and not all(_are_clear(plain, word, doubts) for word in notable & _ANNOUNCING):
        return None
    if not all(_is_claimed(plain, hit, known.idioms[hit], doubts) for hit in hits):
        return None
    return labels.pop()


def _is_claimed(plain: str, form: str, idioms: tuple[re.Pattern[str], ...], doubts: tuple[str, ...]) -> bool:
    """Whether a form is no part of an idiom or longer word, and nothing in its sentences could deny it."""
    position = plain.find(form)
    while position >= 0:
        end = position + len(form)
        if _is_word(plain, position, end):
            if plain[position - 1 : position] == "-" or _is_taken_back(plain, end):
                return False
            if any(idiom.search(plain, max(0, position - 60), end + 60) for idiom in idioms):
                return False
            if doubts and not _is_clear(plain, position, end, doubts):
                return False
        position = plain.find(form, end)
    return True


def _is_clear(plain: str, position: int, end: int, doubts: tuple[str, ...]) -> bool:
    """Whether the sentence around a position, and the beginning of the next one, contain no doubtful word."""
    start = 1 + max(plain.rfind(sign, 0, position) for sign in ".!;\n")
    stop = min((place for sign in ".!;\n" if (place := plain.find(sign, end)) >= 0), default=len(plain))
    around = plain[start : stop + 40]
    return not any(doubt in around for doubt in doubts)


def _are_clear(plain: str, word: str, doubts: tuple[str, ...]) -> bool:
    """Whether no sentence with a word contains a doubtful word."""
    position = plain.find(word)
    while position >= 0:
        end = position + len(word)
        if not _is_clear(plain, position, end, doubts):
            return False
        position = plain.find(word, end)
    return True


def _is_word(plain: str, start: int, end: int) -> bool:
    before, after = plain[start - 1 : start], plain[end : end + 1]
    return not (before.isalnum() or before == "_" or after.isalnum() or after == "_")


def _is_taken_back(plain: str, end: int) -> bool:
    # No denial begins with one of these signs.
    is_denied = plain[end : end + 1] not in ".,!" and phrases.DENIED_AFTER.match(plain, end)
    return bool(is_denied or phrases.TAKEN_BACK.match(plain, end))
