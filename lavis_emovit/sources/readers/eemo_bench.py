"""Reader of EEmo-Bench's single images (Gao et al., ACM MM 2025, arXiv 2504.16405).

    <root>/Ebench_1_data(jac_en_check).json     a list of images, as the authors publish it with EEmo-Logic
    <root>/images/<image_name>

An entry has `image_name`, `category`, `emotion_list` (the three strongest of seven emotions with their points,
strongest first), `Valence`, `Arousal` and `Dominance` (mean, deviation and range of ratings from 1 to 9), and two
questions with options: `judge_Q`, `judge_A`, `judge_answer` (yes or no) and `choose_Q`, `choose_A`, `choose_answer`.
An open question, `open_ended_Q`, has no answer and is not imported.
"""

# ruff: noqa: N815 (keys as published)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import DataError
from lavis_emovit.records import EmotionRecord
from lavis_emovit.settings import Settings
from lavis_emovit.sources.base import Entry, checked_entry, read_json
from lavis_emovit.sources.json_entries import OneFileReader, image_fields, refuse_repeated

LABEL_SET = "labels:anger,disgust,fear,joy,neutral,sadness,surprise"
LOWEST, HIGHEST = 1.0, 9.0
_AXES = ("valence", "arousal", "dominance")
# Prefix of the keys of a question -> its type, named as in the pair questions.
_QUESTIONS = {"judge": "Yes-or-No", "choose": "What/How"}


class _Image(Entry):
    """An image; its ratings are mean, deviation and range."""

    image_name: str = Field(min_length=1)
    category: str | None = None
    emotion_list: list[tuple[str, float]] = Field(min_length=1)
    Valence: list[float] = Field(min_length=1)
    Arousal: list[float] = Field(min_length=1)
    Dominance: list[float] = Field(min_length=1)
    judge_Q: str | None = None
    judge_A: dict[str, str] | None = None
    judge_answer: str | None = None
    choose_Q: str | None = None
    choose_A: dict[str, str] | None = None
    choose_answer: str | None = None
    open_ended_Q: str | None = None


class EEmoBenchSettings(Settings):
    """Files below the root."""

    file: str = "Ebench_1_data(jac_en_check).json"
    images: str = "images"
    split: str = "test"


class EEmoBenchReader(OneFileReader, layout="eemo_bench"):
    """One record per image: its `ranking`, valence, arousal and dominance in [-1, 1], and two `questions`."""

    settings_class = EEmoBenchSettings
    settings: EEmoBenchSettings

    def records(self) -> Iterator[EmotionRecord]:
        first: dict[str, int] = {}
        for number, entry in enumerate(read_json(self.place, list)):
            self.notes.num_rows += 1
            with self.collect_faults(f"entry {number}"):
                image = checked_entry(_Image, entry)
                self.notes.unused |= dict.fromkeys(key for key in entry if key not in _Image.model_fields)
                refuse_repeated(first, image.image_name, number, f"the image '{image.image_name}'")
                yield self._record(image)

    def _record(self, image: _Image) -> EmotionRecord:
        labels = get_label_set(LABEL_SET)
        strongest = sorted(image.emotion_list, key=lambda one: -one[1])
        if strongest != image.emotion_list:
            self.notes.add("some emotions are not in the order of their points; their points decide", expected=True)
        return self.record(
            f"image '{image.image_name}'",
            **image_fields(self, image.image_name),
            label_set=labels.name,
            ranking=[labels.canonical(emotion) for emotion, _ in strongest],
            **{axis: scaled(getattr(image, axis.capitalize())[0], axis) for axis in _AXES},
            questions=[
                answered_question(
                    getattr(image, f"{prefix}_Q"),
                    getattr(image, f"{prefix}_A"),
                    getattr(image, f"{prefix}_answer"),
                    {"question_type": kind},
                    prefix,
                )
                for prefix, kind in _QUESTIONS.items()
                if getattr(image, f"{prefix}_Q")
            ],
            extra={"category": image.category} if image.category else {},
        )


def scaled(value: float, name: str) -> float:
    """A mean rating on [-1, 1]. DataError outside the scale."""
    if not LOWEST <= value <= HIGHEST:
        raise DataError(f"{name} {value:g} is outside the scale {LOWEST:g} to {HIGHEST:g}")
    return 2 * (value - LOWEST) / (HIGHEST - LOWEST) - 1


def answered_question(
    text: str, options: dict[str, str] | None, right: str | None, categories: dict[str, str], name: str
) -> dict[str, Any]:
    """A question with options, as a record has it. DataError if the right letter is none of the options."""
    if not options or right not in options:
        raise DataError(f"question '{name}': the answer {right!r} is none of the options {options!r:.80}")
    return {
        "question": text,
        "answers": [options[right].strip()],
        "options": [option.strip() for option in options.values()],
        "categories": categories,
        "id": name,
    }
