"""Metrics of explanations from their words: the emotion, contradictions, mentioned facts, and style.

All of them are deterministic, need no model and know only English. For quality, use people or the optional judge
(`lavis_emovit.evaluation.judging`).
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np

from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.evaluation.metrics.registry import MeasuredRows, Metric, register_metric
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.metrics.rows import resamples_of, without_errors
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.generation.checks import contradicts_label, is_english

# Fields of a record that an explanation can mention; they are among the slices of its rows.
EXPLAINED_FACTS = tuple(f"attributes.{name}" for name in ("scene", "object", "facial_expression", "human_action"))

MIN_REASON_WORDS = 5  # after the emotion

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_SENTENCE = re.compile(r"[^.!?]*[^\W_][^.!?]*(?:[.!?]+|$)")
_REASON_MARK = re.compile(r"\b(?:reason|explanation|because)\b\s*:?", re.IGNORECASE)
_LITTLE_WORDS = frozenset("a an and at by for in of on or the to with".split())
_VOWELS = "aeiouy"


class ExplanationMetrics(Result):
    """Metrics of explanations; shares are over the answered rows unless stated otherwise.

    Attributes:
        consistency: share with the true emotion; invalid answers count as wrong.
        contradiction: share, among answers with an emotion and a reason, whose reason claims an emotion of the other
            polarity; None if there are no such answers.
        grounding: mean share of a record's facts that the answer mentions, over the `num_with_facts` records with
            facts; None if there are none.
        num_words, num_sentences: means of an answer.
        repetition: mean share of three-word sequences that occurred earlier in the same answer.
        english: share in English, by letters and common words; `finished`: share with a complete last sentence.
    """

    num_samples: int
    num_errors: int
    consistency: float
    consistency_interval: Interval
    num_without_reason: int
    contradiction: float | None
    grounding: float | None
    grounding_interval: Interval | None
    num_with_facts: int
    num_words: float
    num_sentences: float
    repetition: float
    english: float
    finished: float


def explanation_metrics(
    rows: Sequence[PredictionRow], label_set: LabelSet, *, group_by: str | None = None
) -> ExplanationMetrics:
    """Measure written explanations: rows with an `answer`, a `prediction`, and `EXPLAINED_FACTS` in `slices`.

    Raises:
        DataError: no rows, or only errors.
    """
    answered = without_errors(rows)
    texts = [row.answer or "" for row in answered]
    reasons = [reason_of(text) for text in texts]
    right_N = np.array([row.prediction is not None and row.prediction == row.label for row in answered], dtype=float)
    has_reason = [_has_words(reason, MIN_REASON_WORDS) for reason in reasons]
    claims = [
        contradicts_label(reason, row.prediction, label_set)
        for row, reason, is_one in zip(answered, reasons, has_reason)
        if is_one and row.prediction is not None
    ]
    # Row by row: the words of all texts together need much memory.
    shares, num_words, repeated, english = zip(
        *(
            (grounding(words, row.slices or {}), len(words), repetition(words), is_english(text, words))
            for row, text in zip(answered, texts)
            for words in (words_of(text.casefold()),)
        )
    )
    grounded = [row for row, share in zip(answered, shares) if share is not None]
    shares_M = np.array([share for share in shares if share is not None])
    return ExplanationMetrics(
        num_samples=len(answered),
        num_errors=len(rows) - len(answered),
        consistency=float(right_N.mean()),
        consistency_interval=resamples_of(answered, group_by).mean_interval(right_N),
        num_without_reason=has_reason.count(False),
        contradiction=float(np.mean(claims)) if claims else None,
        grounding=float(shares_M.mean()) if grounded else None,
        grounding_interval=resamples_of(grounded, group_by).mean_interval(shares_M) if grounded else None,
        num_with_facts=len(grounded),
        num_words=float(np.mean(num_words)),
        num_sentences=float(np.mean([len(_SENTENCE.findall(text)) for text in texts])),
        repetition=float(np.mean(repeated)),
        english=float(np.mean(english)),
        finished=float(np.mean([text.rstrip("\"')\u201d ").endswith((".", "!", "?")) for text in texts])),
    )


def reason_of(text: str) -> str:
    """The text after "Reason:" or "because", or else after the first sentence."""
    if mark := _REASON_MARK.search(text):
        return text[mark.end() :].strip()
    return " ".join(part.strip() for part in _SENTENCE.findall(text)[1:])


def words_of(text: str) -> list[str]:
    """The words of a text; numbers and signs are none."""
    return _WORD.findall(text)


def _has_words(text: str, count: int) -> bool:
    return sum(1 for _ in itertools.islice(_WORD.finditer(text), count)) == count


def grounding(words: Sequence[str], slices: Mapping[str, str]) -> float | None:
    """The share of a record's facts that a text with these words mentions, or None if the record has no facts.

    A text mentions a fact if it contains all of its words, in any order and with any regular ending ("riding a horse"
    in "she rides her horses"). One of several alternatives ("beach/coast") is enough. Each object is a fact.
    """
    facts = facts_of(slices)
    if not facts:
        return None
    stems = set(map(stem, words))
    return sum(_is_mentioned(fact, stems) for fact in facts) / len(facts)


def mentions_any(words: Sequence[str], facts: Sequence[str]) -> bool:
    """Whether a text with these words mentions one of some facts, as in `grounding`."""
    stems = set(map(stem, words))
    return any(_is_mentioned(fact, stems) for fact in facts)


def _is_mentioned(fact: str, stems: set[str]) -> bool:
    return any(map(stems.issuperset, _needed(fact)))


def facts_of(slices: Mapping[str, str]) -> list[str]:
    """The facts of a record that a text can mention."""
    return [fact for name in EXPLAINED_FACTS if name in slices for fact in slices[name].split(", ") if fact.strip()]


@functools.lru_cache(maxsize=1 << 13)
def _needed(fact: str) -> tuple[frozenset[str], ...]:
    """For each alternative of a fact, the words that a text must have."""
    alternatives = [_WORD.findall(words) for words in re.split(r"/|\bor\b", fact.replace("_", " "))]
    needed = [frozenset(stem(word) for word in words if word.casefold() not in _LITTLE_WORDS) for words in alternatives]
    return tuple(words for words in needed if words)


@functools.lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """A word without its regular ending, so that its inflections are equal: `horses`, `riding`, `smiled`, `parties`.

    Only plural and verb endings are removed, so words with the same beginning (`cat`, `cathedral`) stay different.
    """
    word = word.casefold().replace("\u2019", "'").removesuffix("'s").removesuffix("'")
    if len(word) > 4 and word.endswith(("ies", "ied")):
        return word[:-3] + "i"
    for ending in ("ing", "ed", "es", "s"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= 3 and any(letter in _VOWELS for letter in rest) and not word.endswith("ss"):
            # "running" and "run": a doubled consonant belongs to the ending.
            if ending in ("ing", "ed") and rest[-1] == rest[-2] and rest[-1] not in "lsz":
                rest = rest[:-1]
            word = rest
            break
    word = word.removesuffix("e") if len(word) > 3 else word
    return word[:-1] + "i" if len(word) > 3 and word.endswith("y") else word


def repetition(words: Sequence[str]) -> float:
    """The share of three-word sequences that occurred earlier in a text, whose case is folded; 0 for fewer words."""
    sequences = list(zip(words, words[1:], words[2:]))
    return 1.0 - len(set(sequences)) / len(sequences) if sequences else 0.0


def _measure(measured: MeasuredRows) -> ExplanationMetrics:
    assert measured.label_set is not None
    return explanation_metrics(measured.rows, measured.label_set, group_by=measured.group_by)


register_metric(
    Metric(
        "explanations",
        kinds=("explanation",),
        result=ExplanationMetrics,
        less_is_better=frozenset({"contradiction", "repetition", "num_without_reason", "num_errors"}),
        measure=_measure,
    )
)
