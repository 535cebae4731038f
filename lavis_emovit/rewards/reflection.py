"""Rewards by a second question to the model itself, about its own reasoning."""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from lavis_emovit.emotion.answers import read_emotion
from lavis_emovit.emotion.templates import TemplateName, get_template
from lavis_emovit.outside import without_thoughts
from lavis_emovit.records import EmotionRecord
from lavis_emovit.rewards.reading import label_set_of, true_labels
from lavis_emovit.rewards.registry import Question, Reward, RewardSettings, register_reward

_IMAGE_QUESTION = (
    "Somebody wrote this about the image:\n\n{text}\n\nIs all of it visible in the image? Answer with yes or no."
)
_EMOTION_QUESTION = (
    "Somebody wrote this about an image that you cannot see:\n\n{text}\n\n"
    "Which of these emotions does it describe: {options}? Answer with one of these words."
)
_YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


class ImageReflectionSettings(RewardSettings):
    """The parts of the answer that are shown to the model."""

    template: TemplateName = "emo_r3"
    parts: tuple[str, ...] = Field(default=("trigger",), min_length=1)

    @model_validator(mode="after")
    def _parts_exist(self) -> ImageReflectionSettings:
        names = get_template(self.template).part_names
        if strays := [name for name in self.parts if name not in names]:
            raise ValueError(f"template '{self.template}' has no part {', '.join(strays)}; it has {', '.join(names)}")
        return self

    def shown(self, answer: str) -> str:
        """The text of the parts; empty if one of them is missing."""
        found = get_template(self.template).take_apart(answer).parts
        texts = [found.get(name, "") for name in self.parts]
        return "\n".join(texts) if all(texts) else ""


class EmotionReflectionSettings(ImageReflectionSettings):
    """As for `reflect_image`."""

    parts: tuple[str, ...] = Field(default=("trigger", "feeling"), min_length=1)


def reflect_image(
    answer: str, record: EmotionRecord, settings: ImageReflectionSettings, reply: str | None = None
) -> float:
    """Whether the model agrees, seeing the image, that the image shows what it wrote: yes 1, no 0, other replies 0.5.

    0 if the answer lacks the parts that are asked about. Range 0 to 1. Source: EMO-R3 (arXiv 2602.23802), image
    consistency.
    """
    if reply is None:
        return 0.0
    said = _YES_OR_NO.match(without_thoughts(reply))
    return 0.5 if said is None else float(said[1].lower() == "yes")


def reflect_emotion(
    answer: str, record: EmotionRecord, settings: EmotionReflectionSettings, reply: str | None = None
) -> float:
    """Whether the model finds the true label in its own reasoning, without the image: 1, another reply 0, none 0.5.

    0 if the answer lacks the parts that are asked about. Range 0 to 1. Source: EMO-R3 (arXiv 2602.23802), emotional
    coherence.
    """
    if reply is None:
        return 0.0
    if not without_thoughts(reply).strip():
        return 0.5
    return float(read_emotion(reply, label_set_of(record)).label in true_labels(record))


def _image_question(answer: str, record: EmotionRecord, settings: ImageReflectionSettings) -> Question | None:
    text = settings.shown(answer)
    return Question(_IMAGE_QUESTION.format(text=text), record, with_image=True) if text else None


def _emotion_question(answer: str, record: EmotionRecord, settings: EmotionReflectionSettings) -> Question | None:
    text = settings.shown(answer)
    if not text:
        return None
    options = ", ".join(label_set_of(record).labels)
    return Question(_EMOTION_QUESTION.format(text=text, options=options), record, with_image=False)


register_reward(
    Reward(
        "reflect_image",
        reflect_image,
        ImageReflectionSettings,
        needs=frozenset({"model"}),
        question=_image_question,
    )
)
register_reward(
    Reward(
        "reflect_emotion",
        reflect_emotion,
        EmotionReflectionSettings,
        needs=frozenset({"label", "model"}),
        question=_emotion_question,
    )
)
