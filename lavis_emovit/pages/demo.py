"""The page of `emovit demo`: an image, and what tuned models say about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from lavis_emovit.errors import DataError, UserError
from lavis_emovit.pages import parts
from lavis_emovit.pages.answers import MAX_QUESTION_CHARACTERS, PageModel
from lavis_emovit.pages.site import KEPT_S, MODEL_QUEUE, import_gradio
from lavis_emovit.pages.uploads import shown_url

WARNING = (
    "What a person feels cannot be read off an image. The answers say which label people would probably give; do not "
    "use them to judge, select or watch anybody."
)
_LEDE = "Choose an image. The model gives a label, valence and arousal, and says why."
_FILE_TYPES = ["image", ".heic", ".heif", ".avif"]


def demo_page(models: Sequence[PageModel]) -> Any:
    """The page for one model, or for several side by side; a `gradio.Blocks` that is not served yet."""
    gradio = import_gradio()
    names = " and ".join(model.name for model in models)
    with gradio.Blocks(title=f"{names} · EmoVIT", analytics_enabled=False, delete_cache=KEPT_S) as page:
        html = partial(gradio.HTML, apply_default_css=False)
        html(parts.header("EmoVIT demo", "What does this image express?", _LEDE, WARNING))
        chosen = gradio.State(None, time_to_live=KEPT_S[1])
        with gradio.Row(equal_height=False):
            with gradio.Column(min_width=300, scale=4, elem_classes="stays"):
                upload = gradio.File(label="Image", file_types=_FILE_TYPES, type="binary", height=150, elem_id="upload")
                shown = html(elem_id="shown")
                # A live region that stays in the page, so that screen readers announce each change of its text.
                status = html(html_template='<p class="status" role="status">${value}</p>', value="")
            numbers, reasons = [], []
            for place, model in enumerate(models):
                with gradio.Column(min_width=300, scale=5):
                    numbers.append(html(parts.empty(model), elem_id=f"numbers-{place}"))
                    reasons.append(html(elem_id=f"reasons-{place}"))
        with gradio.Row(equal_height=False, elem_classes="asking"):
            question = gradio.Textbox(
                label="Your own question about the image",
                placeholder="What in this image looks calm?",
                max_length=MAX_QUESTION_CHARACTERS,
                scale=5,
                min_width=280,
                elem_id="question",
            )
            ask = gradio.Button("Ask", variant="primary", scale=1, min_width=120, elem_id="ask")
        with gradio.Row(equal_height=False):
            replies = [html(elem_id=f"reply-{place}", min_width=300) for place in range(len(models))]

        once: dict[str, Any] = {"concurrency_id": MODEL_QUEUE, "concurrency_limit": 1, "show_progress": "hidden"}
        answers = _Answers(models, [chosen, shown, status], numbers, reasons, replies)
        upload.upload(answers.about_image, upload, answers.outputs, api_visibility="private", **once)
        upload.clear(answers.cleared, None, answers.outputs, api_visibility="private", show_progress="hidden")
        for event in (ask.click, question.submit):
            event(answers.to_question, [chosen, question], [status, *replies], api_visibility="private", **once)
    return page


class _Answers:
    """What the events of the page do. Each yields what changes, as `component -> value`."""

    def __init__(
        self, models: Sequence[PageModel], above: list[Any], numbers: list[Any], reasons: list[Any], replies: list[Any]
    ):
        self._models, self._numbers, self._reasons, self._replies = models, numbers, reasons, replies
        self._chosen, self._shown, self._status = above
        self.outputs = [*above, *numbers, *reasons, *replies]

    def cleared(self) -> dict[Any, Any]:
        """The page as at its beginning."""
        blank = dict.fromkeys([self._shown, self._status, *self._reasons, *self._replies], "")
        return {**blank, self._chosen: None, **{at: parts.empty(one) for at, one in zip(self._numbers, self._models)}}

    def about_image(self, data: bytes) -> Iterator[dict[Any, Any]]:
        """All answers about an uploaded image, each as soon as it is there."""
        try:
            url = shown_url(data)
        except DataError as error:
            yield {**self.cleared(), self._shown: parts.problem(str(error))}
            return
        image = parts.image(url, "The image that you chose")
        yield {**self.cleared(), self._chosen: data, self._shown: image, self._status: "The model reads the image."}
        for model, numbers in zip(self._models, self._numbers):
            yield {numbers: parts.numbers(model, model.predict(data))}
        for model, reasons in zip(self._models, self._reasons):
            note = "This run was not evaluated on explanations." if "explanation" in model.untrained else ""
            if model.explanation is not None:
                yield from _growing(reasons, "Explanation", model.explain(data), note)
        yield {self._status: "The answer is complete."}

    def to_question(self, data: bytes | None, question: str) -> Iterator[dict[Any, Any]]:
        """The answer of each model to a question of the visitor."""
        if data is None:
            yield {self._status: "", self._replies[0]: parts.problem("Choose an image first.")}
            return
        yield {self._status: "The model reads the question.", **dict.fromkeys(self._replies, "")}
        for model, reply in zip(self._models, self._replies):
            try:
                yield from _growing(reply, f"Answer of {model.name}", model.answer(data, question), "")
            except UserError as error:
                yield {self._status: "", reply: parts.problem(str(error))}
                return
        yield {self._status: "The answer is complete."}


def _growing(place: Any, heading: str, pieces: Iterator[str], note: str) -> Iterator[dict[Any, Any]]:
    text = ""
    for piece in pieces:
        text += piece
        yield {place: parts.written(heading, text, False)}
    yield {place: parts.written(heading, text or "(The model wrote nothing.)", True, note)}
