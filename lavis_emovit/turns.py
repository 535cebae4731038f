"""The turns of conversations in LLaVA's and in the chat form, as pairs of question and answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lavis_emovit.errors import DataError

_IMAGE_TOKEN = re.compile(r"\s*<image>\s*")
_SPEAKERS = {"user": "human", "assistant": "gpt"}


def read_turns(
    value: Any, where: str, *, independent: bool = False, is_exported: bool = False
) -> list[tuple[str, str]]:
    """(question, answer) pairs of one item, without the image placeholder; texts of `is_exported` keep their spaces.

    A later question contains the earlier turns in the form of BLIP-2's chat (Li et al., ICML 2023), because "And the
    left one?" has no answer without them. So does the first one if there is a system message. `independent` questions
    contain nothing else.
    """
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: 'conversations' must be a list of human and gpt turns in pairs")
    turns = [_turn(turn, f"{where}: turn {position}", is_exported) for position, turn in enumerate(value)]
    past = turns.pop(0)[1] if turns[0][0] == "system" else ""
    if not turns or len(turns) % 2:
        raise DataError(f"{where}: 'conversations' must be a list of human and gpt turns in pairs")
    pairs = []
    for position, ((asker, question), (answerer, answer)) in enumerate(zip(turns[0::2], turns[1::2])):
        if (asker, answerer) != ("human", "gpt"):
            raise DataError(
                f"{where}: turns {2 * position} and {2 * position + 1} must be from human and gpt, in this order; "
                f"they are from {asker} and {answerer}"
            )
        pairs.append((f"{past} Question: {question}" if past else question, answer))
        if not independent:
            past = f"{past} Question: {question} Answer: {answer}".strip()
    return pairs


def _turn(turn: Any, where: str, is_exported: bool) -> tuple[str, str]:
    """(speaker, text) of `{"from": ..., "value": ...}` or `{"role": ..., "content": ...}`."""
    turn = turn if isinstance(turn, Mapping) else {}
    speaker, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if isinstance(text, list) and all(isinstance(part, Mapping) for part in text):
        # Tables give every part all keys, so that of an image has an empty text.
        texts = [part.get("text") for part in text if part.get("type") == "text" or part.get("text") is not None]
        text = " ".join(texts) if all(isinstance(one, str) for one in texts) else None
    if not isinstance(speaker, str) or not isinstance(text, str):
        raise DataError(f"{where} must be {{'from': 'human' or 'gpt', 'value': <text>}}")
    # FABA-Instruct has the image behind the question.
    in_value = text.removeprefix("<image>\n").removesuffix("\n<image>")
    exact = in_value if "value" in turn else text.removeprefix("<image>")
    if not is_exported or "<image>" in exact:
        exact = _IMAGE_TOKEN.sub(" ", text).strip()
    return _SPEAKERS.get(speaker, speaker), exact
