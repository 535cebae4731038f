"""What happens on the page of `emovit demo`: each event yields what changes, as `component -> value`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_emovit.clips.clip import Clip
from lavis_emovit.clips.reading import film_strip
from lavis_emovit.errors import DataError, UserError
from lavis_emovit.evaluation.report.images import effect_bars
from lavis_emovit.images import data_url
from lavis_emovit.pages import parts
from lavis_emovit.pages.answers import PageModel
from lavis_emovit.pages.decisions import add_correction
from lavis_emovit.pages.examples import Example
from lavis_emovit.pages.heat_map import heat_map, place_of
from lavis_emovit.pages.uploads import shown_clip, shown_image, shown_upload
from lavis_emovit.tuned.predictions import ImagePrediction

Changes = dict[Any, Any]
_FRAME_PX = 120  # height of a frame above its bar


@dataclass
class Chosen:
    """The image or clip of a visit, and what the models have said about it so far."""

    data: bytes
    clip: Clip | None
    rows: list[ImagePrediction]


@dataclass
class DemoParts:
    """Components of the page; lists but the last have one for each model.

    Attributes:
        correcting: the label and the message of the part that corrects labels, if the page has it.
    """

    upload: Any
    chosen: Any
    shown: Any
    status: Any
    numbers: list[Any]
    reasons: list[Any]
    looks: list[Any]
    replies: list[Any]
    correcting: list[Any]


class DemoEvents:
    """The events of a page; `connect` names its components first."""

    def __init__(self, models: Sequence[PageModel], examples: Sequence[Example], corrections: Path | None):
        self._models, self._examples, self._corrections = models, examples, corrections
        self._takes_videos = all(model.reads_videos for model in models)

    def connect(self, at: DemoParts) -> None:
        """The components that events change."""
        self._at = at
        several = (at.numbers, at.reasons, at.looks, at.replies, at.correcting)
        self.outputs = [at.chosen, at.shown, at.status, *(one for group in several for one in group)]

    def cleared(self) -> Changes:
        """The page as at its beginning, with the file that was uploaded."""
        at = self._at
        blank: Changes = dict.fromkeys([at.shown, at.status, *at.reasons, *at.looks, *at.replies], "")
        blank |= dict(zip(at.correcting, (None, "")))
        return {**blank, at.chosen: None, **{place: parts.empty(one) for place, one in zip(at.numbers, self._models)}}

    def about_image(self, data: bytes) -> Iterator[Changes]:
        """All answers about an uploaded image or video, each as soon as it is there."""
        try:
            image, clip = shown_upload(data, takes_videos=self._takes_videos)
        except DataError as error:
            yield {**self.cleared(), self._at.shown: parts.problem(str(error))}
            return
        what = "The image" if clip is None else "Frames of the video"
        yield from self._about(Chosen(data, clip, []), image, f"{what} that you chose", "The answer is complete.")

    def about_example(self, number: int) -> Iterator[Changes]:
        """All answers about an example, and what people call it."""
        if not isinstance(number, int) or not 0 <= number < len(self._examples):
            raise UserError(f"there is no example {number}")
        example = self._examples[number]
        people = f" People labelled this example {example.label}." if example.label is not None else ""
        yield {self._at.upload: None}
        data, clip = example.data, example.clip
        image = shown_image(data) if clip is None else shown_clip(data, clip)
        yield from self._about(
            Chosen(data, clip, []), image, f"Example {number + 1}", f"The answer is complete.{people}"
        )

    def _about(self, chosen: Chosen, image: Image.Image, alt: str, ready: str) -> Iterator[Changes]:
        data, clip = chosen.data, chosen.clip
        yield {
            **self.cleared(),
            self._at.chosen: chosen,
            self._at.shown: parts.image(data_url(image), alt),
            self._at.status: f"The model reads the {'image' if clip is None else 'video'}.",
        }
        for model, numbers in zip(self._models, self._at.numbers):
            chosen.rows.append(model.predict(data, clip))
            yield {self._at.chosen: chosen, numbers: parts.numbers(model, chosen.rows[-1])}
        for model, reasons in zip(self._models, self._at.reasons):
            note = "This run was not evaluated on explanations." if "explanation" in model.untrained else ""
            if model.explanation is not None:
                yield from _growing(reasons, "Explanation", partial(model.explain, data, clip), note)
        for model, looks, row in zip(self._models, self._at.looks, chosen.rows):
            yield {looks: _looks(model, chosen, image, row)}
        yield {self._at.status: ready}

    def to_question(self, chosen: Chosen | None, question: str) -> Iterator[Changes]:
        """The answer of each model to a question of the visitor."""
        if chosen is None:
            yield {self._at.status: "", self._at.replies[0]: parts.problem("Choose an image first.")}
            return
        yield {self._at.status: "The model reads the question.", **dict.fromkeys(self._at.replies, "")}
        for model, reply in zip(self._models, self._at.replies):
            yield from _growing(
                reply, f"Answer of {model.name}", partial(model.answer, chosen.data, question, chosen.clip), ""
            )
        yield {self._at.status: "The answer is complete."}

    def corrected(self, chosen: Chosen | None, label: str | None, person: str) -> str:
        """Keep a correction; the text says what happened."""
        label_set = self._models[0].label_set
        assert self._corrections is not None and label_set is not None
        if chosen is None or len(chosen.rows) < len(self._models):
            return "Choose an image first, and wait for the answer."
        if chosen.clip is not None:
            return "Only labels of images can be corrected here; correct those of clips with `emovit review`."
        if label not in label_set.labels:
            return "Choose the right label first."
        said: dict[str, str | float] = {}
        for place, (model, row) in enumerate(zip(self._models, chosen.rows)):
            end = "" if place == 0 else f"_{place + 1}"
            said |= {f"model{end}": model.name, f"model_sha256{end}": model.tuned.files.weights_sha256}
            said |= {f"prediction{end}": row.emotion or "none"}
            said |= {f"confidence{end}": row.confidence} if row.confidence is not None else {}
        try:
            record = add_correction(
                self._corrections, chosen.data, label=label, label_set=label_set.name, person=person, models=said
            )
        except UserError as error:
            return str(error)
        return f"Saved: {record.emotion}, by {record.extra['person']}."


def _looks(model: PageModel, chosen: Chosen, image: Image.Image, row: ImagePrediction) -> str:
    """Where in an image the model looks, or when in a clip."""
    if chosen.clip is None:
        attention = model.attention(chosen.data)
        if attention is None:
            return parts.attention(None, "")
        return parts.attention(data_url(heat_map(image, attention)), place_of(attention))
    label = next(iter(row.probabilities), None) if row.probabilities else row.emotion
    effects = model.frame_effects(chosen.data, chosen.clip, label)
    if effects is None:
        return parts.moments(None, [], "")
    times_s, sizes = zip(*effects)
    strip = film_strip(chosen.data, chosen.clip, _FRAME_PX, times_s=times_s)
    return parts.moments(data_url(strip), effect_bars(times_s, sizes), str(label))


def _growing(place: Any, heading: str, write: Callable[[], Iterator[str]], note: str) -> Iterator[Changes]:
    """The pieces of an answer as they come; if the question cannot be asked, why."""
    text = ""
    try:
        for piece in write():
            text += piece
            yield {place: parts.written(heading, text, False)}
    except UserError as error:
        yield {place: parts.problem(str(error))}
        return
    yield {place: parts.written(heading, text or "(The model wrote nothing.)", True, note)}
