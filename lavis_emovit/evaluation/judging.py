"""An optional judge of explanations: a chat model that sees the image and scores the explanation from 1 to 5.

Its scores are reported apart from the metrics and are never a headline, because judges differ, change and disappear.
Each judgement is kept with the name of the judge, the name and hash of the prompt, and the raw reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from lavis_emovit.chat.json_text import find_json
from lavis_emovit.chat.request import ChatImage, ChatRequest, Message
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.evaluation.endpoints import Endpoint
from lavis_emovit.evaluation.metrics.explanations import EXPLAINED_FACTS
from lavis_emovit.evaluation.metrics.resampling import bootstrap_interval
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.generation.prompts import Prompt, load_prompt
from lavis_emovit.settings import Settings

SCORES = (1, 2, 3, 4, 5)
_PROMPT_FILE = Path(__file__).with_name("prompts") / "explanation_judge.1.txt"
_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"score": {"type": "integer", "enum": list(SCORES)}, "reason": {"type": "string"}},
    "required": ["score", "reason"],
    "additionalProperties": False,
}
_NAMES = {
    "attributes.scene": "place",
    "attributes.object": "things",
    "attributes.facial_expression": "expression of the face",
    "attributes.human_action": "what the person is doing",
}


class JudgeSettings(Settings):
    """`suite.judge`."""

    chat: Endpoint  # the default temperature is 0
    limit: int | None = Field(default=None, ge=1)  # number of explanations of each model; None: all
    prompt: str | None = None  # file with your own instructions for the judge

    def endpoint(self) -> ChatSettings:
        return ChatSettings.model_validate({"temperature": 0.0, "max_output_tokens": 300, **self.chat})

    def load_prompt(self) -> Prompt:
        """The judge's instructions, with their hash. UserError if the file `prompt` cannot be read."""
        return load_prompt("explanation_judge", file=Path(self.prompt).expanduser() if self.prompt else _PROMPT_FILE)


@dataclass(frozen=True)
class Judgement:
    """The score of one explanation."""

    instance_id: str
    judge: str  # name of the model
    prompt: str
    prompt_sha256: str
    score: int | None  # 1 to 5, or None for a reply without one
    reason: str
    reply: str | None  # raw


class JudgeMetrics(Result):
    """Scores of a judge, from 1 to 5."""

    judge: str
    prompt: str
    num_judged: int  # explanations with a score; `num_unusable` replies had none
    num_unusable: int
    mean: float | None  # None without scores
    interval: Interval | None
    counts: dict[int, int]  # score -> number of explanations


def judge_request(row: PredictionRow, image: ChatImage, prompt: Prompt, settings: ChatSettings) -> ChatRequest:
    """The request about one explanation: the image, known facts about it, and the answer."""
    known = [f"{_NAMES[name]}: {(row.slices or {})[name]}" for name in EXPLAINED_FACTS if name in (row.slices or {})]
    text = "\n".join([f"Emotion that people feel: {row.label}", *known, "", f"Explanation to judge:\n{row.answer}"])
    return ChatRequest(
        model=settings.model,
        messages=(Message("system", prompt.text), Message("user", text, (image,))),
        parameters=settings.parameters(),
        prompt=prompt.name,
        schema=_SCHEMA,
        about={"record": row.record_id},
    )


def read_judgement(
    row: PredictionRow, reply: str | None, prompt: Prompt, settings: ChatSettings, reason: str = ""
) -> Judgement:
    """The judgement of a reply: a score that is a whole number from 1 to 5. `reason` is why there is no reply."""
    score = None
    content = find_json(reply or "")
    if isinstance(content, dict):
        given = content.get("score")
        score = given if isinstance(given, int) and not isinstance(given, bool) and given in SCORES else None
        reason = str(content.get("reason") or "")
    return Judgement(row.instance_id, settings.model, prompt.name, prompt.sha256, score, reason, reply)


def judge_metrics(judgements: Sequence[Judgement]) -> JudgeMetrics | None:
    """Metrics of a judge's scores; None without judgements."""
    if not judgements:
        return None
    scores = np.array([one.score for one in judgements if one.score is not None], dtype=float)
    return JudgeMetrics(
        judge=judgements[0].judge,
        prompt=judgements[0].prompt,
        num_judged=len(scores),
        num_unusable=len(judgements) - len(scores),
        mean=float(scores.mean()) if len(scores) else None,
        interval=bootstrap_interval(scores, value_range=(1.0, 5.0)) if len(scores) else None,
        counts={score: int((scores == score).sum()) for score in SCORES},
    )
