"""What a tuned model says about an uploaded image or clip: numbers at once, written answers in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from lavis_emovit.clips.clip import Clip
from lavis_emovit.emotion.labels import LabelSet
from lavis_emovit.errors import UserError
from lavis_emovit.evaluation.adapters.base import Item
from lavis_emovit.evaluation.question import Question
from lavis_emovit.evaluation.questions import ANY_RECORD, example_question
from lavis_emovit.evaluation.suite.frame_effects import frame_effects
from lavis_emovit.evaluation.suite.requests import prepare
from lavis_emovit.evaluation.truths import Truth
from lavis_emovit.tuned.calibrating import Calibration, calibrate, kept_calibration
from lavis_emovit.tuned.inputs import InputImage
from lavis_emovit.tuned.loading import NO_QUESTIONS, Tuned
from lavis_emovit.tuned.predictions import ImagePrediction, PredictionSettings, predict

MAX_QUESTION_CHARACTERS = 1000
_NEW_TOKENS = 160  # of the answer to a question of the visitor
_CLIPS_AT_ONCE = 4


@dataclass(frozen=True)
class PageModel:
    """A tuned model as a page shows it.

    Attributes:
        name: differs from that of every other model of the page.
        settings: what it is asked besides the explanation, and its temperature and threshold.
        calibration: of its probabilities; None: they are not calibrated.
        explanation: the question for one; None if it has no labels, so there is no emotion to explain.
        untrained: kinds of `settings` and explanation that the run did not evaluate.
    """

    name: str
    tuned: Tuned
    settings: PredictionSettings
    calibration: Calibration | None
    explanation: Question | None
    untrained: frozenset[str]

    @property
    def about(self) -> str:
        """The architecture and the datasets that it was tuned on."""
        files = self.tuned.files
        data = ", ".join(files.datasets)
        return f"{files.model.get('arch', 'model')}{f', tuned on {data}' if data else ''}"

    @property
    def label_set(self) -> LabelSet | None:
        return self.tuned.label_set

    @property
    def reads_videos(self) -> bool:
        """Whether it reads clips, and this installation decodes videos."""
        return self.tuned.adapter.reads_clips and find_spec("av") is not None

    def predict(self, data: bytes, clip: Clip | None = None) -> ImagePrediction:
        """Labels and numbers for an encoded image or clip; its `error` says why there are none."""
        (rows,) = predict(self.tuned.adapter, [InputImage("upload", lambda: data, clip=clip)], self.settings)
        return rows[0]

    def explain(self, data: bytes, clip: Clip | None = None) -> Iterator[str]:
        """Why, in pieces; nothing for a model without labels."""
        return self._write(data, clip, self.explanation) if self.explanation is not None else iter(())

    def answer(self, data: bytes, question: str, clip: Clip | None = None) -> Iterator[str]:
        """The answer to a question of the visitor, in pieces.

        Raises:
            UserError: the question is empty or too long.
        """
        text = " ".join(question.split())
        if not text:
            raise UserError("Write a question first.")
        if len(text) > MAX_QUESTION_CHARACTERS:
            raise UserError(f"The question has {len(text)} characters; the limit is {MAX_QUESTION_CHARACTERS}.")
        return self._write(data, clip, Question("own", text, max_new_tokens=_NEW_TOKENS))

    def attention(self, data: bytes) -> np.ndarray | None:
        """How much the query tokens attend to each part of the image, for the first question: float [rows, columns].

        None: the model has no Q-Former.
        """
        adapter, first = self.tuned.adapter, self.settings.askings[0]
        question = example_question(first.benchmark, first.method, first.label_set)
        found = adapter.attention(adapter.prepare(data), question)
        return np.array(found) if found is not None else None

    def frame_effects(self, data: bytes, clip: Clip, label: str | None) -> list[tuple[float, float]] | None:
        """Of each frame of a clip that the model sees, its time in seconds and its effect on a label.

        None: there are none, for reasons that `frame_effects` of suites has.
        """
        asked = next((asking for asking in self.settings.askings if asking.label_set is not None), None)
        if asked is None:
            return None
        item = Item(ANY_RECORD.model_copy(update={"clip": clip}), data, Truth(), show=self.tuned.box)
        prepared = prepare(item, self.tuned.adapter)
        about = asked.benchmark, asked.method, asked.label_set, label
        effects = frame_effects(self.tuned.adapter, prepared, *about, batch_size=_CLIPS_AT_ONCE)
        return None if effects is None else list(zip(prepared.frames_s or (), effects))

    def _write(self, data: bytes, clip: Clip | None, question: Question) -> Iterator[str]:
        adapter = self.tuned.adapter
        shown = adapter.prepare(data) if clip is None else adapter.prepare_clip(data, clip, None, self.tuned.box)[0]
        return adapter.stream(shown, question)


def page_models(tuned: Sequence[Tuned], threshold: float | None = None) -> list[PageModel]:
    """The models of a page.

    Args:
        threshold: confidence below which the models give no label. They are calibrated first where they are not.

    Raises:
        UserError: a model has no questions, or cannot be calibrated although there is a threshold.
    """
    names = [one.files.location.resolve().name for one in tuned]
    if len(set(names)) < len(names):
        names = [str(one.files.location) for one in tuned]
    return [_page_model(name, one, threshold) for name, one in zip(names, tuned)]


def _page_model(name: str, tuned: Tuned, threshold: float | None) -> PageModel:
    trained = [question.kind for question in tuned.questions.questions]
    if not trained:
        raise UserError(f"{tuned.files.location}: {NO_QUESTIONS}")
    kinds = dict.fromkeys([*trained, "valence_arousal"])
    kinds.pop("explanation", None)
    calibration = explanation = None
    if tuned.label_set is not None:
        calibration = calibrate(tuned) if threshold is not None else kept_calibration(tuned)
    if tuned.label_set is not None or "explanation" in trained:
        (why,) = tuned.askings(["explanation"])
        explanation = example_question(why.benchmark, why.method, why.label_set)
    temperature = calibration.temperature if calibration is not None else 1.0
    settings = PredictionSettings(tuned.askings(kinds), temperature, threshold)
    untrained = frozenset({*kinds, "explanation"} - set(trained))
    return PageModel(name, tuned, settings, calibration, explanation, untrained)
