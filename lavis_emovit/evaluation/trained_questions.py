"""What a run evaluates its model with: the questions, processors and decoding for those who use the model later."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from lavis_emovit.emotion.label_set import LabelSet
from lavis_emovit.emotion.labels import CUSTOM_PREFIX, LABEL_SETS, LabelSetName, Subject, joined_labels
from lavis_emovit.emotion.questions import Scale
from lavis_emovit.errors import DataError
from lavis_emovit.evaluation.benchmarks import BenchmarkSettings, Kind, Method
from lavis_emovit.evaluation.prompt_settings import Prompt
from lavis_emovit.settings import Settings, added_field

# Kinds whose question fits any image; the others are questions that records have.
ASKABLE: tuple[Kind, ...] = ("emotion", "labels", "valence_arousal", "action_units", "explanation")


class TrainedQuestion(Settings):
    """A question about any image, in the plainest variant of a run's benchmark.

    Attributes:
        dataset: the dataset of the benchmark.
        method: how the run scores the answers; the other keys are those of `BenchmarkSettings`.
    """

    kind: Kind
    dataset: str
    method: Method
    label_set: LabelSetName | None = None
    subject: Subject = "picture"
    wording: int = Field(default=1, ge=1)
    with_options: bool = True
    option_marks: str = "none"
    scale: Scale = added_field("steps")
    prompt: Prompt | None = None
    max_new_tokens: int | None = None

    def benchmark(self) -> BenchmarkSettings:
        """The question as a benchmark, which needs no data to be asked."""
        values = self.model_dump(mode="json", exclude={"method", "wording", "with_options", "option_marks"})
        own: dict[str, Any] = {"wordings": [self.wording]} if self.prompt is None else {}
        if self.kind == "emotion":
            own |= {"with_options": [self.with_options], "option_marks": [self.option_marks]}
        return BenchmarkSettings.model_validate({**values, **own})


class TrainedQuestions(Settings):
    """The file `questions.json` of a checkpoint.

    Attributes:
        questions: each different question once, those of validation first; questions that only the records of a
            dataset have are not among them.
        image_processor, text_processor: name and settings; null: those of the model.
        num_beams, min_length: how the run lets the model write.
    """

    questions: tuple[TrainedQuestion, ...] = ()
    image_processor: dict[str, Any] | None = None
    text_processor: dict[str, Any] | None = None
    num_beams: int = Field(default=1, ge=1)
    min_length: int = Field(default=1, ge=0)

    def of_kind(self, kind: Kind) -> TrainedQuestion | None:
        """The first question of a kind."""
        return next((question for question in self.questions if question.kind == kind), None)


def trained_question(settings: BenchmarkSettings, method: Method, label_set: LabelSet | None) -> TrainedQuestion | None:
    """The plainest question of a benchmark; None for questions that only records have, and for labels with commas of
    a set that only another package knows."""
    name = _name_of(label_set) if label_set is not None else None
    if settings.kind not in ASKABLE or (name is None and label_set is not None):
        return None
    plain = settings.first_variant
    return TrainedQuestion(
        kind=settings.kind,
        dataset=settings.dataset,
        method=method,
        label_set=name,
        subject=settings.subject or "picture",
        wording=plain.wordings[0],
        with_options=plain.with_options[0],
        option_marks=plain.option_marks[0],
        scale=settings.scale,
        prompt=settings.prompt,
        max_new_tokens=settings.max_new_tokens,
    )


def _name_of(label_set: LabelSet) -> str | None:
    """A name by which the labels are found again, also where the package that defines the set is missing."""
    if label_set.name in LABEL_SETS or label_set.name.startswith(CUSTOM_PREFIX):
        return label_set.name
    try:
        return f"{CUSTOM_PREFIX} {joined_labels(label_set.labels)}"
    except DataError:
        return None
