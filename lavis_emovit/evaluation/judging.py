"""An optional judge of explanations: a chat model that sees the image and scores the explanation from 1 to 5, reads the
emotion of its reason without the image, or checks the steps of the reason.

Its scores are reported apart from the metrics and are never a headline, because judges differ, change and disappear.
Each judgement is kept with the name of the judge, the name and hash of the prompt, and the raw reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from lavis_emovit.chat.json_text import find_json
from lavis_emovit.chat.request import ChatImage, ChatRequest, Message
from lavis_emovit.chat.settings import ChatSettings
from lavis_emovit.emotion.answer_reasons import without_labels
from lavis_emovit.emotion.label_set import LabelSet, spelling
from lavis_emovit.evaluation.endpoints import Endpoint
from lavis_emovit.evaluation.metrics.explanations import EXPLAINED_FACTS, reason_of
from lavis_emovit.evaluation.metrics.reasons import ReasonMetrics, reason_metrics, steps_of
from lavis_emovit.evaluation.metrics.resampling import bootstrap_interval
from lavis_emovit.evaluation.metrics.results import Interval, Result
from lavis_emovit.evaluation.predictions import PredictionRow
from lavis_emovit.generation.prompts import Prompt, load_prompt
from lavis_emovit.paths import expand_home
from lavis_emovit.settings import Settings

SCORES = (1, 2, 3, 4, 5)
JudgedPart = Literal["quality", "emotion", "steps"]
_PROMPTS = Path(__file__).with_name("prompts")
_PROMPT_FILES: Mapping[JudgedPart, Path] = {
    "quality": _PROMPTS / "explanation_judge.1.txt",
    "emotion": _PROMPTS / "reason_emotion_judge.1.txt",
    "steps": _PROMPTS / "reason_steps_judge.1.txt",
}
NO_EMOTION = "none"
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
    prompt: str | None = None  # file with your own instructions for the judge of quality
    # `quality`: a score from 1 to 5; `emotion`: the emotion that the reason alone leads to; `steps`: which are right.
    parts: tuple[JudgedPart, ...] = Field(default=("quality",), min_length=1)

    def endpoint(self) -> ChatSettings:
        return ChatSettings.model_validate({"temperature": 0.0, "max_output_tokens": 300, **self.chat})

    def load_prompt(self, part: JudgedPart = "quality") -> Prompt:
        """The judge's instructions, with their hash. UserError if the file `prompt` cannot be read."""
        own = self.prompt if part == "quality" else None
        return load_prompt("explanation_judge", file=expand_home(own) if own else _PROMPT_FILES[part])


@dataclass(frozen=True)
class Judgement:
    """What a judge says about one part of an explanation; None for a reply that cannot be used."""

    instance_id: str
    judge: str  # name of the model
    prompt: str
    prompt_sha256: str
    score: int | None  # 1 to 5, or None for a reply without one
    reason: str
    reply: str | None  # raw
    part: JudgedPart = "quality"
    emotion: str | None = None  # a label, or `none`
    steps: tuple[bool, ...] | None = None


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


def reason_request(
    row: PredictionRow, image: ChatImage, part: JudgedPart, prompt: Prompt, settings: ChatSettings, label_set: LabelSet
) -> ChatRequest:
    """The request about the reason of one explanation: its emotion by the text alone, or its steps with the image."""
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False}
    if part == "emotion":
        masked = without_labels(reason_of(row.answer or ""), label_set)
        text = f"Emotions: {', '.join(label_set.labels)}\n\nText:\n{masked}"
        schema["properties"] = {"emotion": {"type": "string", "enum": [*label_set.labels, NO_EMOTION]}}
    else:
        steps = enumerate(steps_of(row.answer or ""), start=1)
        listed = "\n".join(f"{number}. {step}" for number, step in steps)
        text = f"Emotion that people feel: {row.label}\n\nSteps:\n{listed}"
        schema["properties"] = {"steps": {"type": "array", "items": {"type": "integer", "enum": [0, 1]}}}
    schema["required"] = list(schema["properties"])
    return ChatRequest(
        model=settings.model,
        messages=(Message("system", prompt.text), Message("user", text, (image,) if part == "steps" else ())),
        parameters=settings.parameters(),
        prompt=prompt.name,
        schema=schema,
        about={"record": row.record_id, "part": part},
    )


def read_reason(
    row: PredictionRow,
    reply: str | None,
    part: JudgedPart,
    prompt: Prompt,
    settings: ChatSettings,
    label_set: LabelSet,
    reason: str = "",
) -> Judgement:
    """The judgement of a reply: one of the labels or `none`, or a 0 or 1 for each step."""
    content = find_json(reply or "")
    found: dict[str, Any] = {}
    if isinstance(content, dict) and part == "emotion":
        named = content.get("emotion")
        if isinstance(named, str):
            is_none = named.strip().casefold() == NO_EMOTION
            found["emotion"] = NO_EMOTION if is_none else label_set.by_spelling.get(spelling(named.strip().casefold()))
    elif isinstance(content, dict):
        steps = content.get("steps")
        wanted = len(steps_of(row.answer or ""))
        if (
            isinstance(steps, list)
            and len(steps) == wanted
            and all(type(step) is int and step in (0, 1) for step in steps)
        ):
            found["steps"] = tuple(map(bool, steps))
    return Judgement(
        row.instance_id, settings.model, prompt.name, prompt.sha256, None, reason, reply, part=part, **found
    )


def judged_reasons(
    judgements: Sequence[Judgement], rows: Sequence[PredictionRow], label_set: LabelSet, group_by: str | None
) -> ReasonMetrics | None:
    """The metrics of the judged explanations, by the judge; what it did not judge is read from words. None without any.

    A reply that cannot be used counts as no emotion, and as no right step.
    """
    of_part = {part: {one.instance_id: one for one in judgements if one.part == part} for part in ("emotion", "steps")}
    judged = of_part["emotion"].keys() | of_part["steps"].keys()
    chosen = [row for row in rows if row.instance_id in judged and row.error is None]
    if not chosen:
        return None
    emotions = {name: one.emotion for name, one in of_part["emotion"].items()} if of_part["emotion"] else None
    steps = {name: one.steps or () for name, one in of_part["steps"].items()} if of_part["steps"] else None
    source = judgements[0].judge
    return reason_metrics(chosen, label_set, group_by=group_by, source=source, emotions=emotions, steps=steps)


def judge_metrics(judgements: Sequence[Judgement]) -> JudgeMetrics | None:
    """Metrics of a judge's scores; None without judgements of quality."""
    judgements = [one for one in judgements if one.part == "quality"]
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
