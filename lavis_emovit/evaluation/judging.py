"""An optional judge of explanations: a chat model that sees the picture and scores the explanation from 1 to 5.

Its scores stand beside the measures and never in a headline: judges differ, drift and vanish. So each judgement is kept
with the judge's name, the prompt's name and hash, and the raw reply.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from lavis_emovit.chat.images import ChatImage
from lavis_emovit.chat.json_text import find_json
from lavis_emovit.chat.request import ChatRequest, Message
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.evaluation.endpoints import checked_endpoint
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
    """`suite.judge`.

    Attributes:
        chat: settings of the endpoint, with temperature 0 where none is given.
        limit: only the first so many explanations of each model.
        prompt: a file with a text of one's own in the place of ours.
    """

    chat: dict[str, Any] = Field(min_length=1)
    limit: int | None = Field(default=None, ge=1)
    prompt: str | None = None

    @field_validator("chat")
    @classmethod
    def _endpoint_is_valid(cls, value: dict[str, Any]) -> dict[str, Any]:
        return checked_endpoint(value)

    def endpoint(self) -> ChatSettings:
        """The endpoint's settings."""
        return ChatSettings.model_validate({"temperature": 0.0, "max_output_tokens": 300, **self.chat})

    def load_prompt(self) -> Prompt:
        """The judge's instructions, with their hash.

        Raises:
            UserError: a file of one's own that cannot be read.
        """
        return load_prompt("explanation_judge", file=Path(self.prompt).expanduser() if self.prompt else _PROMPT_FILE)


@dataclass(frozen=True)
class Judgement:
    """What a judge said of one explanation.

    Attributes:
        instance_id: of the row.
        judge: the model's name.
        prompt, prompt_sha256: its instructions.
        score: 1 to 5, or None for a reply that holds none.
        reason: in the judge's words.
        reply: as it came; None where there was none.
    """

    instance_id: str
    judge: str
    prompt: str
    prompt_sha256: str
    score: int | None
    reason: str
    reply: str | None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(vars(self), ensure_ascii=False)


class JudgeMetrics(Result):
    """Scores of a judge.

    Attributes:
        judge, prompt: who judged, by which instructions.
        num_judged: explanations with a score; `num_unusable` replies had none.
        mean, interval: of the scores, from 1 to 5; None where nothing was judged.
        counts: how often each score was given.
    """

    judge: str
    prompt: str
    num_judged: int
    num_unusable: int
    mean: float | None
    interval: Interval | None
    counts: dict[int, int]


def judge_request(row: PredictionRow, picture: ChatImage, prompt: Prompt, settings: ChatSettings) -> ChatRequest:
    """The request about one explanation: picture, what is known about it, and the answer."""
    known = [f"{_NAMES[name]}: {(row.slices or {})[name]}" for name in EXPLAINED_FACTS if name in (row.slices or {})]
    text = "\n".join([f"Emotion that people feel: {row.label}", *known, "", f"Explanation to judge:\n{row.answer}"])
    return ChatRequest(
        model=settings.model,
        messages=(Message("system", prompt.text), Message("user", text, (picture,))),
        parameters=settings.parameters(),
        prompt=prompt.name,
        schema=_SCHEMA,
        about={"record": row.record_id},
    )


def read_judgement(row: PredictionRow, reply: str | None, prompt: Prompt, settings: ChatSettings) -> Judgement:
    """A judgement out of a reply; a reply without a whole score from 1 to 5 has none."""
    score, reason = None, ""
    content = find_json(reply or "")
    if isinstance(content, dict):
        given = content.get("score")
        score = given if isinstance(given, int) and not isinstance(given, bool) and given in SCORES else None
        reason = str(content.get("reason") or "")
    return Judgement(row.instance_id, settings.model, prompt.name, prompt.sha256, score, reason, reply)


def judge_metrics(judgements: Sequence[Judgement]) -> JudgeMetrics | None:
    """Figures of a judge's scores; None for no judgements."""
    if not judgements:
        return None
    scores = np.array([one.score for one in judgements if one.score is not None], dtype=float)
    interval = bootstrap_interval(scores, value_range=(1.0, 5.0)) if len(scores) else None
    return JudgeMetrics(
        judge=judgements[0].judge,
        prompt=judgements[0].prompt,
        num_judged=len(scores),
        num_unusable=len(judgements) - len(scores),
        mean=float(scores.mean()) if len(scores) else None,
        interval=interval,
        counts={score: int((scores == score).sum()) for score in SCORES},
    )
