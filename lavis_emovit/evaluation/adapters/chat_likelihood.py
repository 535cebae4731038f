"""Candidate scores from an endpoint: log-probabilities of the first token, or probabilities of System One.

No chat endpoint scores a given text. Two kinds of them return probabilities that can be read as scores:

- `logprobs`: chat completions with `top_logprobs`. The question lists the candidates by letters (or as they are, if
  they are as short as yes, no or 7), and the score of a candidate is the log-probability of its letter as the first
  token of the answer. The tokens "A", " a" and "A." stand for the same letter; their probabilities are added.
- `systemone`: `POST /v1/systemone`, see `lavis_emovit/chat/decisions.py`.

Both are one token, so the mean over tokens is the sum.
"""

from __future__ import annotations

import math
import string
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lavis_emovit.chat.request import ChatImage, ChatRequest, Message
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.emotion.questions import BY_CANDIDATE, BY_LETTER
from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.questions import Question

Form = Literal["logprobs", "systemone"]

MAX_CANDIDATES = len(string.ascii_uppercase)
_LONGEST_MARK = 3  # characters of a candidate that is its own mark
# The first token may be blank.
_NUM_TOKENS = 4
_AROUND_A_MARK = string.whitespace + ".:,;()[]*\"'`"


def scoring_request(
    question: Question, images: tuple[ChatImage, ...], settings: ChatSettings, form: Form, top_logprobs: int
) -> ChatRequest:
    """The request whose reply has the scores of a question's candidates.

    Raises:
        UserError: more candidates than letters.
    """
    if len(question.candidates) > MAX_CANDIDATES:
        raise UserError(
            f"a question has {len(question.candidates)} candidates, and an endpoint can tell at most {MAX_CANDIDATES} "
            "apart by letters; use the method generation, or a coarser label_set"
        )
    prompt = f"evaluation/{question.key}/{form}"
    if form == "systemone":
        message = Message("user", question.text, images)
        return ChatRequest(settings.model, (message,), {}, prompt=prompt, choices=question.candidates)
    parameters = {**settings.parameters(), "max_output_tokens": _NUM_TOKENS}
    parameters |= {"logprobs": True, "top_logprobs": top_logprobs}
    text = f"{question.text}\n\n{_instruction(question.candidates)}"
    return ChatRequest(settings.model, (Message("user", text, images),), parameters, prompt=prompt)


def _instruction(candidates: Sequence[str]) -> str:
    marks = marks_of(candidates)
    if marks == tuple(candidates):
        return BY_CANDIDATE.format(candidates=", ".join(candidates))
    listed = "\n".join(f"{mark}. {candidate}" for mark, candidate in zip(marks, candidates))
    return BY_LETTER.format(options=listed, last=marks[-1])


def marks_of(candidates: Sequence[str]) -> tuple[str, ...]:
    """The token that stands for each candidate: a letter, or the candidates themselves if all are short."""
    if all(len(candidate) <= _LONGEST_MARK for candidate in candidates):
        return tuple(candidates)
    return tuple(string.ascii_uppercase[: len(candidates)])


def scores_of_row(row: Mapping[str, Any], candidates: Sequence[str], form: Form) -> list[float] | str | None:
    """Scores from a row of the ledger, what the model wrote instead of a candidate, or None without probabilities."""
    found = row.get("logprobs")
    if form == "systemone":
        return [float(value) for _, value in found] if found else None
    if not found:
        # A model that refuses has written an answer; an endpoint that ignores `logprobs` has not.
        return str(row.get("reply") or "") if row["status"] == "refused" else None
    scores = scores_from_tokens(found, marks_of(candidates))
    return str(row.get("reply") or "") if scores is None else scores


def scores_from_tokens(tokens: Sequence[Sequence[Any]], marks: Sequence[str]) -> list[float] | None:
    """Natural log-probability of each mark, from (token, log-probability) of the likeliest tokens; None without any.

    A mark that is not among them gets the most that it can have: the probability of the last of them, or what they
    leave, whichever is less.
    """
    places = {mark.casefold(): place for place, mark in enumerate(marks)}
    shares = [0.0] * len(marks)
    for token, value in tokens:
        place = places.get(token.strip(_AROUND_A_MARK).casefold())
        if place is not None:
            shares[place] += math.exp(value)
    if not any(shares):
        return None
    powers = [math.exp(value) for _, value in tokens]
    least = max(min(*powers, 1.0 - sum(powers)), sys.float_info.min)
    return [math.log(share or least) for share in shares]
