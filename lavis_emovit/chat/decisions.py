"""Choices by `POST /v1/systemone`, which `transformers serve` offers: the probability of each, without any text.

The server lists the choices by letters and reads the logits of the letters as the next token (`DecisionPipeline` of
transformers 5.24). It refuses more than 26 choices, and models whose tokenizer has no token for each letter.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from lavis_emovit.chat.faults import Answer
from lavis_emovit.chat.prices import Usage
from lavis_emovit.chat.request import ChatRequest

_NAME = "answer"  # of the only question of a request
_LEAST = math.log(sys.float_info.min)  # a probability can be rounded to 0


def decision_body(request: ChatRequest) -> dict[str, Any]:
    """The JSON body of a request with `choices`: one message whose images come before its text."""
    (message,) = request.messages
    assets = {f"<image-{number}>": image for number, image in enumerate(message.images, start=1)}
    return {
        "model": request.model,
        "state": "".join(assets),
        "questions": {
            _NAME: {
                "type": "choice",
                "instructions": message.text,
                "criteria": dict.fromkeys(request.choices),
            }
        },
        "assets": {name: {"data_base64": image.data_url().partition(",")[2]} for name, image in assets.items()},
    }


def read_decision(content: Any, request: ChatRequest) -> Answer:
    """The outcome that a parsed answer object stands for; `logprobs` has the choices in the order of the request."""
    try:
        found = content["answers"][_NAME]["probabilities"]
        shares = {choice: float(found[choice]) for choice in request.choices}  # equal choices are one
        chosen, served_by = str(content["answers"][_NAME]["choice"]), str(content["model"])
    except (LookupError, TypeError, ValueError):
        return Answer("malformed", http=200, reason=f"no probability of each choice: {json.dumps(content)[:200]}")
    is_sound = all(0.0 <= share <= 1.0 for share in shares.values())
    if not is_sound or not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-3):
        return Answer("malformed", http=200, reason=f"the probabilities of the choices are {shares}")
    scores = {choice: math.log(share) if share > 0.0 else _LEAST for choice, share in shares.items()}
    num_read = (content.get("usage") or {}).get("input_tokens")
    return Answer(
        "ok",
        served_by=served_by,
        reply=chosen,
        logprobs=[[choice, scores[choice]] for choice in request.choices],
        usage=Usage(num_read, 0) if type(num_read) is int and num_read >= 0 else None,
    )
