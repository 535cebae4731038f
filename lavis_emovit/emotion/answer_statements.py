"""Read whether an answer calls a statement correct or incorrect."""

from __future__ import annotations

import re

from lavis_emovit.emotion.answer_claims import EmotionAnswer, Text, Words, claimed_answer, plain_text
from lavis_emovit.emotion.label_set import folded
from lavis_emovit.emotion.templates import answer_text

CORRECT, INCORRECT = "correct", "incorrect"
_OPPOSITE = {CORRECT: INCORRECT, INCORRECT: CORRECT}
_WORDS = Words(
    {
        (word,): judgement
        for judgement, words in (
            (CORRECT, "correct true right accurate yes correctly accurately valid"),
            (INCORRECT, "incorrect false wrong inaccurate untrue incorrectly inaccurately invalid"),
        )
        for word in words.split()
    }
)
_OPENING = re.compile(r"[\s\"'*(\[]*(?P<word>yes|no)\b(?![\w'-]|\s+(?:one|emotion|feeling|doubt))", re.IGNORECASE)
# "true joy" and "on the right" judge nothing, and "correct or incorrect?" repeats the question.
_JUDGES = (
    r"because|since|as|that|in|for|to|about|and|but|given|statement|description|sentence|claim|answer|overall|here"
)
_NO_JUDGEMENT = re.compile(
    rf"\b(?:true|right|valid)\b(?=\s+(?!(?:{_JUDGES})\b)[a-z])|\b(?:the|upper|lower|top|bottom)\s+right\b(?!\s+(?:{_JUDGES})\b)"
    r"|\b(?:correct|true)(?:\s+or\s+|\s*/\s*)(?:incorrect|false)\b[?:.]?"
)
_HALF = re.compile(
    r"\b(?:partly|partially|half|somewhat|not\s+(?:always|necessarily))\s+(?:correct|true|right|accurate|incorrect|false|wrong)\b"
)


def read_statement(text: str) -> EmotionAnswer:
    """`correct` or `incorrect` as the label.

    Other words for them are true and false, right and wrong, accurate and inaccurate, and yes and no at the beginning.
    "Not correct" is incorrect. In doubt the status is not `ok`: "an image that fits" and "Amusement" judge nothing, and
    "partly correct" is ambiguous.
    """
    plain = _NO_JUDGEMENT.sub(" ", plain_text(folded(answer_text(text))))
    if _HALF.search(plain):
        return EmotionAnswer(None, "ambiguous")
    opening = _OPENING.match(plain)
    first = None if opening is None else CORRECT if opening["word"] == "yes" else INCORRECT
    rest = plain if opening is None else plain[opening.end() :]
    answer = claimed_answer(Text(rest, _WORDS))
    label = answer.label
    if answer.status == "negated":
        # There are only two answers.
        denied = {mention.label for mention in Text(rest, _WORDS).mentions}
        label = _OPPOSITE[denied.pop()] if len(denied) == 1 else None
    if first is not None and label is None and answer.status in ("invalid", "negated"):
        label = first
    if label is not None and first not in (None, label):
        return EmotionAnswer(None, "ambiguous")
    if label is not None:
        return EmotionAnswer(label, "ok")
    return answer if answer.status != "negated" else EmotionAnswer(None, "ambiguous")
