"""Reward of a judge: whether the result of an answer follows from its reasoning."""

from __future__ import annotations

from pydantic import Field

from lavis_emovit.chat.json_text import find_json
from lavis_emovit.emotion.answer_numbers import read_numbers
from lavis_emovit.emotion.templates import answer_text, reasoning_text
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.rewards.registry import Question, Reward, RewardSettings, register_reward

_QUESTION = (
    "Below are the reasoning about an image and the conclusion of the same author. Judge whether the conclusion "
    "follows from the reasoning alone. 5: it follows with certainty. 4: it is the likely conclusion. "
    "3: others are as likely. "
    "2: hardly anything leads to it. 1: the reasoning leads to another conclusion, or contradicts this one.\n\n"
    "Reasoning:\n{reasoning}\n\nConclusion:\n{answer}\n\nReply with the number only."
)
_SCORES = (1.0, 5.0)


class StatementSettings(RewardSettings):
    """The judge's question."""

    question: str = _QUESTION  # with {reasoning} and {answer}
    # Reward for a reply without a number from 1 to 5; None: an error, which ends the training.
    unreadable: float | None = Field(default=None, ge=0.2, le=1.0)


def statement(answer: str, record: EmotionRecord, settings: StatementSettings, reply: str | None = None) -> float:
    """A judge's score from 1 to 5, divided by 5: whether the result can be derived from the reasoning.

    1/5 for a contradiction, and for an answer without reasoning or result. Range 0.2 to 1. Source: EmObserver, the
    second stage of its reinforcement learning.
    """
    if reply is None:
        return 0.2
    score = read_score(reply)
    if score is None and settings.unreadable is None:
        raise DataError(
            f"reward 'statement': the judge's reply about record '{record.id}' has no number from 1 to 5: "
            f"{reply[:200]!r}. Use another judge, or set `unreadable`."
        )
    return settings.unreadable if score is None else score / _SCORES[1]  # type: ignore[return-value]


def read_score(reply: str) -> float | None:
    """The whole number from 1 to 5 that a reply gives: alone, as `score: 4`, or in JSON; else None."""
    content = find_json(reply)
    if isinstance(content, dict):
        reply = f"score: {content.get('score')}"
    elif "score" not in reply.lower():
        reply = f"score: {reply}"  # "4/5" alone is no number of a scale
    value = read_numbers(reply, ("score",), _SCORES)["score"].value
    return value if value is not None and value.is_integer() else None


def _question(answer: str, record: EmotionRecord, settings: StatementSettings) -> Question | None:
    reasoning, result = reasoning_text(answer), answer_text(answer)
    if not reasoning or not result:
        return None
    text = settings.question.replace("{reasoning}", reasoning).replace("{answer}", result)
    return Question(text, record, with_image=False)


register_reward(
    Reward(
        "statement",
        statement,
        StatementSettings,
        range=(0.2, 1.0),
        needs=frozenset({"judge"}),
        question=_question,
    )
)
