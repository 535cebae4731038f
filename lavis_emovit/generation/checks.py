"""Named checks of generated pairs. Pairs that fail are stored separately with the reasons; they are never repaired.

All checks are deterministic and know only English.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lavis_emovit.chat.scratch import Scratch
from lavis_emovit.emotion.answers import labels_named, may_claim, read_emotion
from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.generation.kinds import Kind
from lavis_emovit.generation.reading import Pair

# Name -> meaning, for reports.
REASONS = {
    "unreadable": "the reply contains no readable question and answer",
    "refused": "the model refused to answer",
    "cut": "the reply was cut off at the output limit",
    "bad_json": "the reply is not the requested JSON",
    "empty": "the reply is empty",
    "missing_pair": "fewer questions than requested",
    "extra_pair": "more questions than requested; the first ones were used",
    "too_short": "the answer or the question has too few words",
    "too_long": "the answer or the question has too many words",
    "not_english": "not English",
    "not_a_question": "the question is not a question or request",
    "label_leak": "the question reveals the label",
    "contradicts_label": "the answer claims another emotion than the label",
    "mentions_source": "it mentions captions, attributes or scores instead of the image",
    "talks_about_itself": "the model talks about itself or to the user",
    "near_duplicate": "almost identical to an earlier pair",
    "judge": "rejected by the judge model",
}

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_SOURCE = re.compile(
    r"\bcaption(?:s|ed)?\b|\battributes?\b|\bannotat(?:ed|ion|ions)\b|\bmetadata\b|\bdataset\b|"
    r"\b(?:brightness|colou?rfulness)\b[^.?!]{0,30}\b(?:score|value|level|rating|is|of)\b[^.?!]{0,12}\d|"
    r"\b(?:score|value|rating|level) of \d?\.?\d|\b[01]\.\d\b(?! s\b| seconds?\b)|"
    r"\b(?:according to|based on|as stated in|as given in|from) the (?:given |provided )?"
    r"(?:text|notes?|description|information|data|labels?|tags?)\b|"
    r"\b(?:given|provided|known|labell?ed|stated|intended|target) (?:emotion|label|information|description)\b|"
    r"\bthe emotion label\b",
    re.IGNORECASE,
)
_ABOUT_ITSELF = re.compile(
    r"\bas an? (?:ai|artificial intelligence|language model)\b|\b(?:hope this helps|let me know if|feel free to ask)\b|"
    r"\bi(?:'m| am) (?:unable|not able) to\b|\bi (?:can't|cannot) (?:see|view|help|assist|provide)\b|"
    r"\bhere (?:is|are) (?:the|your|a|three|two|one) (?:question|pair|answer)",
    re.IGNORECASE,
)
# Places with the name of an emotion claim no emotion.
_PLACE_NAMES = re.compile(r"\bamusement[ _](?:park|arcade|ride|centre|center)s?\b", re.IGNORECASE)
_COMMON_WORDS = frozenset(
    """a an and are as at be by can for from has have he her his how in is it its not of on or she so that the their
    there they this to was what where which who why with would you your""".split()
)
_ASKS = re.compile(
    r"\?|^\s*(?:describe|name|give|tell|explain|say|list|look|write|imagine|suppose|compare|choose|pick)\b",
    re.IGNORECASE,
)
_MAX_QUESTION_WORDS = 80
_MIN_QUESTION_WORDS = 2
# Shorter texts do not contain enough common words to identify their language.
_MIN_WORDS_FOR_LANGUAGE = 8
_MIN_SHARE_OF_COMMON_WORDS = 0.12
_MIN_SHARE_OF_LATIN_LETTERS = 0.9


def check_pair(pair: Pair, kind: Kind, label: str | None, label_set: LabelSet | None) -> list[str]:
    """Names of the checks that a pair fails, see `REASONS`; `label` is the emotion of the image."""
    question_words, answer_words = _WORD.findall(pair.question), _WORD.findall(pair.answer)
    low, high = kind.words
    failed = []
    if len(answer_words) < low or len(question_words) < _MIN_QUESTION_WORDS:
        failed.append("too_short")
    if len(answer_words) > high or len(question_words) > _MAX_QUESTION_WORDS:
        failed.append("too_long")
    if not (is_english(pair.question) and is_english(pair.answer)):
        failed.append("not_english")
    if not _ASKS.search(pair.question):
        failed.append("not_a_question")
    if label is not None and label_set is not None:
        if leaks_label(pair.question, label, label_set):
            failed.append("label_leak")
        claims = pair.answer.partition(kind.claims_after)[2] if kind.claims_after else pair.answer
        if contradicts_label(claims, label, label_set):
            failed.append("contradicts_label")
    if _SOURCE.search(pair.question) or _SOURCE.search(pair.answer):
        failed.append("mentions_source")
    if _ABOUT_ITSELF.search(pair.question) or _ABOUT_ITSELF.search(pair.answer):
        failed.append("talks_about_itself")
    return failed


def leaks_label(question: str, label: str, label_set: LabelSet) -> bool:
    """Whether a question names the label of the image ("Why is the man so sad?" for sadness).

    Only whole words and their inflections count. A question that lists all labels of the set reveals nothing.
    """
    named = labels_named(question, label_set)
    return label_set.canonical(label) in named and len(named) < len(label_set)


def contradicts_label(answer: str, label: str, label_set: LabelSet) -> bool:
    """Whether an answer claims an emotion of the opposite polarity.

    Claims are read as in evaluation (`emotion/answers.py`). Another label of the same polarity is no contradiction:
    people in an image may feel something else than the viewer.
    """
    claims = _PLACE_NAMES.sub("place", answer)
    opposite = label_set.opposites(label)
    return may_claim(claims, opposite, label_set) and read_emotion(claims, label_set).label in opposite


def is_english(text: str, words: Sequence[str] | None = None) -> bool:
    """Whether a text has Latin letters and, if it is long enough, common English words.

    `words` are those of the text with its case folded, if they are known.
    """
    if not text.isascii():
        letters = [character for character in text if character.isalpha()]
        latin = sum(character.isascii() or "\u00c0" <= character <= "\u024f" for character in letters)
        if latin < _MIN_SHARE_OF_LATIN_LETTERS * len(letters):
            return False
    words = _WORD.findall(text.casefold()) if words is None else words
    if len(words) < _MIN_WORDS_FOR_LANGUAGE:
        return bool(words)
    return sum(map(_COMMON_WORDS.__contains__, words)) >= _MIN_SHARE_OF_COMMON_WORDS * len(words)


class NearDuplicates:
    """Finds pairs that are almost identical to an earlier one, by MinHash over trigrams of words.

    Broder, "On the resemblance and containment of documents" (1997): the share of equal minima of many hash functions
    estimates the Jaccard index of two sets. Minima are stored in bands; pairs that share a band are compared. Both are
    on disk, in the folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._bands = Scratch("key INTEGER PRIMARY KEY, number INTEGER", folder)
        self._minima = Scratch("number INTEGER PRIMARY KEY, minima BLOB", folder)

    def seen(self, text: str) -> bool:
        """Whether an earlier text was almost identical; if not, store this one."""
        minima = _minima(text)
        keys = [hash((band, minima[4 * band : 4 * band + 4].tobytes())) for band in range(_NUM_BANDS)]
        for (number,) in self._bands.execute(_FIND_KEYS, keys).fetchall():
            (other,) = self._minima.execute("SELECT minima FROM scratch WHERE number = ?", (number,)).fetchone()
            if np.mean(np.frombuffer(other, np.uint32) == minima) >= _MIN_JACCARD:
                return True
        number = self._minima.execute("INSERT INTO scratch (minima) VALUES (?)", (minima.tobytes(),)).lastrowid
        self._bands.execute(_ADD_KEYS, [value for key in keys for value in (key, number)])
        return False

    def clear(self) -> None:
        """Forget all texts."""
        self._bands.execute("DELETE FROM scratch")
        self._minima.execute("DELETE FROM scratch")


_MIN_JACCARD = 0.85
_NUM_HASHES = 64
_NUM_BANDS = 16
_FIND_KEYS = f"SELECT DISTINCT number FROM scratch WHERE key IN ({', '.join('?' * _NUM_BANDS)})"
# The first text with a key stays.
_ADD_KEYS = f"INSERT OR IGNORE INTO scratch VALUES {', '.join(['(?, ?)'] * _NUM_BANDS)}"
_MASKS = np.random.default_rng(7).integers(1, 2**32, size=(2, _NUM_HASHES), dtype=np.uint64)
_PRIME = np.uint64(4294967311)  # the first prime above 2^32


def _minima(text: str) -> np.ndarray:
    """uint32 [64], the minimum of every hash function over the trigrams of words."""
    words = [word.casefold() for word in _WORD.findall(text)]
    trigrams = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
    hashes = np.array([zlib.crc32(trigram.encode()) for trigram in trigrams], dtype=np.uint64)
    # a x + b stays below 2^64, since a, b, x are below 2^32.
    mixed = (hashes[:, None] * _MASKS[0] + _MASKS[1]) % _PRIME
    return mixed.min(axis=0).astype(np.uint32)
